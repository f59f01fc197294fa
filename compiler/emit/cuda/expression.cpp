#include "compiler/emit/cuda/expression.h"

#include <fmt/args.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "compiler/support/match.h"
#include "compiler/support/text.h"

namespace vicinal::emit {
namespace {

using ir::NodeId;
using ir::SymbolKind;
using ir::Type;

// A value is named when it is used twice, or when its expression would nest deeper than a reader follows.
constexpr int kMaxInlineDepth = 4;

std::string_view cuda_type(Type t) {
  return t == Type::integer ? "int" : t == Type::real ? "float" : "bool";
}

std::string constant(const ir::Constant& c) {
  const ir::Value v = ir::value_of(c);
  if (c.type == Type::boolean) return v.b ? "true" : "false";
  if (c.type == Type::integer) {
    // The smallest int has no literal of its own in C++.
    if (v.i == std::numeric_limits<std::int32_t>::min()) return "(-2147483647 - 1)";
    return v.i < 0 ? fmt::format("({})", v.i) : fmt::format("{}", v.i);
  }
  const float f = static_cast<float>(v.f);
  if (std::isfinite(f))
    return std::signbit(f) ? fmt::format("({}f)", support::hex_float(f)) : support::hex_float(f) + "f";
  return fmt::format("__int_as_float(0x{:08x})", c.bits);
}

class Printer {
 public:
  Printer(const ir::Module& module, const analysis::IndexBounds* bounds, const Names& names, bool exact)
      : module_(module),
        bounds_(bounds),
        names_(names),
        exact_(exact),
        text_(module.size()),
        depth_(module.size()) {}

  std::string body(NodeId root, int indent) {
    std::vector<std::uint32_t> uses(root.value + 1);
    uses[root.value] = 1;
    for (std::uint32_t n = root.value + 1; n-- > 0;)
      if (uses[n] != 0)
        for (NodeId id : module_.nodes()[n].operands) ++uses[id.value];
    std::string out;
    for (std::uint32_t n = 0; n <= root.value; ++n) {
      if (uses[n] == 0) continue;
      print(n);
      const bool leaf = module_.nodes()[n].operands.size() == 0;
      if (n != root.value && !leaf && (uses[n] > 1 || depth_[n] > kMaxInlineDepth)) {
        fmt::format_to(std::back_inserter(out), "{:{}}const {} v{} = {};\n", "", indent,
                       cuda_type(module_.nodes()[n].type), n, unwrapped(text_[n]));
        text_[n] = fmt::format("v{}", n);
        depth_[n] = 0;
      }
    }
    fmt::format_to(std::back_inserter(out), "{:{}}return {};\n", "", indent, unwrapped(text_[root.value]));
    return out;
  }

  std::string inline_text(NodeId root) {
    for (std::uint32_t n = 0; n <= root.value; ++n) print(n);
    return unwrapped(text_[root.value]);
  }

 private:
  // Without the parentheses that enclose all of it.
  static std::string unwrapped(const std::string& text) {
    if (text.front() != '(') return text;
    int depth = 0;
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
      depth += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
      if (depth == 0) return text;
    }
    return text.substr(1, text.size() - 2);
  }

  void print(std::uint32_t n) {
    const ir::Node& node = module_.nodes()[n];
    for (NodeId id : node.operands) depth_[n] = std::max(depth_[n], depth_[id.value] + 1);
    text_[n] = support::match(
        node.what, [](const ir::Constant& c) { return constant(c); },
        [&](const ir::Symbol& s) { return symbol(s); }, [&](const ir::Apply& a) { return apply(a.op, node); },
        [&](const ir::Load& l) { return load(n, node, l); },
        [&](const ir::Dot& d) { return dot(n, node, d); });
  }

