// Limits of a row against the mask itself, pair by pair.
#include <doctest/doctest.h>

#include <fmt/format.h>
#include <vicinal/dtype.h>

#include <random>

#include "compiler/analysis/row_limits.h"
#include "tests/unit/compiler/compile_text.h"
#include "tests/unit/compiler/node_values.h"

namespace vicinal {
namespace {

using ir::NodeId;
using ir::SymbolKind;

ir::Module grid_keys(const std::string& body) {
  const auto compiled = testing::compile_block(body);
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  return compiled.variants[0].specialized.grid.module;
}

// begins, ends, conditions, rest: how many of each.
std::string shape(const std::string& body) {
  const analysis::RowLimits limits = analysis::row_limits(grid_keys(body));
  return fmt::format("{} {} {} {}", limits.begins.size(), limits.ends.size(), limits.conditions.size(),
                     limits.rest.size());
}

// A number made of the input and the place in it: small, and now and then anything.
std::int32_t loaded(std::uint32_t input, const std::vector<std::int32_t>& indices) {
  std::uint32_t seed = input * 40503u + 17u;
  for (std::int32_t i : indices) seed = (seed ^ static_cast<std::uint32_t>(i)) * 2654435761u;
  seed ^= seed >> 15;
  return seed % 7 == 0 ? static_cast<std::int32_t>(seed * 2246822519u) : static_cast<std::int32_t>(seed % 9);
}

struct Counts {
  int kept = 0, pairs = 0, limits = 0;
};

void compare(const ir::Module& m, std::int32_t q, std::int32_t k, Counts& counts) {
  const auto symbol = [&](const ir::Symbol& s) {
    switch (s.kind) {
      case SymbolKind::q:
      case SymbolKind::q_axis: return ir::int_value(q);
      case SymbolKind::q_index: return ir::int_value(m.align_end ? std::abs(q) / 2 : q);
      case SymbolKind::k:
      case SymbolKind::k_axis: return ir::int_value(k);
      default: return ir::int_value(3);
    }
  };
  const auto load = [](ir::Type type, std::uint32_t input, const std::vector<std::int32_t>& indices) {
    const std::int32_t value = loaded(input, indices);
    return type == ir::Type::boolean ? ir::bool_value(value % 2 == 0) : ir::int_value(value);
  };
  const std::vector<ir::Value> values = testing::node_values(m, {symbol, load}, false);
  const analysis::RowLimits limits = analysis::row_limits(m);
  const auto number = [&](const analysis::RowSum& sum) {
    std::int64_t total = sum.constant;
    for (const auto& t : sum.terms) total += (t.minus ? -1 : 1) * std::int64_t{values[t.value.value].i};
    return total;
  };
  bool kept = true;
  for (const auto& begin : limits.begins) kept = kept && k >= number(begin);
  for (const auto& end : limits.ends) kept = kept && k < number(end);
  for (NodeId id : limits.conditions) kept = kept && values[id.value].b;
  for (NodeId id : limits.rest) kept = kept && values[id.value].b;
  const NodeId mask = m.root(ir::Root::mask);
  CAPTURE(q);
  CAPTURE(k);
  REQUIRE(kept == (!mask.valid() || values[mask.value].b));
  ++counts.pairs;
  counts.kept += kept;
  counts.limits += !limits.begins.empty() || !limits.ends.empty();
}

class RandomMask {
 public:
  explicit RandomMask(unsigned seed) : random_(seed) {}

