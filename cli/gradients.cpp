#include "cli/gradients.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "runtime/files/npy.h"

namespace vicinal::cli {
namespace {

struct Captured {
  std::string name, path;
};
Result<Captured> parse_captured(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    return unexpected(ErrorKind::usage, fmt::format("`--grad {}` is not NAME=FILE", text),
                      "write it like --grad table=d_table.npy");
  return Captured{text.substr(0, equals), text.substr(equals + 1)};
}

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

// A gradient of what the run computes, in the layout of the problem's tensors.
Result<HostTensor> read_gradient(const std::string& path, DType dtype, Layout layout, bool has_dim) {
  VICINAL_TRY(const files::Array array, files::read_npy(path));
  if (array.shape.size() < (has_dim ? 4u : 3u))
    return unexpected(ErrorKind::spec,
                      fmt::format("{} has {} dimensions: it must be shaped as what it is the gradient of",
                                  path, array.shape.size()));
  return tensor_from(array, dtype, layout, has_dim);
}

}  // namespace

bool GradientOptions::wanted() const {
  return !captured.empty() || std::ranges::any_of(std::array{&q, &k, &v, &context_k, &context_v},
                                                  [](const std::string* path) { return !path->empty(); });
}

void add_gradient_options(CLI::App& app, GradientOptions& options) {
  app.add_option("--grad-out", options.out, "The gradient of the output, a .npy file of its shape");
  app.add_option("--grad-lse", options.lse, "The gradient of the log-sum-exp; default: zero");
  for (const auto& [name, path] :
       {std::pair("q", &options.q), std::pair("k", &options.k), std::pair("v", &options.v),
        std::pair("context-k", &options.context_k), std::pair("context-v", &options.context_v)})
    app.add_option(fmt::format("--grad-{}", name), *path,
                   fmt::format("Write the gradient of {} here, f32 .npy", name));
  app.add_option("--grad", options.captured,
                 "NAME=FILE: write the gradient of a learnable input or param there");
  app.add_flag("--nondeterministic", options.nondeterministic,
               "Gradients may differ in their last bits from run to run, which is faster on a GPU");
}

Result<void> check_gradient_options(const Spec& spec, const GradientOptions& options) {
  for (const std::string* path : {&options.q, &options.k, &options.v, &options.context_k, &options.context_v})
    if (!path->empty()) VICINAL_TRY_VOID(files::check_writable(*path));
  const std::vector<std::string> inputs = spec.inputs(), params = spec.params();
  for (const std::string& text : options.captured) {
    VICINAL_TRY(const Captured captured, parse_captured(text));
    if (!has(inputs, captured.name) && !has(params, captured.name))
      return unexpected(ErrorKind::usage,
                        fmt::format("the spec has no input and no param `{}`", captured.name));
    VICINAL_TRY_VOID(files::check_writable(captured.path));
  }
  if (options.wanted() && options.out.empty())
    return unexpected(ErrorKind::usage, "gradients are asked for, and that of the output is not given",
                      "pass it with --grad-out");
  if (!options.wanted() && !(options.out.empty() && options.lse.empty()))
    return unexpected(ErrorKind::usage, "a gradient of the output is given, and none is asked for",
                      "say where to write one: --grad-q, --grad-k, --grad-v, --grad NAME=FILE");
  return {};
}

Result<double> write_gradients(const Spec& spec, HostProblem& problem, const GradientOptions& options,
                               DType dtype, const ComputeGradients& compute) {
  OutputDifferentials given;
  VICINAL_TRY(const HostTensor d_out, read_gradient(options.out, dtype, problem.layout, true));
  given.out = d_out.view;
  HostTensor d_lse;
  if (!options.lse.empty()) {
    VICINAL_TRY(d_lse, read_gradient(options.lse, DType::f32, problem.layout, false));
    given.lse = d_lse.view;
  }

  Differentials wanted;
  std::vector<std::pair<std::string, HostTensor>> made;
  made.reserve(5 + options.captured.size());  // the views point into them
  const auto make = [&](const std::string& path, const HostTensor& like, std::optional<Tensor>& target) {
    if (path.empty()) return;
    made.emplace_back(path, make_tensor(dtype, like.view.shape, problem.layout, true));
    target = made.back().second.view;
  };
  make(options.q, problem.q, wanted.q);
  make(options.k, problem.k, wanted.k);
  make(options.v, problem.v, wanted.v);
  if (!spec.has_context() && !(options.context_k.empty() && options.context_v.empty()))
    return unexpected(ErrorKind::spec, "the variant has no context keys",
                      "leave --grad-context-k and --grad-context-v out");
  make(options.context_k, problem.context_k, wanted.context_k);
  make(options.context_v, problem.context_v, wanted.context_v);
  const std::size_t tensors = made.size();
  for (const std::string& text : options.captured) {
    VICINAL_TRY(const Captured captured, parse_captured(text));
    const auto input = problem.inputs.find(captured.name);
    made.emplace_back(
        captured.path,
        make_tensor(DType::f32, input != problem.inputs.end() ? input->second.view.shape : Shape{}));
    (has(spec.inputs(), captured.name) ? wanted.inputs : wanted.params)[captured.name] =
        made.back().second.view;
  }

  VICINAL_TRY(const double milliseconds, compute(given, wanted));
  for (std::size_t i = 0; i < made.size(); ++i)
    VICINAL_TRY_VOID(i < tensors ? write_tensor(made[i].first, made[i].second, problem.layout, true)
                                 : write_tensor(made[i].first, made[i].second, Layout::bhnd, false));
  return milliseconds;
}

}  // namespace vicinal::cli
