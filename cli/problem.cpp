#include "cli/problem.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>

#include "cli/captured_inputs.h"
#include "compiler/ir/evaluate.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

Result<std::map<std::string, std::int64_t>> parse_pairs(const std::string& option, const std::string& text) {
  std::map<std::string, std::int64_t> result;
  for (const std::string& part : CLI::detail::split(text, ',')) {
    const std::size_t equals = part.find('=');
    std::int64_t value = 0;
    const char *last = part.data() + part.size(), *first = last;
    if (equals != std::string::npos) first = part.data() + equals + 1;
    const auto [end, error] = std::from_chars(first, last, value);
    const bool good = error == std::errc() && end == last && value >= 0;
    if (!good)
      return unexpected(ErrorKind::usage, fmt::format("`{} {}`: `{}` is not NAME=NUMBER", option, text, part),
                        fmt::format("write it like {}",
                                    option == "--grid" ? "--grid t=8,y=16,x=16"
                                                       : "--shape batch=1,heads=8,head_dim=64,tokens=4096"));
    if (!result.emplace(part.substr(0, equals), value).second)
      return unexpected(ErrorKind::usage,
                        fmt::format("`{} {}`: `{}` is given twice", option, text, part.substr(0, equals)));
  }
  return result;
}

class Builder {
 public:
  Builder(const Spec& spec, const ProblemOptions& options, Tensors tensors)
      : spec_(spec), options_(options), tensors_(tensors), module_(spec.impl().variant.checked.module) {}

  Result<HostProblem> run() {
    for (const auto& row : kDTypes)
      if (row.name == options_.dtype) p_.dtype = row.dtype;
    for (const Precision precision : {Precision::ieee, Precision::tf32})
      if (name_of(precision) == options_.precision) p_.precision = precision;
    p_.layout = options_.layout == "bnhd" ? Layout::bnhd : Layout::bhnd;
    VICINAL_TRY(p_.params, parse_params(options_.spec.params));
    p_.dynamic = {options_.spec.dynamic.begin(), options_.spec.dynamic.end()};
    VICINAL_TRY(given_grid_, parse_pairs("--grid", options_.grid.empty() ? "_=0" : options_.grid));
    given_grid_.erase("_");
    for (const auto& [name, extent] : given_grid_) {
      bool known = false;
      for (const ir::Axis& axis : module_.axes) known = known || axis.name == name;
      if (!known)
        return unexpected(ErrorKind::usage,
                          fmt::format("--grid names `{}`, and the spec has no such axis", name));
    }
    const bool files = !options_.q.empty() || !options_.k.empty() || !options_.v.empty();
    VICINAL_TRY_VOID(files ? from_files() : from_shape());
    VICINAL_TRY_VOID(capture_inputs(spec_, options_, p_));
    if (!files) VICINAL_TRY_VOID(make_up_inputs(spec_, options_, p_));  // else what is missing is a mistake
    return std::move(p_);
  }

 private:
  // Files.

  Result<void> from_files() {
    if (options_.q.empty() || options_.k.empty() || options_.v.empty())
      return unexpected(ErrorKind::usage, "--q, --k and --v go together");
    if (!options_.shape.empty())
      return unexpected(ErrorKind::usage, "--shape and --q, --k, --v exclude each other");
    if (options_.context_k.empty() != options_.context_v.empty())
      return unexpected(ErrorKind::usage, "--context-k and --context-v go together");
    if (!given_grid_.empty()) VICINAL_TRY_VOID(grid_from_option());
    VICINAL_TRY(p_.q, read(options_.q, true));
    VICINAL_TRY(p_.k, read(options_.k, true));
    VICINAL_TRY(p_.v, read(options_.v, true));
    if (!options_.context_k.empty()) {
      VICINAL_TRY(p_.context_k, read(options_.context_k, false));
      VICINAL_TRY(p_.context_v, read(options_.context_v, false));
    }
    p_.head_dim = p_.q.view.shape.back();
    p_.value_dim = p_.v.view.shape.back();
    if (p_.grid.empty() && !module_.axes.empty()) {
      const Shape& shape = p_.q.view.shape;
      if (shape.size() != 3 + module_.axes.size())
        return unexpected(ErrorKind::usage,
                          fmt::format("{} has its tokens in one dimension: give the grid", options_.q),
                          "pass --grid, an extent for each axis");
      p_.grid.assign(shape.begin() + 2, shape.end() - 1);
    }
    return {};
  }

  Result<void> grid_from_option() {
    for (const ir::Axis& axis : module_.axes) {
      const auto extent = given_grid_.find(axis.name);
      if (extent == given_grid_.end())
        return unexpected(ErrorKind::usage, fmt::format("--grid leaves out axis `{}`", axis.name));
      p_.grid.push_back(extent->second);
    }
    return {};
  }

