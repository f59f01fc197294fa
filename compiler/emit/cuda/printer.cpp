#include "compiler/emit/cuda/printer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "compiler/support/text.h"

namespace vicinal::emit {
namespace {

// A value is named when it is used twice, or when its expression would nest deeper than a reader follows.
constexpr int kMaxInlineDepth = 4;

}  // namespace

std::string literal(const ir::Constant& c) {
  const ir::Value v = ir::value_of(c);
  if (c.type == ir::Type::boolean) return v.b ? "true" : "false";
  if (c.type == ir::Type::integer) {
    // The smallest int has no literal of its own in C++.
    if (v.i == std::numeric_limits<std::int32_t>::min()) return "(-2147483647 - 1)";
    return v.i < 0 ? fmt::format("({})", v.i) : fmt::format("{}", v.i);
  }
  const float f = static_cast<float>(v.f);
  if (std::isfinite(f))
    return std::signbit(f) ? fmt::format("({}f)", support::hex_float(f)) : support::hex_float(f) + "f";
  return fmt::format("__int_as_float(0x{:08x})", c.bits);
}
std::string literal(float x) {
  return literal({ir::Type::real, std::bit_cast<std::uint32_t>(x)});
}

std::string unwrapped(const std::string& text) {
  if (text.front() != '(') return text;
  int depth = 0;
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    depth += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
    if (depth == 0) return text;
  }
  return text.substr(1, text.size() - 2);
}

std::string symbol_text(const ir::Module& module, const Names& names, const ir::Symbol& s) {
  using ir::SymbolKind;
  using ir::Type;
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
    case SymbolKind::head_dim: return fmt::format("{}", names.head_dim);
    case SymbolKind::q_axis: return fmt::format("q.coordinate[{}]", s.index);
    case SymbolKind::k_axis: return fmt::format("k.coordinate[{}]", s.index);
    case SymbolKind::axis_length: return extent(fmt::format("q_axis[{}].extent", s.index));
    case SymbolKind::named_extent: return extent(names.extents[s.index]);
    case SymbolKind::param: {
      const Type type = module.params[s.index].type;
      const std::string field = "a." + names.params[s.index];
      return type == Type::real      ? field
             : type == Type::integer ? fmt::format("static_cast<int>({})", field)
                                     : fmt::format("({} != 0)", field);
    }
    case SymbolKind::argument: break;
  }
  return "";  // placeholders never leave the checker; the verifier says so
}

void Printer::print_node(std::uint32_t n) {
  for (ir::NodeId id : node(n).operands) depth_[n] = std::max(depth_[n], depth_[id.value] + 1);
  text_[n] = print(n);
}

std::string Printer::body(std::span<const Result> results, int indent) {
  std::vector<std::uint32_t> uses(module_.size());
  // A result that stands in a statement alone needs no name.
  for (const Result& result : results) ++uses[result.node.value];
  const std::vector<std::uint32_t> as_results = uses;
  for (std::size_t n = uses.size(); n-- > 0;)
    if (uses[n] != 0 && !known_.contains(static_cast<std::uint32_t>(n)))
      for (ir::NodeId id : module_.nodes()[n].operands) ++uses[id.value];
  std::string out;
  for (std::uint32_t n = 0; n < uses.size(); ++n) {
    if (uses[n] == 0) continue;
    if (const auto known = known_.find(n); known != known_.end()) {
      text_[n] = known->second;
      continue;
    }
    print_node(n);
    const bool leaf = node(n).operands.size() == 0, only_result = uses[n] == 1 && as_results[n] == 1;
    if (!only_result && !leaf && (uses[n] > 1 || depth_[n] > kMaxInlineDepth)) {
      fmt::format_to(std::back_inserter(out), "{:{}}const {} v{} = {};\n", "", indent,
                     type_name(node(n).type), n, unwrapped(text_[n]));
      text_[n] = fmt::format("v{}", n);
      depth_[n] = 0;
    }
  }
  for (const Result& result : results)
    fmt::format_to(std::back_inserter(out), "{:{}}{}{};\n", "", indent, result.statement,
                   unwrapped(text_[result.node.value]));
  return out;
}

std::string Printer::inline_text(ir::NodeId root) {
  for (std::uint32_t n = 0; n <= root.value; ++n) print_node(n);
  return unwrapped(text_[root.value]);
}

}  // namespace vicinal::emit
