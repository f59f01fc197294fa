#include "cli/fma_peak.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "runtime/host/parallel.h"

namespace vicinal::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// As much of the best burst is taken for an undisturbed one.
constexpr double kUndisturbed = 0.93;
// Some tenths of a millisecond: long beside starting the threads, short beside what disturbs them.
constexpr std::int64_t kRounds = 100'000;

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
  std::vector<double> rates(threads_);
  host::parallel_for(threads_, threads_, [&](std::int64_t i) {
    const Clock::time_point start = Clock::now();
    [[maybe_unused]] volatile const float kept = burst_.run(kRounds);
    rates[static_cast<std::size_t>(i)] = burst_.flops * kRounds / seconds_since(start);
  });
  const double rate = std::accumulate(rates.begin(), rates.end(), 0.0);
  best_ = std::max(best_, rate);
  return rate;
}

Result<FmaPeak::Times> FmaPeak::times(int repeat, const std::function<Result<void>()>& run) {
  Times times;
  std::vector<double> lower;
  for (int i = 0; i < repeat; ++i) {
    const double before = burst();
    const Clock::time_point start = Clock::now();
    VICINAL_TRY_VOID(run());
    times.milliseconds.push_back(seconds_since(start) * 1e3);
    const double after = burst();
    times.peak.push_back((before + after) / 2);
    lower.push_back(std::min(before, after));
  }
  for (const double rate : lower) times.undisturbed.push_back(rate >= kUndisturbed * best_);
  return times;
}

}  // namespace vicinal::cli
