// Results of a backend against the interpreter: off by at most twice the error of a plain program in the same
// precision plus two units in the last place; masks exactly.
#pragma once

#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/support/plain_attention.h"

namespace vicinal::testing {

struct Errors {
  double plain = 0;  // the plain program's largest error
  // Of the element that comes nearest to what is allowed, or goes furthest beyond it: two units in the last
  // place are its own.
  double error = 0, two_ulp = 0;
  double excess = -std::numeric_limits<double>::infinity();  // error - two_ulp
  void add(double got, double want, double by_plain, DType dtype);
  double allowed() const { return 2 * plain + two_ulp; }
  bool pass() const { return excess <= 2 * plain; }
};

// A line for each, by name; several threads may add at once.
class ErrorTable {
 public:
  void add(const std::string& spec, const std::string& kernel, DType dtype, const Errors& out,
           const Errors& lse);
  std::string text() const;

 private:
  std::mutex mutex_;
  std::multiset<std::string> lines_;
};

// Computes a problem on the backend under test, and leaves out and lse in the problem's own memory.
using RunProblem = std::function<Result<void>(Problem& problem)>;
// Makes another problem of the same spec; nothing where none is found. The plain program's error is taken
// over up to three of them too where its error over this one says no: of a few rows some suit it by luck.
using MoreProblems = std::function<std::optional<Problem>()>;

MoreProblems more_of(const Kernel& host, std::mt19937& random, std::int64_t tokens);

// A spec to be compiled for a backend under test, and for the interpreter.
struct Job {
  std::string name;
  Spec spec;
  CompileOptions options = {};  // of the backend under test; inputs without element types get random ones
  std::optional<Kernel> tested = {}, host = {};
  std::string error = {};
};

// Of two heads that share keys, by the dims and the type that the job is compiled for.
ProblemShape shape_of(const Job& job, std::int64_t queries, std::int64_t keys, Layout layout = Layout::bhnd);

// Compiling takes most of the time, so all of it is done first, on all processors.
void compile_all(std::vector<Job>& jobs);

struct Accuracy {
  Errors out, lse;
};
// `host`: the spec compiled for the interpreter.
Accuracy check_values(const Kernel& host, const RunProblem& run, Problem problem,
                      const MoreProblems& others = {});

// NaN in some keys and values: it reaches those who keep them, and nobody else.
void poison(Problem& problem, std::mt19937& random);

// Queries and keys of zeros, values one-hot: an element of the output is a key's weight. Where the
// interpreter says that a key is not kept it must be exactly 0, and where it has a weight that fp32 can hold
// it must not be.
void check_mask(const Kernel& host, const RunProblem& run, Problem problem);

}  // namespace vicinal::testing
