#include "compiler/ir/language.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "compiler/ir/text.h"
#include "compiler/support/match.h"

namespace vicinal::ir {
namespace {

// How tightly an expression holds together, loosest first, as LANGUAGE.md lists the operators.
enum Binding {
  kChoice,
  kOr,
  kAnd,
  kNot,
  kCompare,
  kBitOr,
  kBitXor,
  kBitAnd,
  kShift,
  kSum,
  kProduct,
  kSign,
  kAtom
};

struct Spelling {
  Op op;
  std::string_view text;  // an operator, or the name of a function
  int binding = kAtom;    // of an operator
};

constexpr Spelling kSpellings[] = {
    {Op::add_i, "+", kSum},
    {Op::sub_i, "-", kSum},
    {Op::mul_i, "*", kProduct},
    {Op::neg_i, "-", kSign},
    {Op::floordiv_i, "//", kProduct},
    {Op::floormod_i, "%", kProduct},
    {Op::min_i, "min"},
    {Op::max_i, "max"},
    {Op::abs_i, "abs"},
    {Op::sign_i, "sign"},
    {Op::bitand_i, "&", kBitAnd},
    {Op::bitor_i, "|", kBitOr},
    {Op::bitxor_i, "^", kBitXor},
    {Op::bitnot_i, "~", kSign},
    {Op::shl_i, "<<", kShift},
    {Op::shr_i, ">>", kShift},
    {Op::eq_i, "==", kCompare},
    {Op::ne_i, "!=", kCompare},
    {Op::lt_i, "<", kCompare},
    {Op::le_i, "<=", kCompare},
    {Op::add_f, "+", kSum},
    {Op::sub_f, "-", kSum},
    {Op::mul_f, "*", kProduct},
    {Op::div_f, "/", kProduct},
    {Op::neg_f, "-", kSign},
    {Op::floordiv_f, "//", kProduct},
    {Op::floormod_f, "%", kProduct},
    {Op::min_f, "min"},
    {Op::max_f, "max"},
    {Op::abs_f, "abs"},
    {Op::sign_f, "sign"},
    {Op::floor_f, "floor"},
    {Op::ceil_f, "ceil"},
    {Op::round_f, "round"},
    {Op::sqrt_f, "sqrt"},
    {Op::isnan_f, "isnan"},
    {Op::eq_f, "==", kCompare},
    {Op::ne_f, "!=", kCompare},
    {Op::lt_f, "<", kCompare},
    {Op::le_f, "<=", kCompare},
    {Op::pow_f, "**", kAtom},  // groups to the right and above signs: its operands are bracketed
    {Op::exp_f, "exp"},
    {Op::exp2_f, "exp2"},
    {Op::log_f, "log"},
    {Op::log2_f, "log2"},
    {Op::rsqrt_f, "rsqrt"},
    {Op::tanh_f, "tanh"},
    {Op::tanh_approx_f, "tanh_approx"},
    {Op::sigmoid_f, "sigmoid"},
    {Op::sin_f, "sin"},
    {Op::cos_f, "cos"},
    {Op::tan_f, "tan"},
    {Op::erf_f, "erf"},
    {Op::and_b, "and", kAnd},
    {Op::or_b, "or", kOr},
    {Op::not_b, "not", kNot},
    {Op::eq_b, "==", kCompare},
    {Op::ne_b, "!=", kCompare},
    {Op::select_i, "if", kChoice},
    {Op::select_f, "if", kChoice},
    {Op::select_b, "if", kChoice},
    {Op::float_i, "float"},
    {Op::int_f, "int"},
    {Op::int_b, "int"},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < std::size(kSpellings); ++i)
    if (static_cast<std::size_t>(kSpellings[i].op) != i) return false;
  return true;
}
static_assert(in_order(), "a spelling for each operation, in their order");

struct Phrase {
  std::string text;
  int binding = kAtom;
};

std::string bracketed(const Phrase& phrase, int at_least) {
  return phrase.binding < at_least ? fmt::format("({})", phrase.text) : phrase.text;
}

Phrase literal(const Constant& c) {
  const Value value = value_of(c);
  if (c.type == Type::boolean) return {value.b ? "true" : "false"};
  if (c.type == Type::integer) {
    if (value.i == std::numeric_limits<std::int32_t>::min()) return {"(-2147483647 - 1)"};
    return {fmt::to_string(value.i), value.i < 0 ? kSign : kAtom};
  }
  const auto x = static_cast<float>(value.f);
  if (x != x) return {"(inf - inf)"};
  std::string text = fmt::format("{}", x);  // the shortest that reads back
  if (text.find_first_of(".enf") == std::string::npos) text += ".0";
  return {std::move(text), std::signbit(x) ? kSign : kAtom};
}

class Writer {
 public:
  Writer(const Module& module, std::span<const NodeId> roots) : m_(module), uses_(module.size()) {
    for (const Param& p : m_.params) taken_.insert(p.name);
    for (const Input& i : m_.inputs) taken_.insert(i.name);
    for (const Axis& a : m_.axes) taken_.insert(a.name);
    for (const std::string& e : m_.extents) taken_.insert(e);
    std::vector<bool> reached(m_.size());
    for (const NodeId root : roots) reached[root.value] = true;
    for (std::size_t n = m_.size(); n-- > 0;)
      if (reached[n])
        for (const NodeId id : m_.nodes()[n].operands) reached[id.value] = true, ++uses_[id.value];
    for (const NodeId root : roots) ++uses_[root.value];
    phrases_.resize(m_.size());
    for (std::uint32_t n = 0; n < m_.size(); ++n)
      if (reached[n]) write(NodeId{n});
    for (const NodeId root : roots) text_.expressions.push_back(phrases_[root.value].text);
  }
  LanguageText take() { return std::move(text_); }

