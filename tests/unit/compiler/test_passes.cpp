// Each rule with what goes in and what comes out; and that no pass changes a value, to the bit.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <random>

#include "compiler/ir/evaluate.h"
#include "compiler/ir/text.h"
#include "compiler/ir/verify.h"
#include "compiler/passes/passes.h"
#include "tests/unit/compiler/compile_text.h"
#include "tests/unit/compiler/prefix.h"

namespace vicinal {
namespace {

using ir::NodeId;
using ir::Type;

// The mask or score of a spec after the whole pipeline, as a prefix expression.
std::string mask(const std::string& expression) {
  const auto compiled = testing::compile_block("mask = " + expression);
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  const ir::Module& m = compiled.variants[0].optimized;
  return testing::prefix(m, m.root(ir::Root::mask));
}
std::string score(const std::string& expression) {
  const auto compiled = testing::compile_block("score = " + expression);
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  const ir::Module& m = compiled.variants[0].optimized;
  return testing::prefix(m, m.root(ir::Root::score));
}

TEST_CASE("rules on ints") {
  CHECK(mask("q + 0 > k") == "(lt.i k q)");
  CHECK(mask("0 + q > k") == "(lt.i k q)");
  CHECK(mask("q + 1 + 2 > k") == "(lt.i k (add.i q 3))");
  CHECK(mask("q + 2147483647 + 1 > k") == "(lt.i k (add.i q -2147483648))");
  CHECK(mask("q - 3 > k") == "(lt.i k (add.i q -3))");
  CHECK(mask("q - q > k") == "(lt.i k 0)");
  CHECK(mask("q * 1 > k") == "(lt.i k q)");
  CHECK(mask("q * 0 > k") == "(lt.i k 0)");
  CHECK(mask("q // 1 > k") == "(lt.i k q)");
  CHECK(mask("q % 1 > k") == "(lt.i k 0)");
  CHECK(mask("-(-q) > k") == "(lt.i k q)");
  CHECK(mask("min(q, q) > k") == "(lt.i k q)");
  CHECK(mask("(q & q) > (k | k)") == "(lt.i k q)");
  CHECK(mask("q << 0 > k >> 0") == "(lt.i k q)");
  CHECK(mask("q == q") == "true");
  CHECK(mask("q < q") == "false");
}

TEST_CASE("rules on bools") {
  CHECK(mask("q > k and true") == "(lt.i k q)");
  CHECK(mask("true and q > k") == "(lt.i k q)");
  CHECK(mask("q > k and false") == "false");
  CHECK(mask("q > k or true") == "true");
  CHECK(mask("false or q > k") == "(lt.i k q)");
  CHECK(mask("q > k and q > k") == "(lt.i k q)");
  CHECK(mask("not not (q > k)") == "(lt.i k q)");
  CHECK(mask("not (q > k)") == "(le.i q k)");
  CHECK(mask("not (q >= k)") == "(lt.i q k)");
  CHECK(mask("not (q == k)") == "(ne.i q k)");
  CHECK(mask("not (q != k)") == "(eq.i q k)");
  CHECK(mask("(q > k) if true else (q < k)") == "(lt.i k q)");
  CHECK(mask("(q > k) if q > 3 else (q > k)") == "(lt.i k q)");
  CHECK(mask("true if q > k else q > 3") == "(or.b (lt.i k q) (lt.i 3 q))");
  CHECK(mask("q > 3 if q > k else false") == "(and.b (lt.i k q) (lt.i 3 q))");
}

TEST_CASE("rules on floats keep NaN and the sign of zero") {
  CHECK(score("score * 1") == "score");
  CHECK(score("score / 1") == "score");
  CHECK(score("score - 0.0") == "score");
  CHECK(score("score + -0.0") == "score");
  CHECK(score("score + 0.0") == "(add.f score 0.0)");  // -0 + 0 is 0
  CHECK(score("score * 0.0") == "(mul.f score 0.0)");  // NaN
  CHECK(score("score - score") == "(sub.f score score)");
  CHECK(score("-(-score)") == "score");
  CHECK(score("score + (2 - 1.5) * 4") == "(add.f score 2.0)");
  CHECK(mask("not (q / 2 < k / 2)") == "(not.b (lt.f (div.f (float.i q) 2.0) (div.f (float.i k) 2.0)))");
}

TEST_CASE("commutative operands stand in one order, so that equal things are one") {
  CHECK(mask("q + k == k + q") == "true");
  CHECK(mask("(q > 1 and k > 1) == (k > 1 and q > 1)").find("eq.b") != std::string::npos);
}

TEST_CASE("specialised for context keys") {
  const auto compiled = testing::compile_block(
      "axis t { window = 2 }\ncontext\nscore = score if k.context else score - k.t\nmask = k.context or q > "
      "1");
  REQUIRE(compiled.variants.size() == 1);
  const emit::Specialized& s = compiled.variants[0].specialized;
  CHECK(testing::prefix(s.context->module, s.context->module.root(ir::Root::score)) == "score");
  CHECK(testing::prefix(s.context->module, s.context->module.root(ir::Root::mask)) == "true");
  CHECK(testing::prefix(s.grid.module, s.grid.module.root(ir::Root::mask)) == "(lt.i 1 q)");
}

// Random modules: operations from the table over constants, symbols and each other.
class RandomModule {
 public:
  explicit RandomModule(unsigned seed) : random_(seed) {}

