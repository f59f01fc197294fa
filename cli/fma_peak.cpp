#include "cli/fma_peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>

#include "runtime/host/parallel.h"

namespace vicinal::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// As much of the best burst is taken for an undisturbed one.
constexpr double kUndisturbed = 0.93;
constexpr double kWaited = 0.03;
// Some tenths of a millisecond: long beside starting the threads, short beside what disturbs them.
constexpr std::int64_t kRounds = 100'000;
constexpr std::chrono::milliseconds kPatience(1);

// Seconds that this process' threads have been ready to run and did not: the second number of their
// schedstat. 0 where the kernel does not count.
double waited_for_processors() {
  double sum = 0;
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", error)) {
    double ran = 0, waited = 0;
    if (std::ifstream(thread.path() / "schedstat") >> ran >> waited) sum += waited * 1e-9;
  }
  return sum;
}

}  // namespace

Result<FmaPeak> FmaPeak::measure(const cpu::CodeGeneratorApi& generator, unsigned threads) {
  cpu::FmaBurst burst;
  std::string error;
  if (!generator.burst(burst, error))
    return unexpected(ErrorKind::internal, "LLVM does not compile the burst: " + error);
  FmaPeak peak(burst, threads);
  for (int i = 0; i < 40; ++i) peak.burst();
  return peak;
}

double FmaPeak::burst() {
  // All begin together, so that threads which take turns on one processor are seen to; but none waits for
  // long for one that does not come.
  std::atomic<unsigned> ready = 0;
  std::vector<Clock::time_point> starts(threads_), ends(threads_);
  host::parallel_for(threads_, threads_, [&](std::int64_t i) {
    const Clock::time_point arrival = Clock::now();
    ++ready;
    while (ready < threads_ && Clock::now() - arrival < kPatience) {
    }
    starts[static_cast<std::size_t>(i)] = Clock::now();
    [[maybe_unused]] const volatile float kept = burst_.run(kRounds);
    ends[static_cast<std::size_t>(i)] = Clock::now();
  });
  const std::chrono::duration<double> whole =
      *std::ranges::max_element(ends) - *std::ranges::min_element(starts);
  const double rate = burst_.flops * kRounds * threads_ / whole.count();
  best_ = std::max(best_, rate);
  return rate;
}

Result<FmaPeak::Times> FmaPeak::times(int repeat, const std::function<Result<void>()>& run) {
  Times times;
  std::vector<double> lower;
  for (int i = 0; i < repeat; ++i) {
    const double before = burst();
    const double waited = waited_for_processors();
    const Clock::time_point start = Clock::now();
    VICINAL_TRY_VOID(run());
    const double seconds = seconds_since(start);
    times.milliseconds.push_back(seconds * 1e3);
    times.waited.push_back((waited_for_processors() - waited) / (seconds * threads_));
    const double after = burst();
    times.peak.push_back((before + after) / 2);
    lower.push_back(std::min(before, after));
  }
  for (std::size_t i = 0; i < lower.size(); ++i)
    times.undisturbed.push_back(lower[i] >= kUndisturbed * best_ && times.waited[i] <= kWaited);
  return times;
}

}  // namespace vicinal::cli