  std::string symbol(const ir::Symbol& s) const {
    const auto extent = [](std::string_view field) { return fmt::format("static_cast<int>(a.{})", field); };
    switch (s.kind) {
      case SymbolKind::b: return "q.b";
      case SymbolKind::h: return "q.h";
      case SymbolKind::kv_h: return "q.kv_h";
      case SymbolKind::q: return "q.position";
      case SymbolKind::q_index: return "q.index";
      case SymbolKind::k: return "k.position";
      case SymbolKind::k_context: return "Context";
      case SymbolKind::score: return "score";
      case SymbolKind::out: return "out";
      case SymbolKind::lse: return "lse";
      case SymbolKind::batch:
      case SymbolKind::heads:
      case SymbolKind::kv_heads:
      case SymbolKind::tokens:
      case SymbolKind::keys:
      case SymbolKind::context: return extent(ir::info(s.kind).name);
      case SymbolKind::head_dim: return fmt::format("{}", names_.head_dim);
      case SymbolKind::q_axis: return fmt::format("q.coordinate[{}]", s.index);
      case SymbolKind::k_axis: return fmt::format("k.coordinate[{}]", s.index);
      case SymbolKind::axis_length: return extent(fmt::format("q_axis[{}].extent", s.index));
      case SymbolKind::named_extent: return extent(names_.extents[s.index]);
      case SymbolKind::param: {
        const Type type = module_.params[s.index].type;
        const std::string field = "a." + names_.params[s.index];
        return type == Type::real      ? field
               : type == Type::integer ? fmt::format("static_cast<int>({})", field)
                                       : fmt::format("({} != 0)", field);
      }
      case SymbolKind::argument: break;
    }
    return "";  // placeholders never leave the checker; the verifier says so
  }

  std::string apply(ir::Op op, const ir::Node& node) const {
    const ir::OpInfo& info = ir::info(op);
    fmt::dynamic_format_arg_store<fmt::format_context> operands;
    for (NodeId id : node.operands) operands.push_back(text_[id.value]);
    return fmt::vformat(exact_ ? info.exact_cuda : info.cuda, operands);
  }

  // ", i, j" for the operands from first to last, clamped where they have to be.
  std::string indices(std::uint32_t n, const ir::Node& node, std::size_t first, std::size_t last,
                      const std::string& input) const {
    std::string out;
    for (std::size_t i = first; i < last; ++i) {
      const std::string index = unwrapped(text_[node.operands[i].value]);
      const bool clamp = bounds_ != nullptr && (bounds_->clamp[n] >> i & 1) != 0;
      out += clamp ? fmt::format(", vicinal::clamp_index({}, {}.extent[{}])", index, input, i - first)
                   : ", " + index;
    }
    return out;
  }

  std::string load(std::uint32_t n, const ir::Node& node, const ir::Load& l) const {
    const std::string input = "a." + names_.inputs[l.input];
    return fmt::format("vicinal::load_{}({}{})", cuda_type(node.type), input,
                       indices(n, node, 0, node.operands.size(), input));
  }

  std::string dot(std::uint32_t n, const ir::Node& node, const ir::Dot& d) const {
    const std::string x = "a." + names_.inputs[d.first], y = "a." + names_.inputs[d.second];
    return fmt::format("vicinal::dot({0}, vicinal::offset({0}, 0{1}), {2}, vicinal::offset({2}, 0{3}))", x,
                       indices(n, node, 0, d.first_indices, x), y,
                       indices(n, node, d.first_indices, node.operands.size(), y));
  }

  const ir::Module& module_;
  const analysis::IndexBounds* bounds_;
  const Names& names_;
  bool exact_;
  std::vector<std::string> text_;
  std::vector<int> depth_;
};

}  // namespace

std::string function_body(const ir::Module& module, NodeId node, const analysis::IndexBounds& bounds,
                          const Names& names, bool exact, int indent) {
  return Printer(module, &bounds, names, exact).body(node, indent);
}

std::string inline_expression(const ir::Module& module, NodeId node, const Names& names) {
  return Printer(module, nullptr, names, true).inline_text(node);
}

}  // namespace vicinal::emit
