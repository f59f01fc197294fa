#include "compiler/analysis/whole_sum.h"

#include <algorithm>
#include <limits>

#include "compiler/support/match.h"

namespace vicinal::analysis {
namespace {

using ir::Module;
using ir::NodeId;
using ir::Op;
using ir::SymbolKind;
using ranges::Range;

constexpr std::int64_t kLowest = std::numeric_limits<std::int32_t>::min(),
                       kHighest = std::numeric_limits<std::int32_t>::max();
// A coordinate or a position: below an extent, which is below 2^31.
constexpr std::int64_t kLast = kHighest - 1;
// Sums of more terms are not of interest, and a chain of shared nodes can have very many.
constexpr std::size_t kMaxTerms = 32;

Range from_to(std::int64_t low, std::int64_t high) {
  return ranges::make_range(low, high, 1);
}

// Where there is a pair, these have an element.
bool is_filled(SymbolKind kind) {
  return kind == SymbolKind::batch || kind == SymbolKind::heads || kind == SymbolKind::kv_heads ||
         kind == SymbolKind::tokens || kind == SymbolKind::head_dim || kind == SymbolKind::axis_length;
}

const ir::Symbol* symbol_of(const Module& module, NodeId node) {
  return std::get_if<ir::Symbol>(&module[node].what);
}

}  // namespace

RowSum RowSum::plus(const RowSum& other, bool minus) const {
  RowSum sum = *this;
  for (Term t : other.terms) {
    t.minus = t.minus != minus;
    const auto opposite = std::ranges::find_if(
        sum.terms, [&](const Term& s) { return s.value == t.value && s.minus != t.minus; });
    if (opposite != sum.terms.end())
      sum.terms.erase(opposite);
    else
      sum.terms.push_back(t);
  }
  sum.constant += minus ? -other.constant : other.constant;
  return sum;
}

WholeSum WholeSum::plus(const WholeSum& other, bool minus) const {
  return {key + (minus ? -other.key : other.key), row.plus(other.row, minus)};
}

bool is_query(const Module& module, NodeId node) {
  const ir::Symbol* s = symbol_of(module, node);
  if (s == nullptr) return false;
  return s->kind == SymbolKind::q || (s->kind == SymbolKind::q_index && !module.align_end) ||
         (s->kind == SymbolKind::q_axis && module.axes.size() == 1);
}

bool is_key(const Module& module, NodeId node) {
  const ir::Symbol* s = symbol_of(module, node);
  if (s == nullptr) return false;
  return s->kind == SymbolKind::k || (s->kind == SymbolKind::k_axis && module.axes.size() == 1);
}

WholeSums::WholeSums(const Module& module) : sums_(module.size()) {
  const std::vector<std::uint8_t> varies = ir::variance(module);
  values_.reserve(module.size());
  for (std::uint32_t n = 0; n < module.size(); ++n) {
    const ir::Node& node = module.nodes()[n];
    values_.push_back(anything(node.type));
    std::optional<WholeSum>& sum = sums_[n];
    const auto operand = [&](std::size_t i) { return node.operands[i].value; };
    support::match(
        node.what,
        [&](const ir::Constant& c) {
          values_[n] = single(c.type, ir::value_of(c));
          if (c.type == ir::Type::integer) sum = WholeSum{0, {{}, ir::value_of(c).i}};
        },
        [&](const ir::Symbol&) { symbol(module, NodeId{n}); },
        [&](const ir::Apply& a) {
          SetValue operands[ir::kMaxArity] = {};
          for (std::size_t i = 0; i < node.operands.size(); ++i) operands[i] = values_[operand(i)];
          values_[n] = apply_rule(a.op, operands[0], operands[1], operands[2]);
          if ((varies[n] & ir::kKey) == 0) return;
          if ((a.op == Op::add_i || a.op == Op::sub_i) && sums_[operand(0)] && sums_[operand(1)])
            sum = sums_[operand(0)]->plus(*sums_[operand(1)], a.op == Op::sub_i);
          if (a.op == Op::neg_i && sums_[operand(0)]) sum = WholeSum{}.plus(*sums_[operand(0)], true);
          const auto fits = sum ? fitting(module, *sum) : std::nullopt;
          if (fits)
            values_[n].i = *fits;
          else
            sum.reset();
        },
        [](const auto&) {});
    if (node.type == ir::Type::integer && !sum && (varies[n] & ir::kKey) == 0)
      sum = WholeSum{0, {{{NodeId{n}}}, 0}};
  }
}

void WholeSums::symbol(const Module& module, NodeId node) {
  const ir::Symbol& s = *symbol_of(module, node);
  if (is_key(module, node)) sums_[node.value] = WholeSum{1, {}};
  Range& value = values_[node.value].i;
  switch (s.kind) {
    case SymbolKind::param:
    case SymbolKind::score:
    case SymbolKind::out:
    case SymbolKind::lse:
    case SymbolKind::k_context:
    case SymbolKind::argument: return;
    case SymbolKind::q: value = from_to(module.align_end ? -kLast : 0, kLast); return;
    case SymbolKind::q_index:
    case SymbolKind::q_axis:
    case SymbolKind::k:
    case SymbolKind::k_axis: value = from_to(0, kLast); return;
    default: value = from_to(is_filled(s.kind) ? 1 : 0, kHighest); return;  // an extent, a batch or a head
  }
}

std::optional<Range> WholeSums::fitting(const Module& module, const WholeSum& sum) const {
  if (sum.row.terms.size() > kMaxTerms || sum.key < -1 || sum.key > 1) return std::nullopt;
  std::int64_t low = sum.row.constant, high = sum.row.constant;
  const auto add = [&](std::int64_t least, std::int64_t most, bool minus) {
    low += minus ? -most : least;
    high += minus ? -least : most;
  };
  // A distance is shorter than an extent, also where `align = end` lets q be negative; context keys are
  // not on the grid.
  bool distance = sum.key != 0 && !(module.align_end && module.context);
  for (const RowSum::Term& t : sum.row.terms) {
    if (distance && t.minus == (sum.key > 0) && is_query(module, t.value)) {
      add(0, kLast, t.minus);  // with what the key adds below: -kLast to kLast
      distance = false;
      continue;
    }
    const Range r = range(t.value);
    add(r.low, r.high, t.minus);
  }
  if (sum.key != 0) add(0, kLast, sum.key < 0);
  if (low < kLowest || high > kHighest) return std::nullopt;
  return from_to(low, high);
}

}  // namespace vicinal::analysis
