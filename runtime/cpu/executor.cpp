#include "runtime/cpu/executor.h"

#include "runtime/host/parallel.h"

namespace vicinal::cpu {

Result<void> Executor::run(const runtime::Problem& problem, const plan::TilePlan& plan,
                           unsigned threads) const {
  const std::int64_t rows = plan.grid().rows(), tasks = rows * problem.batch * problem.heads;
  const auto used = static_cast<std::size_t>(std::clamp<std::int64_t>(tasks, 1, std::max(1u, threads)));
  const auto team = teams_.take();
  while (team->size() < used) team->push_back(std::make_unique<Worker>(*compiled_, checked_));
  for (std::size_t i = 0; i < used; ++i) (*team)[i]->start(problem, plan);
  // Rows from the last on: under a causal mask these have the most to do.
  host::parallel_for(tasks, static_cast<unsigned>(used), [&](std::int64_t n, unsigned slot) {
    const std::int64_t slice = n / rows;
    (*team)[slot]->task(slice / problem.heads, slice % problem.heads, rows - 1 - n % rows);
  });
  for (std::size_t i = 0; i < used; ++i)
    if ((*team)[i]->contaminated())
      return unexpected(ErrorKind::internal,
                        "LLVM does not compile the code for rows that NaN or Inf must be kept out of",
                        "this is a mistake of ours; the interpreter runs the spec meanwhile");
  return {};
}

}  // namespace vicinal::cpu