  Result<HostTensor> read(const std::string& path, bool on_grid) {
    VICINAL_TRY(const files::Array array, files::read_npy(path));
    if (!is_floating(array.dtype))
      return unexpected(ErrorKind::spec, fmt::format("{} holds {}: q, k and v are f16, bf16, f32 or f64",
                                                     path, name_of(array.dtype)));
    const std::size_t rank = array.shape.size();
    if (rank != 4 && !(on_grid && !module_.axes.empty() && rank == 3 + module_.axes.size()))
      return unexpected(
          ErrorKind::spec,
          fmt::format("{} has shape [{}]: it must have 4 dimensions{}", path, fmt::join(array.shape, ", "),
                      on_grid && module_.axes.size() > 1
                          ? fmt::format(", or {} with one for each axis", 3 + module_.axes.size())
                          : ""));
    return tensor_from(array, p_.dtype, p_.layout);
  }

  // Shapes.

  Result<void> from_shape() {
    VICINAL_TRY(auto sizes, parse_pairs("--shape", options_.shape.empty() ? "_=0" : options_.shape));
    sizes.erase("_");
    p_.is_default = options_.shape.empty();
    static const char* const known[] = {"batch",  "heads", "kv_heads", "head_dim",
                                        "tokens", "keys",  "context",  "value_dim"};
    for (const auto& [name, size] : sizes) {
      bool found = false;
      for (const char* k : known) found = found || name == k;
      if (!found)
        return unexpected(ErrorKind::usage, fmt::format("--shape has no `{}`", name),
                          "it takes batch, heads, kv_heads, head_dim, tokens, keys, context and value_dim");
    }
    const auto size = [&](const char* name, std::int64_t otherwise) {
      const auto it = sizes.find(name);
      return it == sizes.end() ? otherwise : it->second;
    };
    VICINAL_TRY_VOID(grid(sizes));
    const std::int64_t tokens = product_of(p_.grid);
    const bool large = tokens > 2048;
    const std::int64_t batch = size("batch", p_.is_default && !large ? 2 : 1),
                       heads = size("heads", large ? 2 : 4);
    const std::int64_t kv_heads =
        size("kv_heads", p_.is_default ? std::max<std::int64_t>(1, heads / 2) : heads);
    p_.head_dim = size("head_dim", 64);
    p_.value_dim = size("value_dim", p_.head_dim);
    if (!module_.axes.empty() && sizes.contains("keys"))
      return unexpected(ErrorKind::usage,
                        "with axes, queries and keys share the grid: leave keys out of --shape");
    const Shape key_grid = module_.axes.empty() ? Shape{size("keys", tokens)} : p_.grid;
    p_.q = tensor(1, batch, heads, p_.grid, p_.head_dim);
    p_.k = tensor(2, batch, kv_heads, key_grid, p_.head_dim);
    p_.v = tensor(3, batch, kv_heads, key_grid, p_.value_dim);
    const std::int64_t context = size("context", module_.context ? 16 : 0);
    if (context != 0 && !module_.context)
      return unexpected(ErrorKind::spec, "--shape gives context keys, and the spec has none",
                        "add the statement `context` to its block");
    if (module_.context) {
      p_.context_k = tensor(4, batch, kv_heads, {context}, p_.head_dim);
      p_.context_v = tensor(5, batch, kv_heads, {context}, p_.value_dim);
    }
    return {};
  }

  HostTensor tensor(std::uint64_t stream, std::int64_t batch, std::int64_t heads, const Shape& tokens,
                    std::int64_t dim) const {
    Shape shape = {batch, heads};
    shape.insert(shape.end(), tokens.begin(), tokens.end());
    shape.push_back(dim);
    if (tensors_ == Tensors::outlines) return make_outline(p_.dtype, shape);
    HostTensor t = make_tensor(p_.dtype, shape, p_.layout, true);
    fill_normal(t, options_.seed * 64 + stream);
    return t;
  }

  // --grid, or --shape tokens, or extents into which the windows fit.
  Result<void> grid(const std::map<std::string, std::int64_t>& sizes) {
    if (!given_grid_.empty()) {
      if (sizes.contains("tokens"))
        return unexpected(ErrorKind::usage, "--grid and tokens in --shape exclude each other");
      return grid_from_option();
    }
    const auto tokens = sizes.find("tokens");
    if (module_.axes.size() <= 1 && tokens != sizes.end()) return p_.grid = {tokens->second}, Result<void>();
    if (tokens != sizes.end())
      return unexpected(ErrorKind::usage,
                        fmt::format("the spec has {} axes: --shape tokens does not say how they are split",
                                    module_.axes.size()),
                        "pass --grid, an extent for each axis");
    if (!p_.is_default) p_.notes.push_back("the number of tokens was chosen");
    if (module_.axes.empty()) return p_.grid = {256}, Result<void>();
    VICINAL_TRY(const check::Bindings bindings, runtime::make_bindings(module_, p_.params, p_.dynamic));
    const std::int64_t base = module_.axes.size() == 1 ? 256 : module_.axes.size() == 2 ? 16 : 8;
    for (const ir::Axis& axis : module_.axes) {
      const auto value = [&](ir::NodeId id, std::int64_t otherwise) -> std::int64_t {
        if (!id.valid()) return otherwise;
        const auto v = ir::evaluate(module_, id, [&](const ir::Symbol& s) -> std::optional<ir::Value> {
          if (s.kind != ir::SymbolKind::param) return std::nullopt;
          const auto bound = bindings.values.find(module_.params[s.index].name);
          return bound == bindings.values.end() ? module_.params[s.index].value : bound->second;
        });
        return v ? v->i : otherwise;
      };
      const std::int64_t needed = value(axis.window, 1) * value(axis.dilation, 1);
      p_.grid.push_back(std::max(base, needed));
    }
    return {};
  }

