#include "compiler/emit/cuda/declarations.h"

#include <fmt/format.h>

#include "compiler/emit/cuda/expression.h"

namespace vicinal::emit {

Declarations::Declarations(const Specialized& variant, const KernelOptions& options, Uses used)
    : variant_(variant), options_(options), module_(variant.declarations()), used_(std::move(used)) {
  names_.head_dim = options.head_dim;
  for (std::size_t i = 0; i < module_.params.size(); ++i)
    names_.params.push_back(fmt::format("parameters.p{}", i));
  for (std::size_t i = 0; i < module_.extents.size(); ++i)
    names_.extents.push_back(fmt::format("parameters.e{}", i));
  for (std::size_t i = 0; i < module_.inputs.size(); ++i)
    names_.inputs.push_back(fmt::format("parameters.x{}", i));
}

bool Declarations::neighborhood() const {
  for (const ir::Axis& a : module_.axes)
    if (a.window.valid() || a.causal || (a.dilation.valid() && module_.constant_value(a.dilation)->i != 1))
      return true;
  return false;
}

std::string Declarations::parameter_members(std::vector<ParameterSlot>& slots) const {
  std::string out;
  const auto field = [&](ParameterSlot::Kind kind, std::size_t i, std::string_view type, char letter) {
    slots.push_back({kind, static_cast<std::uint32_t>(i)});
    fmt::format_to(std::back_inserter(out), "  {} {}{};\n", type, letter, i);
  };
  for (std::size_t i = 0; i < module_.params.size(); ++i)
    if (used_.params[i])
      field(ParameterSlot::Kind::param, i,
            module_.params[i].type == ir::Type::real ? "alignas(8) float" : "long long", 'p');
  for (std::size_t i = 0; i < module_.extents.size(); ++i)
    if (used_.extents[i]) field(ParameterSlot::Kind::extent, i, "long long", 'e');
  for (std::size_t i = 0; i < module_.inputs.size(); ++i) {
    if (!used_.inputs[i]) continue;
    const DType dtype = i < options_.input_dtypes.size() ? options_.input_dtypes[i]
                                                         : default_input_dtype(module_.inputs[i].type);
    field(ParameterSlot::Kind::input, i,
          fmt::format("vicinal::InputArgument<{}, {}>", element_type(dtype), module_.inputs[i].dims.size()),
          'x');
  }
  return out;
}

std::string Declarations::flag(std::string_view name, bool value) {
  return fmt::format("  static constexpr bool {} = {};\n", name, value);
}

std::string Declarations::axis_function() const {
  const auto value = [&](ir::NodeId id, std::string_view otherwise) {
    return id.valid() ? inline_expression(module_, id, names_) : std::string(otherwise);
  };
  std::string out = fmt::format("{}vicinal::Axis axis(const Arguments& a, int i) {{\n", kHead);
  if (module_.axes.empty())
    return out + "    return {static_cast<int>(a.q_axis[i].extent), 0, 1, 1, false};\n  }\n";
  for (std::size_t i = 0; i < module_.axes.size(); ++i) {
    const ir::Axis& a = module_.axes[i];
    fmt::format_to(std::back_inserter(out),
                   "    {}return {{static_cast<int>(a.q_axis[{}].extent), {}, {}, {}, {}}};\n",
                   i + 1 < module_.axes.size() ? fmt::format("if (i == {}) ", i) : "", i,
                   value(a.window, "0"), value(a.dilation, "1"), value(a.stride, "1"), a.causal);
  }
  return out + "  }\n";
}

std::string Declarations::pair_function(std::string_view signature, const Body& body) const {
  std::string out = fmt::format("\n  template <bool Context>\n  static VICINAL_DEVICE {} {{\n", signature);
  if (!variant_.context) return out + body(variant_.grid, 4) + "  }\n";
  const std::string grid = body(variant_.grid, 6), context = body(*variant_.context, 6);
  if (grid == context) return out + body(variant_.grid, 4) + "  }\n";
  return out + "    if constexpr (Context) {\n" + context + "    } else {\n" + grid + "    }\n  }\n";
}

std::string_view element_type(DType dtype) {
  constexpr std::string_view names[] = {"vicinal::f16", "vicinal::bf16", "float", "double",
                                        "signed char",  "unsigned char", "short", "unsigned short",
                                        "int",          "long long",     "bool"};
  return names[static_cast<int>(dtype)];
}

}  // namespace vicinal::emit
