// How much of what the processor can do a program does, on a machine whose speed changes from one moment to
// the next: short bursts of multiplications and additions, on all threads, just before and after what is
// timed.
#pragma once

#include <vicinal/result.h>

#include <functional>
#include <vector>

#include "runtime/cpu/generated_code.h"

namespace vicinal::cli {

class FmaPeak {
 public:
  // Takes some bursts, to learn what the best is.
  static Result<FmaPeak> measure(const cpu::CodeGeneratorApi& generator, unsigned threads);

  struct Times {
    std::vector<double> milliseconds;  // of all repetitions
    std::vector<double> peak;          // FLOP/s that the bursts around each made, on average
    // What part of the time threads that had work waited for a processor, which others had. Bursts are too
    // short to be interrupted, and do not show it.
    std::vector<double> waited;
    std::vector<bool>
        undisturbed;  // whether both bursts came close to the best ever, and next to no thread waited
  };
  // Runs so often, with bursts between.
  Result<Times> times(int repeat, const std::function<Result<void>()>& run);

  double best() const { return best_; }  // FLOP/s of all threads together

 private:
  FmaPeak(cpu::FmaBurst burst, unsigned threads) : burst_(burst), threads_(threads) {}
  double burst();

  cpu::FmaBurst burst_;
  unsigned threads_;
  double best_ = 0;
};

}  // namespace vicinal::cli
