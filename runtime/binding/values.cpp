#include "runtime/binding/values.h"

#include <limits>

#include "compiler/ir/evaluate.h"
#include "compiler/ir/text.h"
#include "runtime/binding/errors.h"
#include "runtime/binding/tensor_view.h"
#include "templates/vicinal/geometry.cuh"

namespace vicinal::runtime {
namespace {

using ir::SymbolKind;

class ValueBinder {
 public:
  ValueBinder(const BindingRules& rules, const RunArguments& arguments, Problem& p)
      : rules_(rules), module_(rules.module), arguments_(arguments), p_(p) {}

  Result<void> run() {
    VICINAL_TRY_VOID(params());
    VICINAL_TRY_VOID(axes());
    VICINAL_TRY_VOID(inputs());
    return launch_checks();
  }

 private:
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
    VICINAL_TRY(const std::vector<std::int64_t> strides, checked_strides(input.name, t));
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
  Problem& p_;
};

}  // namespace

Result<void> bind_values(const BindingRules& rules, const RunArguments& arguments, Problem& p) {
  return ValueBinder(rules, arguments, p).run();
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
