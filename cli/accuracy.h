// How far a result is from the interpreter's, and how far it may be.
#pragma once

#include "cli/problem.h"
#include "runtime/cpu/interpreter.h"

namespace vicinal::cli {

struct ErrorRow {
  std::string what;                      // "out" or "lse"
  double max = 0, mean = 0;              // absolute, over the rows that were compared
  double plain_max = 0, plain_mean = 0;  // of a plain program in the same precision
  double allowance = 0;                  // two units in the last place, at the worst element
  bool pass = true;
  std::string worst;  // where the largest error is
};

struct Comparison {
  std::vector<ErrorRow> rows;
  std::int64_t compared = 0, total = 0;  // query rows
  bool pass() const;
};

// Compares on all rows, or on a sample with the first and the last of each head when there are more than
// `limit`. An error passes when it is at most twice the plain program's, plus two units in the last place of
// the exact value.
Comparison compare(const cpu::Interpreter& oracle, const runtime::Problem& problem, std::int64_t limit,
                   std::uint64_t seed);

}  // namespace vicinal::cli