 private:
  void write(NodeId id) {
    const Node& node = m_[id];
    Phrase phrase = support::match(
        node.what, [](const Constant& c) { return literal(c); },
        [&](const Symbol& s) { return Phrase{symbol(s)}; },
        [&](const Apply& a) { return application(a.op, node); },
        [&](const Load& l) { return Phrase{element(l.input, node, 0, node.operands.size(), "")}; },
        [&](const Dot& d) {
          return Phrase{fmt::format("dot({}, {})", element(d.first, node, 0, d.first_indices, ":"),
                                    element(d.second, node, d.first_indices, node.operands.size(), ":"))};
        });
    if (std::holds_alternative<Apply>(node.what) && uses_[id.value] > 1) {
      const std::string name = fresh();
      text_.lets.push_back(fmt::format("let {} = {}", name, phrase.text));
      phrase = {name};
    }
    phrases_[id.value] = std::move(phrase);
  }

  std::string fresh() {
    std::string name;
    do name = fmt::format("v{}", ++names_);
    while (taken_.contains(name));
    return name;
  }

  std::string symbol(const Symbol& s) const {
    switch (s.kind) {
      case SymbolKind::axis_length: return fmt::format("len({})", m_.axes[s.index].name);
      case SymbolKind::named_extent: return m_.extents[s.index];
      case SymbolKind::param: return m_.params[s.index].name;
      default: return spell(m_, s);
    }
  }

  std::string element(std::uint32_t input, const Node& node, std::size_t first, std::size_t last,
                      std::string_view tail) const {
    std::string indices;
    const auto add = [&](std::string_view index) {
      indices += fmt::format("{}{}", indices.empty() ? "" : ", ", index);
    };
    for (std::size_t i = first; i < last; ++i) add(phrases_[node.operands[i].value].text);
    if (!tail.empty()) add(tail);
    return indices.empty() ? m_.inputs[input].name : fmt::format("{}[{}]", m_.inputs[input].name, indices);
  }

  Phrase application(Op op, const Node& node) const {
    const Spelling& s = kSpellings[static_cast<std::size_t>(op)];
    const auto operand = [&](std::size_t i, int at_least) {
      return bracketed(phrases_[node.operands[i].value], at_least);
    };
    if (op == Op::pow_f) return {fmt::format("({} ** {})", operand(0, kAtom), operand(1, kAtom))};
    switch (s.binding) {
      case kAtom: {
        std::string text(s.text);
        for (std::size_t i = 0; i < node.operands.size(); ++i)
          text += fmt::format("{}{}", i == 0 ? "(" : ", ", operand(i, kChoice));
        return {text + ")"};
      }
      case kChoice:
        return {fmt::format("{} if {} else {}", operand(1, kOr), operand(0, kOr), operand(2, kChoice)),
                kChoice};
      case kNot: return {fmt::format("not {}", operand(0, kNot)), kNot};
      case kSign: return {fmt::format("{}{}", s.text, operand(0, kAtom)), kSign};
      default:  // a comparison beside another one would chain
        return {fmt::format("{} {} {}", operand(0, s.binding == kCompare ? kCompare + 1 : s.binding), s.text,
                            operand(1, s.binding + 1)),
                s.binding};
    }
  }

  const Module& m_;
  std::vector<int> uses_;
  std::vector<Phrase> phrases_;
  std::set<std::string> taken_;
  int names_ = 0;
  LanguageText text_;
};

}  // namespace

LanguageText write_language(const Module& module, std::span<const NodeId> roots) {
  return Writer(module, roots).take();
}

}  // namespace vicinal::ir
