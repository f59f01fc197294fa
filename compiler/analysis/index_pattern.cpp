#include "compiler/analysis/index_pattern.h"

#include <map>

#include "compiler/support/match.h"

namespace vicinal::analysis {
namespace {

using ir::Module;
using ir::NodeId;
using ir::Op;
using ir::SymbolKind;

// Axes by which a value follows the pair. A position in the flattened order counts as an axis after the
// others.
struct Dependence {
  std::set<std::uint32_t> query, key, distance;

  void merge(const Dependence& other) {
    query.insert(other.query.begin(), other.query.end());
    key.insert(other.key.begin(), other.key.end());
    distance.insert(other.distance.begin(), other.distance.end());
  }
  bool none() const { return query.empty() && key.empty() && distance.empty(); }
};

// A sum of coordinates, each so many times, and something else. Sums wrap, which changes nothing here.
struct Form {
  struct Times {
    std::int64_t query = 0, key = 0;
  };
  std::map<std::uint32_t, Times> coordinates;
  Dependence rest;

  Dependence closed() const {
    Dependence all = rest;
    for (const auto& [axis, times] : coordinates) {
      if (times.query != 0 && times.query == -times.key) {
        all.distance.insert(axis);
        continue;
      }
      if (times.query != 0) all.query.insert(axis);
      if (times.key != 0) all.key.insert(axis);
    }
    return all;
  }
  Form scaled(std::int64_t factor) const {
    Form result{{}, rest};
    for (const auto& [axis, times] : coordinates)
      result.coordinates[axis] = {static_cast<std::int32_t>(factor * times.query),
                                  static_cast<std::int32_t>(factor * times.key)};
    return result;
  }
  Form plus(const Form& other) const {
    Form result = *this;
    for (const auto& [axis, times] : other.coordinates) {
      result.coordinates[axis].query += times.query;
      result.coordinates[axis].key += times.key;
    }
    result.rest.merge(other.rest);
    return result;
  }
};

class Forms {
 public:
  explicit Forms(const Module& module) : m_(module) {
    for (const ir::Node& node : m_.nodes()) forms_.push_back(form(node));
  }
  const Form& operator[](NodeId id) const { return forms_[id.value]; }

 private:
  std::uint32_t flat() const { return static_cast<std::uint32_t>(m_.axes.empty() ? 0 : m_.axes.size()); }

  Form coordinate(const ir::Symbol& s) const {
    Form f;
    // Along a single axis a coordinate is the position.
    const std::uint32_t axis = m_.axes.size() == 1 ? 0 : s.index, position = m_.axes.size() == 1 ? 0 : flat();
    switch (s.kind) {
      case SymbolKind::q:
      case SymbolKind::q_index: f.coordinates[position].query = 1; break;
      case SymbolKind::k: f.coordinates[position].key = 1; break;
      case SymbolKind::q_axis: f.coordinates[axis].query = 1; break;
      case SymbolKind::k_axis: f.coordinates[axis].key = 1; break;
      case SymbolKind::k_context: f.rest.key.insert(flat()); break;
      case SymbolKind::score: f.rest.query.insert(flat()), f.rest.key.insert(flat()); break;
      case SymbolKind::out:
      case SymbolKind::lse: f.rest.query.insert(flat()); break;
      default: break;
    }
    return f;
  }

  Form form(const ir::Node& node) const {
    const auto operand = [&](std::size_t i) -> const Form& { return forms_[node.operands[i].value]; };
    const auto anything = [&] {
      Form f;
      for (std::size_t i = 0; i < node.operands.size(); ++i) f.rest.merge(operand(i).closed());
      return f;
    };
    if (const auto* s = std::get_if<ir::Symbol>(&node.what)) return coordinate(*s);
    const auto* apply = std::get_if<ir::Apply>(&node.what);
    if (apply == nullptr) return anything();
    switch (apply->op) {
      case Op::add_i: return operand(0).plus(operand(1));
      case Op::sub_i: return operand(0).plus(operand(1).scaled(-1));
      case Op::neg_i: return operand(0).scaled(-1);
      case Op::mul_i:
        for (std::size_t i = 0; i < 2; ++i)
          if (const auto factor = m_.constant_value(node.operands[i]))
            return operand(1 - i).scaled(factor->i);
        return anything();
      default: return anything();
    }
  }

  const Module& m_;
  std::vector<Form> forms_;
};

// Whether indices name all of the query's coordinates, and all of the key's, one each.
bool name_the_pair(const Module& m, const Forms& forms, std::span<const NodeId> indices) {
  std::set<std::uint32_t> query, key;
  for (const NodeId id : indices) {
    const Form& f = forms[id];
    if (!f.rest.none() || f.coordinates.size() != 1) continue;
    const auto& [axis, times] = *f.coordinates.begin();
    if (times.query * times.query == 1 && times.key == 0) query.insert(axis);
    if (times.key * times.key == 1 && times.query == 0) key.insert(axis);
  }
  const auto all = [&](const std::set<std::uint32_t>& named) {
    return named.contains(static_cast<std::uint32_t>(m.axes.size())) ||
           named.size() == std::max<std::size_t>(1, m.axes.size());
  };
  return all(query) && all(key);
}

}  // namespace

IndexUse index_use(const Module& module, std::span<const NodeId> indices) {
  const Forms forms(module);
  Dependence all;
  for (const NodeId id : indices) all.merge(forms[id].closed());
  if (all.none()) return {};
  if (all.key.empty() && all.distance.empty()) return {IndexPattern::row, {}};
  if (all.query.empty() && all.distance.empty()) return {IndexPattern::column, {}};
  if (all.query.empty() && all.key.empty()) return {IndexPattern::distance, all.distance};
  return {name_the_pair(module, forms, indices) ? IndexPattern::pair : IndexPattern::general, {}};
}

AccumulationChoice accumulation(IndexPattern pattern, bool clamped, bool context_key) {
  switch (pattern) {
    case IndexPattern::head: return {Accumulation::block_reduction, "all pairs of a head read one element"};
    case IndexPattern::row: return {Accumulation::row_reduction, "the element follows the query alone"};
    case IndexPattern::column: return {Accumulation::column_reduction, "the element follows the key alone"};
    case IndexPattern::distance:
      if (context_key) return {Accumulation::ordered, "context keys have no place on the queries' grid"};
      return {Accumulation::diagonal, "pairs that are equally far apart read one element"};
    case IndexPattern::pair:
      if (clamped) return {Accumulation::ordered, "indices are clamped, so that pairs may share an element"};
      return {Accumulation::with_the_tile, "no two pairs of a head read one element"};
    case IndexPattern::general: break;
  }
  return {Accumulation::ordered, "which pairs share an element is not known beforehand"};
}

std::string_view name_of(IndexPattern pattern) {
  constexpr std::string_view names[] = {"a scalar of the head", "by row",  "by column",
                                        "by distance",          "by pair", "general"};
  return names[static_cast<int>(pattern)];
}

std::string_view name_of(Accumulation accumulation) {
  constexpr std::string_view names[] = {"block reduction",       "row reduction", "column reduction",
                                        "diagonal accumulation", "with the tile", "ordered fallback"};
  return names[static_cast<int>(accumulation)];
}

}  // namespace vicinal::analysis
