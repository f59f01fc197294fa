// One compiled kernel on a device: what it was emitted from, and what launching it takes.
#pragma once

#include <memory>

#include "runtime/cuda_kernel.h"
#include "runtime/kernel_plan.h"
#include "runtime/work_counters.h"

namespace vicinal::runtime {

struct Program {
  emit::KernelOptions options;
  emit::KernelSource source;
  ir::Module module;  // its declarations
  cuda::LoadedKernel loaded;
  CompiledCubin cubin;
  std::vector<std::string> rejected;  // candidates that were tried before it, and what was wrong with them
  int multiprocessors = 1;
  bool unequal_rows = false;  // tiles of queries may have more to do than others
  mutable PlanCache plans;
  std::unique_ptr<WorkCounters> counters;  // of a Hopper kernel

  // The first of the candidates that comes out well: one that spills, or whose matrix products the compiler
  // had to put in sequence, is several times slower than the next. Errors (limit): none does.
  static Result<std::shared_ptr<const Program>> make(Engine& engine, const cuda::Context& context,
                                                     const emit::Specialized& variant,
                                                     const std::vector<emit::KernelOptions>& candidates,
                                                     const std::string& arch);

  bool hopper() const { return options.kind == emit::KernelKind::hopper; }
  // Why it cannot take the problem's tensors; nothing where it can.
  std::optional<std::string> obstacle(const Problem& problem) const;
  // Of a problem without an obstacle.
  plan::TileShape shape(const Problem& problem) const { return *find_shape(problem); }
  // Errors as the launch would give them.
  Result<void> check(const Problem& problem) const;
  Result<void> launch(const Problem& problem, const cuda::TileWords& tiles, cuda::StreamHandle stream) const;

  std::optional<plan::TileShape> find_shape(const Problem& problem) const;
};

// "cuda/hopper"
std::string path_of(const Program& program);

// What the compiler's log and the loaded kernel say against running it; nothing where all is well. A few
// registers of the producer may spill, which costs nothing that can be measured; accumulators cost half of
// the speed.
inline constexpr int kMostLocalBytes = 128;  // of a thread
std::optional<std::string> defect(const std::string& log, const cuda::KernelAttributes& attributes,
                                  int most_local_bytes = kMostLocalBytes);

}  // namespace vicinal::runtime
