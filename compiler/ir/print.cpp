#include <fmt/format.h>

#include "compiler/ir/text.h"
#include "compiler/support/match.h"
#include "compiler/support/text.h"

namespace vicinal::ir {
namespace {

std::string literal(Type type, Value value) {
  switch (type) {
    case Type::integer: return fmt::format("{}", value.i);
    case Type::real: return support::hex_float(static_cast<float>(value.f));
    case Type::boolean: return value.b ? "true" : "false";
  }
  return {};
}

std::string reference(NodeId id) {
  return fmt::format("%{}", id.value);
}

}  // namespace

std::string spell(const Module& module, const Symbol& symbol) {
  const std::string_view name = info(symbol.kind).name;
  switch (symbol.kind) {
    case SymbolKind::q_axis:
    case SymbolKind::k_axis: return fmt::format("{}{}", name, module.axes[symbol.index].name);
    case SymbolKind::axis_length: return fmt::format("len {}", module.axes[symbol.index].name);
    case SymbolKind::named_extent: return fmt::format("extent {}", module.extents[symbol.index]);
    case SymbolKind::param: return fmt::format("param {}", module.params[symbol.index].name);
    case SymbolKind::argument: return fmt::format("argument {}", symbol.index);
    default: return std::string(name);
  }
}

std::string print(const Module& module) {
  std::string out;
  const auto line = [&](const std::string& text) { out += text + '\n'; };
  line("module " + module.name);
  if (module.context) line("context");
  if (module.normalize != Normalize::softmax) line(fmt::format("normalize {}", name_of(module.normalize)));
  if (module.query_l2norm) line("query_l2norm");
  if (module.key_l2norm) line("key_l2norm");
  if (module.align_end) line("align_end");
  for (const Axis& a : module.axes) {
    std::string text = "axis " + a.name;
    if (a.window.valid()) text += " window " + reference(a.window);
    if (a.dilation.valid()) text += " dilation " + reference(a.dilation);
    if (a.stride.valid()) text += " stride " + reference(a.stride);
    line(text + (a.causal ? " causal" : ""));
  }
  for (const Param& p : module.params)
    line(fmt::format("param {} {} {}{}{}", p.name, name_of(p.type), literal(p.type, p.value),
                     p.learnable ? " learnable" : "", p.dynamic ? " dynamic" : ""));
  for (const std::string& e : module.extents) line("extent " + e);
  for (const Input& i : module.inputs) {
    std::string text = fmt::format("input {} {}", i.name, name_of(i.type));
    for (NodeId d : i.dims) text += " " + reference(d);
    line(text + (i.learnable ? " learnable" : ""));
  }
  for (std::uint32_t n = 0; n < module.size(); ++n) {
    const Node& node = module.nodes()[n];
    std::string text = support::match(
        node.what,
        [&](const Constant& c) {
          return fmt::format("{} {}", name_of(c.type), literal(c.type, value_of(c)));
        },
        [&](const Symbol& s) { return spell(module, s); },
        [](const Apply& a) { return std::string(info(a.op).name); },
        [&](const Load& l) { return "load " + module.inputs[l.input].name; },
        [&](const Dot& d) {
          return fmt::format("dot {} {} {}", module.inputs[d.first].name, module.inputs[d.second].name,
                             d.first_indices);
        });
    for (NodeId id : node.operands) text += " " + reference(id);
    line(reference(NodeId{n}) + " = " + text);
  }
  for (int r = 0; r < kRootCount; ++r)
    if (module.roots[r].valid())
      line(fmt::format("{} {}", name_of(static_cast<Root>(r)), reference(module.roots[r])));
  for (const Partial& p : module.partials)
    line(fmt::format("partial {} {} {}", name_of(p.of), reference(p.leaf), reference(p.value)));
  return out;
}

}  // namespace vicinal::ir
