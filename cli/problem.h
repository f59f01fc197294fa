// The tensors of a run: from files, or made up from shapes and a seed. Or their outlines, for who runs
// nothing.
#pragma once

#include <vicinal/vicinal.h>

#include <map>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/host_tensor.h"

namespace vicinal::cli {

struct ProblemOptions {
  SpecOptions spec;
  std::string q, k, v, context_k, context_v;  // files
  std::vector<std::string> inputs;            // NAME=FILE
  std::string shape, grid, layout = "bhnd", dtype = "f32", precision = "ieee";
  std::uint64_t seed = 0;
};
void add_problem_options(CLI::App& app, ProblemOptions& options);

struct HostProblem {
  DType dtype;
  Precision precision = Precision::ieee;
  Layout layout;
  std::int64_t head_dim = 0, value_dim = 0;
  HostTensor q, k, v, context_k, context_v;
  std::map<std::string, HostTensor> inputs;
  Shape grid;  // extents per axis
  std::map<std::string, ParamValue> params;
  std::set<std::string> dynamic;
  bool is_default = false;         // neither tensors nor a shape were given
  std::vector<std::string> notes;  // what was made up

  // An output of q's rows with `dim` channels (0: none, for lse), in the problem's layout.
  HostTensor like_rows(DType of, std::int64_t dim) const;
  // Views of everything; `out` and `lse` may be null.
  RunArguments arguments(HostTensor* out, HostTensor* lse);
  // To ask what suits a kernel, not to run: q stands in for out.
  RunArguments arguments_to_ask();
  CompileOptions compile_options() const;
  std::string describe() const;
};

// What is behind q, k and v that are made up: random elements, or nothing where extents are all that is asked
// for. Captured inputs always have their elements.
enum class Tensors { filled, outlines };
Result<HostProblem> make_problem(const Spec& spec, const ProblemOptions& options,
                                 Tensors tensors = Tensors::filled);

}  // namespace vicinal::cli