  ir::Module make() {
    ir::Module m;
    m.name = "random";
    std::vector<NodeId> pool[3];
    const auto keep = [&](NodeId id) { pool[static_cast<int>(m[id].type)].push_back(id); };
    for (ir::SymbolKind s : {ir::SymbolKind::q, ir::SymbolKind::k, ir::SymbolKind::h, ir::SymbolKind::score,
                             ir::SymbolKind::k_context})
      keep(m.symbol(s));
    for (std::int32_t c : {0, 1, -1, 7, 2147483647, std::numeric_limits<std::int32_t>::min()})
      keep(m.constant(c));
    for (float c : {0.0f, -0.0f, 1.0f, 0.5f, INFINITY, NAN}) keep(m.constant(c));
    keep(m.constant(true)), keep(m.constant(false));
    const auto ops = ir::all_ops();
    for (int i = 0; i < 60; ++i) {
      const ir::OpInfo& op = ops[random_() % ops.size()];
      std::vector<NodeId> operands;
      for (int o = 0; o < op.arity; ++o) {
        const auto& from = pool[static_cast<int>(op.operands[o])];
        // New nodes more often than old ones, so that expressions grow deep.
        const std::size_t recent = std::min<std::size_t>(from.size(), random_() % 2 == 0 ? 6 : from.size());
        operands.push_back(from[from.size() - 1 - random_() % recent]);
      }
      keep(m.apply(op.op, ir::Operands(std::span<const NodeId>(operands))));
    }
    m.root(ir::Root::score) = pool[static_cast<int>(Type::real)].back();
    m.root(ir::Root::mask) = pool[static_cast<int>(Type::boolean)].back();
    return m;
  }

 private:
  std::mt19937 random_;
};

TEST_CASE("passes keep the values of random expressions, bit for bit") {
  const std::int32_t ints[] = {0, 1, -3, 100, 2147483647, std::numeric_limits<std::int32_t>::min()};
  const float floats[] = {0.0f, -0.0f, 1.5f, -2.0f, INFINITY, NAN};
  for (unsigned seed = 0; seed < 400; ++seed) {
    CAPTURE(seed);
    const ir::Module before = RandomModule(seed).make();
    const ir::Module after = passes::run_pipeline(before);
    CHECK(after.size() <= before.size());
    const std::string text = ir::print(after);
    CHECK(ir::print(ir::parse(text).value()) == text);
    for (int i = 0; i < 6; ++i) {
      const auto lookup = [&](const ir::Symbol& s) -> std::optional<ir::Value> {
        if (s.kind == ir::SymbolKind::score) return ir::real_value(floats[i]);
        if (s.kind == ir::SymbolKind::k_context) return ir::bool_value(i % 2 == 0);
        return ir::int_value(ints[(i + static_cast<int>(s.kind)) % 6]);
      };
      const auto value = [&](const ir::Module& m, ir::Root r) { return *ir::evaluate(m, m.root(r), lookup); };
      // A score of -inf may become a mask: what a pair comes to is the same.
      const auto score = [&](const ir::Module& m) {
        return value(m, ir::Root::mask).b ? value(m, ir::Root::score).f : -INFINITY;
      };
      const double x = score(before), y = score(after);
      CHECK((std::isnan(x) ? std::isnan(y)
                           : std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y)));
    }
  }
}

TEST_CASE("text that is no module is refused with its line") {
  for (const char* text :
       {"nonsense", "module m\n%1 = q", "module m\n%0 = add.i %0 %0", "module m\n%0 = q\n%1 = q",
        "module m\nscore %7", "module m\n%0 = q\n%1 = not.b %0", "module m\n%0 = load nothing",
        "module m\naxis", "module m\n%0 = int x", "module m\n%0 = argument 3"})
    CHECK(!ir::parse(text).has_value());
}

}  // namespace
}  // namespace vicinal