  const Spec& spec_;
  const ProblemOptions& options_;
  const Tensors tensors_;
  const ir::Module& module_;
  std::map<std::string, std::int64_t> given_grid_;
  HostProblem p_;
};

}  // namespace

Result<HostProblem> make_problem(const Spec& spec, const ProblemOptions& options, Tensors tensors) {
  return Builder(spec, options, tensors).run();
}

void add_problem_options(CLI::App& app, ProblemOptions& options) {
  add_spec_options(app, options.spec);
  app.add_option("--q", options.q, "Queries, a .npy file of f16, f32 or f64");
  app.add_option("--k", options.k, "Keys");
  app.add_option("--v", options.v, "Values");
  app.add_option("--context-k", options.context_k, "Keys of the context");
  app.add_option("--context-v", options.context_v, "Values of the context");
  app.add_option("--input", options.inputs, "NAME=FILE.npy: a captured input");
  app.add_option("--shape", options.shape,
                 "Random tensors: "
                 "batch=1,heads=8,kv_heads=2,head_dim=64,tokens=4096[,keys=N][,context=N][,value_dim=N]");
  app.add_option("--grid", options.grid, "An extent for each axis: t=8,y=16,x=16");
  app.add_option("--layout", options.layout, "bhnd (heads first) or bnhd (heads last)")
      ->check(CLI::IsMember({"bhnd", "bnhd"}))
      ->capture_default_str();
  app.add_option("--dtype", options.dtype,
                 "f32, f16 or bf16; tensors are rounded to it (f64 on the interpreter)")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "f64"}))
      ->capture_default_str();
  app.add_option("--precision", options.precision,
                 "Of products of f32 on a GPU: ieee, as exact as f32, or tf32, from 11 bits of each factor")
      ->check(CLI::IsMember({"ieee", "tf32"}))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Of the random tensors")->capture_default_str();
}

HostTensor HostProblem::like_rows(DType of, std::int64_t dim) const {
  Shape shape = q.view.shape;
  shape.pop_back();
  if (dim != 0) shape.push_back(dim);
  return make_tensor(of, shape, layout, dim != 0);
}

RunArguments HostProblem::arguments(HostTensor* out, HostTensor* lse) {
  RunArguments a;
  a.q = q.view;
  a.k = k.view;
  a.v = v.view;
  if (out != nullptr) a.out = out->view;
  if (lse != nullptr) a.lse = lse->view;
  if (!context_k.view.shape.empty()) a.context_k = context_k.view, a.context_v = context_v.view;
  for (auto& [name, tensor] : inputs) a.inputs[name] = tensor.view;
  for (const std::string& name : dynamic)
    if (const auto value = params.find(name); value != params.end()) a.dynamic[name] = value->second;
  if (grid.size() > 1) a.grid = grid;
  return a;
}

RunArguments HostProblem::arguments_to_ask() {
  RunArguments a = arguments(nullptr, nullptr);
  a.out = a.q;
  a.out.shape.back() = value_dim;
  return a;
}

CompileOptions HostProblem::compile_options() const {
  CompileOptions o;
  o.dtype = dtype;
  o.precision = precision;
  o.head_dim = head_dim;
  o.value_dim = value_dim;
  o.params = params;
  o.dynamic = dynamic;
  for (const auto& [name, tensor] : inputs) o.input_dtypes[name] = tensor.view.dtype;
  return o;
}

std::string HostProblem::describe() const {
  std::string text = fmt::format("batch {}, heads {}, kv_heads {}, tokens {}", q.view.shape[0],
                                 q.view.shape[1], k.view.shape[1], q.tokens());
  if (grid.size() > 1) text += fmt::format(" ({})", fmt::join(grid, " x "));
  if (k.tokens() != q.tokens()) text += fmt::format(", keys {}", k.tokens());
  if (!context_k.view.shape.empty()) text += fmt::format(", context {}", context_k.view.shape[2]);
  text += fmt::format(", head_dim {}", head_dim);
  if (value_dim != head_dim) text += fmt::format(", value_dim {}", value_dim);
  if (precision != Precision::ieee) text += fmt::format(", {} products", name_of(precision));
  return text + fmt::format(", {}, {}", name_of(dtype), layout == Layout::bhnd ? "bhnd" : "bnhd");
}

}  // namespace vicinal::cli
