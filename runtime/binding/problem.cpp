#include "runtime/binding/problem.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>

#include "compiler/ir/evaluate.h"
#include "compiler/ir/text.h"
#include "compiler/support/int128.h"
#include "templates/vicinal/geometry.cuh"

namespace vicinal::runtime {
namespace {

using ir::SymbolKind;

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;  // positions are 32-bit

template <class... Args>
Unexpected wrong(const char* format, const Args&... arguments) {
  return unexpected(ErrorKind::spec, fmt::format(fmt::runtime(format), arguments...));
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

class Binder {
 public:
  Binder(const BindingRules& rules, const RunArguments& arguments)
      : rules_(rules),
        module_(rules.module),
        arguments_(arguments),
        rank_(std::max<std::size_t>(1, module_.axes.size())) {}

  Result<Problem> run() {
    p_.head_dim = rules_.head_dim;
    p_.value_dim = rules_.value_dim;
    VICINAL_TRY_VOID(queries());
    VICINAL_TRY_VOID(keys());
    VICINAL_TRY_VOID(outputs());
    VICINAL_TRY_VOID(context());
    VICINAL_TRY_VOID(grid());
    VICINAL_TRY_VOID(params());
    VICINAL_TRY_VOID(axes());
    VICINAL_TRY_VOID(inputs());
    VICINAL_TRY_VOID(launch_checks());
    return std::move(p_);
  }

 private:
  // Tensors.

  Result<std::vector<std::int64_t>> strides_of(const std::string& name, const Tensor& t) const {
    support::int128 elements = 1;
    for (std::int64_t extent : t.shape) {
      if (extent < 0 || extent >= kMaxTokens)
        return wrong("`{}` has shape {}: an extent is from 0 to 2^31 - 1", name, shape_text(t.shape));
      elements *= extent;
      if (elements > std::numeric_limits<std::int64_t>::max())
        return wrong("`{}` has shape {}: too many elements", name, shape_text(t.shape));
    }
    if (!t.strides.empty() && t.strides.size() != t.shape.size())
      return wrong("`{}` has {} strides for {} dimensions", name, t.strides.size(), t.shape.size());
    if (elements != 0 && t.data == nullptr) return wrong("`{}` has no data", name);
    if (!t.strides.empty()) return t.strides;
    std::vector<std::int64_t> strides(t.shape.size());
    std::int64_t step = 1;
    for (std::size_t i = t.shape.size(); i-- > 0;) {
      strides[i] = step;
      step *= std::max<std::int64_t>(t.shape[i], 1);
    }
    return strides;
  }

  struct Viewed {
    Strided view;
    std::int64_t batch, heads, dim;
    std::vector<std::int64_t> tokens;  // per axis
  };

  // [batch, heads, tokens, dim], or an axis' dimension each in place of tokens; lse has no dim.
  Result<Viewed> view(const std::string& name, const Tensor& t, bool has_dim,
                      const std::vector<std::int64_t>& split) const {
    VICINAL_TRY(const std::vector<std::int64_t> strides, strides_of(name, t));
    const std::size_t tail = has_dim ? 1 : 0;
    const std::size_t token_dims = t.shape.size() - std::min(t.shape.size(), 2 + tail);
    if (t.shape.size() < 3 + tail || (token_dims != 1 && token_dims != rank_))
      return wrong("`{}` has shape {}: it must be [batch, heads, tokens{}]{}", name, shape_text(t.shape),
                   has_dim ? ", dim" : "",
                   rank_ > 1 ? fmt::format(", with tokens in one dimension or in {}", rank_) : "");
    Viewed v{{t.data, t.dtype, strides[0], strides[1], has_dim ? strides.back() : 0, {}},
             t.shape[0],
             t.shape[1],
             has_dim ? t.shape.back() : 0,
             {}};
    if (token_dims == rank_) {
      v.tokens.assign(t.shape.begin() + 2, t.shape.begin() + 2 + static_cast<std::ptrdiff_t>(rank_));
      v.view.axis.assign(strides.begin() + 2, strides.begin() + 2 + static_cast<std::ptrdiff_t>(rank_));
      return v;
    }
    // One dimension for all axes: the grid says how it is split.
    if (split.size() != rank_)
      return wrong(
          "`{}` has shape {}, all tokens in one dimension: give the grid, or a dimension for each of the {} "
          "axes",
          name, shape_text(t.shape), rank_);
    support::int128 product = 1;
    for (std::int64_t extent : split) product *= extent;
    if (product != t.shape[2])
      return wrong("`{}` has {} tokens, and the grid {} has another number", name, t.shape[2],
                   shape_text(split));
    v.tokens = split;
    v.view.axis.resize(rank_);
    std::int64_t step = strides[2];
    for (std::size_t i = rank_; i-- > 0;) {
      v.view.axis[i] = step;
      step *= split[i];
    }
    return v;
  }

  Result<void> expect(const std::string& name, std::string_view what, std::int64_t have, std::int64_t want,
                      std::string_view like) const {
    if (have == want) return {};
    return wrong("`{}` has {} {}, and {} says {}", name, have, what, like, want);
  }

  Result<void> queries() {
    const std::vector<std::int64_t> one = {arguments_.q.shape.size() > 2 ? arguments_.q.shape[2] : 0};
    VICINAL_TRY(const Viewed q, view("q", arguments_.q, true, rank_ == 1 ? one : arguments_.grid));
    p_.q = q.view;
    p_.batch = q.batch;
    p_.heads = q.heads;
    q_local_ = q.tokens;
    VICINAL_TRY_VOID(expect_dtype("q", arguments_.q));
    return expect("q", "channels", q.dim, p_.head_dim, "the kernel's head_dim");
  }

  Result<void> expect_dtype(std::string_view name, const Tensor& t) const {
    if (t.dtype == rules_.dtype) return {};
    return unexpected(ErrorKind::spec,
                      fmt::format("`{}` is {}, and the kernel was compiled for {}", name, name_of(t.dtype),
                                  name_of(rules_.dtype)),
                      "compile for the tensors' dtype, or convert them");
  }

  Result<void> keys() {
    const std::vector<std::int64_t> one = {arguments_.k.shape.size() > 2 ? arguments_.k.shape[2] : 0};
    VICINAL_TRY(const Viewed k, view("k", arguments_.k, true, rank_ == 1 ? one : arguments_.grid));
    VICINAL_TRY(const Viewed v, view("v", arguments_.v, true, rank_ == 1 ? one : arguments_.grid));
    p_.k = k.view;
    p_.v = v.view;
    p_.kv_heads = k.heads;
    k_local_ = k.tokens;
    VICINAL_TRY_VOID(expect("k", "batches", k.batch, p_.batch, "q"));
    VICINAL_TRY_VOID(expect("k", "channels", k.dim, p_.head_dim, "the kernel's head_dim"));
    VICINAL_TRY_VOID(expect("v", "batches", v.batch, p_.batch, "q"));
    VICINAL_TRY_VOID(expect("v", "heads", v.heads, k.heads, "k"));
    VICINAL_TRY_VOID(expect("v", "channels", v.dim, p_.value_dim, "the kernel's value_dim"));
    for (std::size_t i = 0; i < rank_; ++i)
      VICINAL_TRY_VOID(expect("v", "keys along an axis", v.tokens[i], k.tokens[i], "k"));
    if (p_.kv_heads == 0 ? p_.heads != 0 : p_.heads % p_.kv_heads != 0)
      return wrong("{} query heads cannot share {} key heads evenly: heads % kv_heads must be 0", p_.heads,
                   p_.kv_heads);
    for (const Tensor* t : {&arguments_.k, &arguments_.v})
      if (t->dtype != arguments_.q.dtype)
        return wrong("q is {} and {} is {}: q, k and v must have one dtype", name_of(arguments_.q.dtype),
                     t == &arguments_.k ? "k" : "v", name_of(t->dtype));
    return {};
  }

  Result<void> outputs() {
    VICINAL_TRY(const Viewed out, view("out", arguments_.out, true, q_local_));
    p_.out = out.view;
    VICINAL_TRY_VOID(same_rows("out", out));
    VICINAL_TRY_VOID(expect_dtype("out", arguments_.out));
    VICINAL_TRY_VOID(expect("out", "channels", out.dim, p_.value_dim, "the kernel's value_dim"));
    p_.lse.axis.resize(rank_);
    if (!arguments_.lse) return {};
    if (module_.normalize != ir::Normalize::softmax)
      return unexpected(
          ErrorKind::spec,
          fmt::format("there is no lse: the variant has `normalize = {}`", ir::name_of(module_.normalize)),
          "leave lse out");
    VICINAL_TRY(const Viewed lse, view("lse", *arguments_.lse, false, q_local_));
    p_.lse = lse.view;
    if (arguments_.lse->dtype != DType::f32)
      return wrong("`lse` is {}, and must be f32", name_of(arguments_.lse->dtype));
    return same_rows("lse", lse);
  }

  Result<void> same_rows(const std::string& name, const Viewed& v) const {
    VICINAL_TRY_VOID(expect(name, "batches", v.batch, p_.batch, "q"));
    VICINAL_TRY_VOID(expect(name, "heads", v.heads, p_.heads, "q"));
    for (std::size_t i = 0; i < rank_; ++i)
      VICINAL_TRY_VOID(expect(name, "tokens along an axis", v.tokens[i], q_local_[i], "q"));
    return {};
  }

  Result<void> context() {
    p_.context_k.axis.resize(1);
    p_.context_v.axis.resize(1);
    if (arguments_.context_k.has_value() != arguments_.context_v.has_value())
      return wrong("context_k and context_v go together");
    if (!arguments_.context_k) return {};
    if (!module_.context)
      return unexpected(ErrorKind::spec, "the variant has no context keys",
                        "add the statement `context` to its block");
    for (const auto& [name, tensor, target, dim] :
         {std::tuple("context_k", &*arguments_.context_k, &p_.context_k, p_.head_dim),
          std::tuple("context_v", &*arguments_.context_v, &p_.context_v, p_.value_dim)}) {
      VICINAL_TRY(const std::vector<std::int64_t> strides, strides_of(name, *tensor));
      if (tensor->shape.size() != 4)
        return wrong("`{}` has shape {}: it must be [batch, kv_heads, context, dim]", name,
                     shape_text(tensor->shape));
      VICINAL_TRY_VOID(expect(name, "batches", tensor->shape[0], p_.batch, "q"));
      VICINAL_TRY_VOID(expect(name, "heads", tensor->shape[1], p_.kv_heads, "k"));
      VICINAL_TRY_VOID(expect(name, "channels", tensor->shape[3], dim, "the kernel"));
      VICINAL_TRY_VOID(expect(name, "keys", tensor->shape[2], arguments_.context_k->shape[2], "context_k"));
      if (tensor->dtype != arguments_.q.dtype)
        return wrong("q is {} and {} is {}: they must have one dtype", name_of(arguments_.q.dtype), name,
                     name_of(tensor->dtype));
      *target = {tensor->data, tensor->dtype, strides[0], strides[1], strides[3], {strides[2]}};
    }
    p_.context = arguments_.context_k->shape[2];
    return {};
  }

  // The whole grid, and where the tensors lie in it.
  Result<void> grid() {
    const bool sequence = module_.axes.empty();
    const std::vector<std::int64_t> whole = arguments_.grid.empty() ? q_local_ : arguments_.grid;
    std::vector<std::int64_t> key_whole = !arguments_.key_grid.empty()  ? arguments_.key_grid
                                          : !sequence                   ? whole
                                          : arguments_.k_origin.empty() ? k_local_
                                                                        : whole;
    if (!sequence && !arguments_.key_grid.empty() && arguments_.key_grid != whole)
      return wrong("with axes, queries and keys share one grid: leave key_grid out");
    VICINAL_TRY_VOID(place("q", whole, q_local_, arguments_.q_origin, p_.q_axis));
    VICINAL_TRY_VOID(place("k", key_whole, k_local_, arguments_.k_origin, p_.k_axis));
    if (!sequence && arguments_.k_origin.empty() && k_local_ != whole)
      return wrong(
          "keys cover {} of the grid {}: with axes, queries and keys share the grid (a shard gives k_origin)",
          shape_text(k_local_), shape_text(whole));
    VICINAL_TRY(p_.tokens, count("tokens", p_.q_axis));
    VICINAL_TRY(p_.keys, count("keys", p_.k_axis));
    return {};
  }

  Result<void> place(std::string_view name, const std::vector<std::int64_t>& whole,
                     const std::vector<std::int64_t>& local, const std::vector<std::int64_t>& origin,
                     std::vector<GridAxis>& axes) const {
    if (whole.size() != rank_) return wrong("the grid has {} extents for {} axes", whole.size(), rank_);
    if (!origin.empty() && origin.size() != rank_)
      return wrong("{}_origin has {} elements for {} axes", name, origin.size(), rank_);
    for (std::size_t i = 0; i < rank_; ++i) {
      const std::int64_t at = origin.empty() ? 0 : origin[i];
      if (at < 0 || local[i] > whole[i] || at > whole[i] - local[i])
        return wrong("`{}` holds {} tokens from {} on along axis {}, and the grid has {}", name, local[i], at,
                     i, whole[i]);
      axes.push_back({whole[i], local[i], at});
    }
    return {};
  }

  Result<std::int64_t> count(std::string_view what, const std::vector<GridAxis>& axes) const {
    support::int128 product = 1;
    for (const GridAxis& a : axes) product *= a.extent;
    if (product >= kMaxTokens) return wrong("the grid has 2^31 {} or more", what);
    return static_cast<std::int64_t>(product);
  }

  // Values.

  Result<void> params() {
    for (const auto& [name, value] : arguments_.dynamic) {
      bool known = false;
      for (const ir::Param& param : module_.params) known = known || (param.name == name && param.dynamic);
      if (!known)
        return unexpected(ErrorKind::usage, fmt::format("there is no dynamic param `{}`", name),
                          "params are made dynamic when the spec is compiled");
    }
    for (const ir::Param& param : module_.params) {
      const auto given = arguments_.dynamic.find(param.name);
      if (given == arguments_.dynamic.end()) {
        p_.params.push_back(param.value);
        continue;
      }
      VICINAL_TRY(const ir::Value value, convert_param(param.name, param.type, given->second));
      p_.params.push_back(value);
    }
    return {};
  }

  std::optional<std::int64_t> symbol(const ir::Symbol& s) const {
    switch (s.kind) {
      case SymbolKind::batch: return p_.batch;
      case SymbolKind::heads: return p_.heads;
      case SymbolKind::kv_heads: return p_.kv_heads;
      case SymbolKind::tokens: return p_.tokens;
      case SymbolKind::keys: return p_.keys;
      case SymbolKind::context: return p_.context;
      case SymbolKind::head_dim: return p_.head_dim;
      case SymbolKind::axis_length: return p_.q_axis[s.index].extent;
      case SymbolKind::named_extent:
        return s.index < p_.extents.size() && p_.extents[s.index] >= 0 ? std::optional(p_.extents[s.index])
                                                                       : std::nullopt;
      case SymbolKind::param:
        return module_.params[s.index].type == ir::Type::integer
                   ? std::optional<std::int64_t>(p_.params[s.index].i)
                   : std::nullopt;
      default: return std::nullopt;
    }
  }

  std::optional<std::int64_t> evaluate(ir::NodeId node) const {
    const auto value = ir::evaluate(module_, node, [&](const ir::Symbol& s) -> std::optional<ir::Value> {
      if (s.kind == SymbolKind::param) return p_.params[s.index];
      const auto extent = symbol(s);
      return extent ? std::optional(ir::int_value(static_cast<std::int32_t>(*extent))) : std::nullopt;
    });
    return value ? std::optional<std::int64_t>(value->i) : std::nullopt;
  }

  Result<void> axes() {
    for (std::size_t i = 0; i < module_.axes.size(); ++i) {
      const ir::Axis& axis = module_.axes[i];
      const auto value = [&](ir::NodeId id, std::int64_t otherwise) {
        return id.valid() ? evaluate(id).value_or(otherwise) : otherwise;
      };
      const Problem::AxisShape shape{value(axis.window, 0), value(axis.dilation, 1), value(axis.stride, 1),
                                     axis.causal};
      const std::int64_t length = p_.q_axis[i].extent;
      p_.axes.push_back(shape);
      if (axis.window.valid() && shape.window < 1)
        return wrong("the window of axis `{}` is {}: it must be at least 1", axis.name, shape.window);
      if (shape.stride < 1 || (axis.window.valid() && shape.stride > shape.window))
        return wrong("the stride of axis `{}` is {}: it must be from 1 to the window, {}", axis.name,
                     shape.stride, shape.window);
      if (length == 0) continue;
      if (!window_fits({static_cast<int>(length), static_cast<int>(shape.window),
                        static_cast<int>(shape.dilation), 1, false}))
        return unexpected(
            ErrorKind::spec,
            axis.window.valid()
                ? fmt::format("the window of axis `{}` does not fit: window {} x dilation {} = {} is more "
                              "than its {} tokens",
                              axis.name, shape.window, shape.dilation, shape.window * shape.dilation, length)
                : fmt::format("the dilation of axis `{}`, {}, is more than its {} tokens", axis.name,
                              shape.dilation, length),
            fmt::format("make `{}` longer, or its window or dilation smaller", axis.name));
    }
    return {};
  }

  // Captured inputs: shapes, and the extents that they declare.
  Result<void> inputs() {
    for (const auto& [name, tensor] : arguments_.inputs) {
      bool known = false;
      for (const ir::Input& input : module_.inputs) known = known || input.name == name;
      if (!known) return unexpected(ErrorKind::usage, fmt::format("the variant has no input `{}`", name));
    }
    p_.extents.assign(module_.extents.size(), -1);
    p_.inputs.resize(module_.inputs.size());
    for (std::size_t i = 0; i < module_.inputs.size(); ++i) {
      const ir::Input& input = module_.inputs[i];
      const auto given = arguments_.inputs.find(input.name);
      if (given == arguments_.inputs.end()) {
        if (!rules_.used_inputs[i]) continue;
        return unexpected(
            ErrorKind::spec, fmt::format("input `{}` is missing", input.name),
            fmt::format("pass it: {} with {} dimensions", ir::name_of(input.type), input.dims.size()));
      }
      VICINAL_TRY_VOID(bind_input(i, input, given->second));
    }
    for (std::size_t e = 0; e < module_.extents.size(); ++e)
      if (p_.extents[e] < 0 && rules_.used_extents[e]) return extent_missing(e);
    return {};
  }

  // An input that is never read may be left out, unless it is what gives an extent its value.
  Result<void> extent_missing(std::size_t e) const {
    for (const ir::Input& input : module_.inputs)
      for (ir::NodeId dim : input.dims)
        if (reaches(dim, {SymbolKind::named_extent, static_cast<std::uint32_t>(e)}))
          return unexpected(ErrorKind::spec, fmt::format("input `{}` is missing", input.name),
                            fmt::format("pass it: its shape gives `{}`", module_.extents[e]));
    return {};
  }

  Result<void> bind_input(std::size_t i, const ir::Input& input, const Tensor& t) {
    VICINAL_TRY(const std::vector<std::int64_t> strides, strides_of(input.name, t));
    const bool fits = input.type == ir::Type::real ? is_floating(t.dtype)
                      : input.type == ir::Type::integer
                          ? is_integer(t.dtype)
                          : t.dtype == DType::boolean || t.dtype == DType::u8 || t.dtype == DType::i8;
    if (!fits)
      return wrong("input `{}` is {}, and its elements are declared {}", input.name, name_of(t.dtype),
                   ir::name_of(input.type));
    if (t.shape.size() != input.dims.size())
      return wrong("input `{}` has {} dimensions, and {} are declared", input.name, t.shape.size(),
                   input.dims.size());
    for (std::size_t d = 0; d < t.shape.size(); ++d) {
      if (const auto fresh = unsolved(input.dims[d])) {
        // A new name plus a constant: what is left is the name's value.
        p_.extents[*fresh] = 0;
        const std::int64_t constant = evaluate(input.dims[d]).value_or(0);
        p_.extents[*fresh] = t.shape[d] - constant;
        if (p_.extents[*fresh] < 0)
          return wrong("dimension {} of input `{}` is {}, and must be at least {}", d, input.name, t.shape[d],
                       constant);
        continue;
      }
      const std::int64_t want = evaluate(input.dims[d]).value_or(-1);
      if (t.shape[d] != want)
        return wrong("input `{}` has shape {}: dimension {} must be {}", input.name, shape_text(t.shape), d,
                     want);
    }
    // Clamping an index needs an element to clamp to. Without keys only what depends on their number is not
    // read.
    const bool keys = p_.local_keys() + p_.context != 0;
    for (std::size_t d = 0; d < t.shape.size(); ++d) {
      const bool read =
          keys || rules_.row_inputs[i] ||
          !(reaches(input.dims[d], {SymbolKind::keys}) || reaches(input.dims[d], {SymbolKind::context}));
      if (t.shape[d] == 0 && read && rules_.used_inputs[i] && p_.rows() != 0)
        return wrong("input `{}` has shape {}: it is read and has no elements", input.name,
                     shape_text(t.shape));
    }
    p_.inputs[i] = {t.data, t.dtype, t.shape, strides};
    return {};
  }

  // The named extent in a dimension that has no value yet.
  std::optional<std::size_t> unsolved(ir::NodeId dim) const {
    std::optional<std::size_t> found;
    ir::evaluate(module_, dim, [&](const ir::Symbol& s) -> std::optional<ir::Value> {
      if (s.kind == SymbolKind::named_extent && p_.extents[s.index] < 0 && reaches(dim, s)) found = s.index;
      return ir::int_value(0);
    });
    return found;
  }
  bool reaches(ir::NodeId dim, const ir::Symbol& s) const {
    const ir::Node& node = module_[dim];
    if (const auto* own = std::get_if<ir::Symbol>(&node.what)) return *own == s;
    for (ir::NodeId id : node.operands)
      if (reaches(id, s)) return true;
    return false;
  }

  Result<void> launch_checks() const {
    if (p_.rows() == 0 || p_.local_keys() + p_.context == 0) return {};
    for (const analysis::LaunchCheck& check : rules_.checks) {
      const auto value = check.difference.evaluate([&](const ir::Symbol& s) { return symbol(s); });
      if (!value) continue;  // an extent of an input that is not used
      if (check.equality ? *value != 0 : *value < 0)
        return unexpected(ErrorKind::spec, check.message,
                          fmt::format("here `{}` is {}", check.difference.print(module_), *value));
    }
    return {};
  }

  const BindingRules& rules_;
  const ir::Module& module_;
  const RunArguments& arguments_;
  const std::size_t rank_;
  std::vector<std::int64_t> q_local_, k_local_;
  Problem p_;
};

std::int64_t product(const std::vector<GridAxis>& axes) {
  std::int64_t n = 1;
  for (const GridAxis& a : axes) n *= a.local;
  return n;
}

}  // namespace

std::int64_t Problem::local_queries() const {
  return product(q_axis);
}
std::int64_t Problem::local_keys() const {
  return product(k_axis);
}

Result<Problem> bind(const BindingRules& rules, const RunArguments& arguments) {
  return Binder(rules, arguments).run();
}

Result<ir::Value> convert_param(const std::string& name, ir::Type type, const ParamValue& value) {
  const auto mismatch = [&](std::string_view given) {
    return unexpected(ErrorKind::usage,
                      fmt::format("param `{}` is {}, and {} was given", name, ir::name_of(type), given));
  };
  if (const auto* b = std::get_if<bool>(&value)) {
    if (type != ir::Type::boolean) return mismatch("a bool");
    return ir::bool_value(*b);
  }
  if (const auto* i = std::get_if<std::int64_t>(&value)) {
    if (type == ir::Type::boolean) return mismatch("an int");
    if (type == ir::Type::real) return ir::real_value(static_cast<float>(*i));
    if (*i < std::numeric_limits<std::int32_t>::min() || *i > std::numeric_limits<std::int32_t>::max())
      return mismatch("a number beyond 32 bits");
    return ir::int_value(static_cast<std::int32_t>(*i));
  }
  if (type != ir::Type::real) return mismatch("a float");
  return ir::real_value(static_cast<float>(std::get<double>(value)));
}

}  // namespace vicinal::runtime