  std::string body() {
    std::string text = below(4) == 0 ? "axis t\n" : below(4) == 0 ? "align = end\n" : "";
    const bool axis = text.starts_with("axis");
    const std::string tokens = axis ? "len(t)" : "tokens", keys = axis ? "len(t)" : "keys";
    text += fmt::format("input x: int[{}]\n input y: int[{}]\n param w: int = 4\n", tokens, keys);
    text += "mask = " + conjunct(axis);
    for (int n = below(3); n > 0; --n) text += " and " + conjunct(axis);
    return text;
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  std::string word(std::initializer_list<const char*> words) {
    return words.begin()[below(static_cast<int>(words.size()))];
  }
  std::string number() {
    return word({"0", "1", "2", "3", "5", "7", "w", "1000", "2147483000", "2147483647", "(-1)", "(-4)",
                 "(-2147483648)", "(-2147483647)"});
  }
  std::string comparison() { return word({"<", "<=", "==", ">", ">=", "!="}); }

  std::string row(const std::string& q) {
    switch (below(6)) {
      case 0: return number();
      case 1: return "x[q.index]";
      case 2: return fmt::format("({} + {})", q, number());
      case 3: return fmt::format("max({} - {}, x[q.index])", q, number());
      default: return q;
    }
  }
  std::string key(const std::string& q, const std::string& k) {
    switch (below(7)) {
      case 0: return fmt::format("({} + {})", k, number());
      case 1: return fmt::format("({} - {})", k, number());
      case 2: return fmt::format("({} - {})", row(q), k);
      case 3: return fmt::format("({} - {} + {})", q, k, number());
      case 4: return fmt::format("abs({} - {})", q, k);
      case 5: return fmt::format("-{}", k);
      default: return k;
    }
  }
  std::string conjunct(bool axis) {
    const std::string q = axis && below(2) == 0 ? "q.t" : "q", k = axis && below(2) == 0 ? "k.t" : "k";
    switch (below(12)) {
      case 0: return fmt::format("{} % 3 == 0", k);
      case 1: return "x[q.index] == y[k]";
      case 2: return fmt::format("x[q.index] {} {}", comparison(), number());
      case 3:
        return fmt::format("not ({} {} {} or {} {} {})", key(q, k), comparison(), row(q), key(q, k),
                           comparison(), row(q));
      case 4: return fmt::format("not ({} > {} or x[q.index] == y[k] or {} < 2)", k, row(q), q);
      case 5: return fmt::format("({} <= {} or {} < 2)", k, q, k);
      case 6: return fmt::format("{} {} {}", row(q), comparison(), key(q, k));
      case 7: return fmt::format("not not ({} <= {} < {})", row(q), k, row(q));
      default: return fmt::format("{} {} {}", key(q, k), comparison(), row(q));
    }
  }

  std::mt19937 random_;
};

}  // namespace

TEST_CASE("row limits: what the usual masks come to") {
  CHECK(shape("") == "0 0 0 0");
  CHECK(shape("mask = q == q") == "0 0 0 0");
  CHECK(shape("mask = k <= q") == "0 1 0 0");
  CHECK(shape("mask = k <= q and q - k < 64") == "1 1 0 0");
  CHECK(shape("mask = abs(q - k) < 64") == "1 1 0 0");
  CHECK(shape("mask = k == q // 2") == "1 1 0 0");
  CHECK(shape("mask = not (k > q or k < 5)") == "1 1 0 0");
  CHECK(shape("input length: int[batch]\n mask = k < length[b] and q < length[b]") == "0 1 1 0");
  CHECK(shape("input doc: int[tokens]\n mask = doc[q] == doc[k] and k <= q") == "0 1 0 1");
  CHECK(shape("input start: int[tokens]\n mask = start[q] <= k <= q") == "1 1 0 0");
  CHECK(shape("axis t\n mask = k.t <= q") == "0 1 0 0");
  CHECK(shape("align = end\n mask = k <= q and q - k < 64") == "1 1 0 0");
  CHECK(shape("mask = k <= q or k < 64") == "0 0 0 1");
  CHECK(shape("mask = k % 2 == 0 and k != q") == "0 0 0 2");
  CHECK(shape("mask = q % 2 == 0 and head_dim > 64") == "0 0 2 0");
}

TEST_CASE("row limits: sums that may wrap are no limits") {
  CHECK(shape("mask = k + 1 <= q") == "0 1 0 0");
  CHECK(shape("mask = k + 2 <= q") == "0 0 0 1");
  CHECK(shape("mask = k <= q + 2147483000") == "0 1 0 0");  // wraps as the row's value does
  CHECK(shape("mask = q - k - 2 < 5") == "1 0 0 0");
  CHECK(shape("mask = q - k + 2 < 5") == "0 0 0 1");
  CHECK(shape("param n: int = 3\n mask = k - n <= q") == "0 1 0 0");
  CHECK(shape("mask = k + k <= q") == "0 0 0 1");
  // Where `align = end` lets q be negative, q - k still is a distance on the grid, but not from a context
  // key.
  CHECK(shape("align = end\n mask = q - k < 5") == "1 0 0 0");
  CHECK(shape("context\n align = end\n mask = q - k < 5") == "0 0 0 1");
  CHECK(shape("align = end\n mask = abs(q - k) < 5") == "1 1 0 0");
}

TEST_CASE("row limits: together they are the mask") {
  constexpr std::int32_t last = 2147483646;
  Counts counts;
  for (unsigned seed = 0; seed < 400; ++seed) {
    const std::string body = RandomMask(seed).body();
    CAPTURE(body);
    const ir::Module m = grid_keys(body);
    for (std::int32_t q : {0, 1, 2, 5, 7, 8, 11, 999, 1073741824, 2147482990, last - 5, last - 1, last})
      for (std::int32_t k : {0, 1, 2, 3, 4, 7, 9, 11, 1000, 1073741823, 2147482999, last - 4, last - 1, last})
        compare(m, q, k, counts);
    // With `align = end`, a query may stand before the first key.
    if (m.align_end)
      for (std::int32_t q : {-1, -2, -6, -1000})
        for (std::int32_t k : {0, 1, 5, 11, 2147480000}) compare(m, q, k, counts);
  }
  CHECK(counts.limits > counts.pairs / 3);
  CHECK(counts.kept > counts.pairs / 50);
  CHECK(counts.kept < counts.pairs / 2);
}

}  // namespace vicinal
