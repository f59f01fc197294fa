// The derivatives that the compiler writes: their form, their values, and which reads they are of.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "compiler/driver/gradient_text.h"
#include "compiler/emit/gradient_sites.h"
#include "compiler/ir/language.h"
#include "compiler/ir/text.h"
#include "compiler/passes/differentiate.h"
#include "tests/support/gallery.h"
#include "tests/unit/compiler/compile_text.h"
#include "tests/unit/compiler/node_values.h"

#include "runtime/kernel_impl.h"

namespace vicinal {
namespace {

using ir::NodeId;
using ir::Op;
using ir::Root;

ir::Module gradient_of(const std::string& statements) {
  const auto compiled = testing::compile_block(statements);
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  return driver::differentiated(compiled.variants[0]);
}

// "let v1 = tanh(score); score -> 1.0 - v1 * v1", a derivative after the other.
std::string derivatives(const std::string& statements) {
  const driver::GradientText text = driver::gradient_text(gradient_of(statements));
  std::string out;
  for (const std::string& let : text.lets) out += let + "; ";
  for (std::size_t i = 0; i < text.derivatives.size(); ++i)
    out += fmt::format("{}{} -> {}", i == 0 ? "" : "; ", text.derivatives[i].leaf, text.derivatives[i].value);
  return out;
}
std::string of_score(const std::string& expression) {
  return derivatives("score = " + expression);
}

TEST_CASE("derivatives use what the expression has computed") {
  CHECK(of_score("score") == "score -> 1.0");
  CHECK(of_score("3 * score + 1") == "score -> 3.0");
  CHECK(of_score("-score / 4") == "score -> -0.25");
  CHECK(of_score("score / 3") == "score -> 0.33333334");
  CHECK(of_score("50 * tanh(score / 50)") == "let v1 = tanh(score / 50.0); score -> 1.0 - v1 * v1");
  CHECK(derivatives("param cap: float = 9 learnable\nscore = cap * tanh(score / cap)") ==
        "let v1 = score / cap; let v2 = tanh(v1); let v3 = 1.0 - v2 * v2; score -> v3; "
        "cap -> v2 + -(v1 * v3)");
  CHECK(of_score("sigmoid(score)") == "let v1 = sigmoid(score); score -> v1 * (1.0 - v1)");
  CHECK(of_score("exp(2 * score)") == "score -> exp(score * 2.0) * 2.0");
  CHECK(of_score("score ** 2") == "score -> score * 2.0");
  CHECK(of_score("sqrt(score)") == "score -> 0.5 / sqrt(score)");
  CHECK(of_score("rsqrt(score)") == "let v1 = rsqrt(score); score -> v1 * (v1 * (v1 * -0.5))");
  CHECK(of_score("log(score)") == "score -> 1.0 / score");
  CHECK(of_score("sin(score)") == "score -> cos(score)");
  CHECK(of_score("7.0") == "");
}

TEST_CASE("choices stay choices, and what is not kept has no say") {
  CHECK(of_score("2 * score if k <= q else score") == "score -> 2.0 if k <= q else 1.0");
  CHECK(of_score("score if k <= q else -inf") == "score -> 1.0");
  CHECK(of_score("-inf if k > q else score * score") == "score -> score * 2.0");
  CHECK(of_score("relu(score)") == "score -> 1.0 if 0.0 < score else 0.0");
  CHECK(of_score("sqrt(score) if score > 0 else 0.0") ==
        "score -> 0.5 / sqrt(score) if 0.0 < score else 0.0");
  CHECK(of_score("score if k == 0 else (2 * score if k == 1 else 3 * score)") ==
        "score -> 1.0 if k == 0 else 2.0 if k == 1 else 3.0");
  CHECK(derivatives("context\ninput t: float[keys] learnable\nscore = score + (0 if k.context else t[k])") ==
        "t[k] -> 0.0 if k.context else 1.0; score -> 1.0");
}

TEST_CASE("every place where a learnable input is read has a derivative of its own") {
  CHECK(derivatives("input t: float[tokens] learnable\nscore = score + t[q] + 2 * t[k] * t[k]") ==
        "let v1 = t[k] * 2.0; t[k] -> v1 + v1; t[q] -> 1.0; score -> 1.0");
  CHECK(derivatives("input i: int[tokens]\ninput t: float[heads, 4] learnable\nscore = score * t[h, i[q]]") ==
        "t[h, i[q]] -> score; score -> t[h, i[q]]");
  CHECK(derivatives("input x: float[tokens, 4] learnable\nscore = 2 * dot(x[q, :], x[k, :])") ==
        "dot(x[q, :], x[k, :]) -> 2.0");
  CHECK(derivatives("input s: float[heads] learnable\nscale = exp(s[h])\nsink = 2 * s[h]\n"
                    "output = out * sigmoid(lse)") ==
        "let v1 = sigmoid(lse); s[h] -> exp(s[h]); s[h] -> 2.0; lse -> out * v1 * (1.0 - v1); out -> v1");
}

TEST_CASE("how reads follow the pair") {
  const auto pattern = [](const std::string& declarations, const std::string& read) {
    const emit::Specialized variant =
        emit::specialize(gradient_of(declarations + "\nscore = score + " + read));
    const auto sites = emit::gradient_sites(variant.grid, false);
    REQUIRE(sites.size() == 1);
    return std::string(analysis::name_of(sites[0].adding.how));
  };
  const auto table = [](const std::string& dims) { return "input t: float[" + dims + "] learnable"; };
  CHECK(pattern("input t: float learnable", "t") == "block reduction");
  CHECK(pattern(table("batch, heads"), "t[b, h]") == "block reduction");
  CHECK(pattern(table("heads, tokens"), "t[h, q]") == "row reduction");
  CHECK(pattern(table("tokens") + "\ninput i: int[tokens]", "t[i[q] + q // 2]") == "row reduction");
  CHECK(pattern(table("kv_heads, keys"), "t[kv_h, k]") == "column reduction");
  CHECK(pattern(table("heads, 9"), "t[h, clamp(k - q, -4, 4) + 4]") == "diagonal accumulation");
  CHECK(pattern(table("9"), "t[min(abs(q - k), 8)]") == "diagonal accumulation");
  CHECK(pattern(table("9"), "t[(2 * q - 2 * k) // 3 % 9]") == "diagonal accumulation");
  CHECK(pattern("align = end\n" + table("99"), "t[q.index - k + 50]") == "diagonal accumulation");
  CHECK(pattern(table("tokens + keys"), "t[q + k]") == "ordered fallback");
  CHECK(pattern(table("tokens, keys"), "t[q, k]") == "with the tile");
  CHECK(pattern(table("batch, keys, tokens"), "t[b, k, q]") == "with the tile");
  CHECK(pattern(table("tokens, keys"), "t[q, k // 2]") == "ordered fallback");
  CHECK(pattern("axis y\naxis x\n" + table("9, 9"), "t[k.y - q.y + 4, abs(k.x - q.x)]") ==
        "diagonal accumulation");
  CHECK(pattern("axis y\naxis x\n" + table("tokens, len(y)"), "t[q, k.y]") == "ordered fallback");
  CHECK(pattern("axis y\naxis x\n" + table("len(y), len(x), tokens"), "t[q.y, q.x, k]") == "with the tile");
}

// One operation of the score and a learnable scalar, at a point, against central differences.
void check_operation(const ir::OpInfo& op, const std::vector<double>& at) {
  ir::Module m;
  m.params.push_back({"a", ir::Type::real, ir::real_value(0), true, true});
  m.params.push_back({"c", ir::Type::real, ir::real_value(0), true, true});
  std::vector<NodeId> operands;
  std::uint32_t reals = 0;
  for (int i = 0; i < op.arity; ++i)
    operands.push_back(op.operands[i] == ir::Type::real ? m.symbol(ir::SymbolKind::param, reals++)
                                                        : m.symbol(ir::SymbolKind::k_context));
  m.root(Root::score) = m.apply(op.op, ir::Operands(std::span<const NodeId>(operands)));
  const ir::Module d = passes::differentiate(m);
  const auto value = [&](NodeId node, const std::vector<double>& x) {
    return testing::node_values(d,
                                {[&](const ir::Symbol& s) {
                                   return s.kind == ir::SymbolKind::param ? ir::real_value(x[s.index])
                                                                          : ir::bool_value(true);
                                 },
                                 nullptr},
                                true)[node.value]
        .f;
  };
  for (std::uint32_t i = 0; i < reals; ++i) {
    double derivative = 0;
    for (const ir::Partial& p : d.partials)
      if (std::get<ir::Symbol>(d[p.leaf].what).index == i) derivative = value(p.value, at);
    std::vector<double> above = at, below = at;
    above[i] += 1e-6, below[i] -= 1e-6;
    const double difference = (value(d.root(Root::score), above) - value(d.root(Root::score), below)) / 2e-6;
    CAPTURE(std::string(op.name));
    CAPTURE(i);
    CHECK(derivative == doctest::Approx(difference).epsilon(1e-7));
  }
}

TEST_CASE("every operation's derivative agrees with finite differences") {
  int operations = 0;
  for (const ir::OpInfo& op : ir::all_ops()) {
    const bool on_reals =
        std::any_of(op.operands, op.operands + op.arity, [](ir::Type t) { return t == ir::Type::real; });
    if (op.result != ir::Type::real || !on_reals) continue;
    ++operations;
    for (const std::vector<double>& at : {std::vector{0.7, 2.3}, {2.3, 0.7}, {1.4, -0.6}})
      check_operation(op, at);
  }
  CHECK(operations == 29);
}

TEST_CASE("a module with derivatives prints, reads back and verifies") {
  for (const testing::GalleryBlock& block : testing::learnable_gallery()) {
    CAPTURE(block.name);
    const ir::Module module = driver::differentiated(block.spec.impl().variant);
    const std::string text = ir::print(module);
    const Result<ir::Module> again = ir::parse(text);
    REQUIRE_MESSAGE(again.has_value(), (again ? "" : again.error().message));
    CHECK(ir::print(*again) == text);
    CHECK(again->partials == module.partials);
  }
}

TEST_CASE("context keys have the derivatives of their side of a guard alone") {
  const ir::Module module = gradient_of(
      "context\ninput t: float[keys] learnable\ninput u: float[context] learnable\n"
      "score = score + (u[k] if k.context else t[k])");
  CHECK(module.partials.size() == 3);
  for (const bool context : {false, true}) {
    const ir::Module side = passes::specialize_keys(module, context);
    REQUIRE(side.partials.size() == 2);
    bool found = false;
    for (const ir::Partial& p : side.partials)
      if (const auto* load = std::get_if<ir::Load>(&side[p.leaf].what))
        found = side.inputs[load->input].name == (context ? "u" : "t");
    CHECK(found);
  }
}

// What a spec declares, so that expressions written for people can be read back.
std::string declarations(const ir::Module& m) {
  const auto text = [&](NodeId id) { return ir::write_language(m, std::span(&id, 1)).expressions[0]; };
  std::string out;
  if (m.align_end) out += "align = end\n";
  if (m.context) out += "context\n";
  for (const ir::Axis& a : m.axes) out += "axis " + a.name + "\n";
  for (const ir::Param& p : m.params)
    out += fmt::format("param {}: {} = {}\n", p.name, ir::name_of(p.type),
                       p.type == ir::Type::boolean ? "true"
                       : p.type == ir::Type::real  ? "1.5"
                                                   : "3");
  for (const ir::Input& i : m.inputs) {
    std::string dims;
    for (const NodeId d : i.dims) dims += (dims.empty() ? "" : ", ") + text(d);
    out += fmt::format("input {}: {}{}\n", i.name, ir::name_of(i.type), dims.empty() ? "" : "[" + dims + "]");
  }
  return out;
}

TEST_CASE("expressions written in the language mean what the nodes do") {
  int compared = 0;
  for (const testing::GalleryBlock& block : testing::gallery()) {
    CAPTURE(block.name);
    const driver::Variant& variant = block.spec.impl().variant;
    const ir::Module& m = variant.checked.module;
    for (const Root root : {Root::score, Root::mask, Root::scale, Root::sink, Root::output}) {
      const NodeId node = m.root(root);
      if (!node.valid() || m.context) continue;  // a let does not carry the guard of its use along
      const ir::LanguageText written = ir::write_language(m, std::span(&node, 1));
      std::string statements = declarations(m);
      for (const std::string& let : written.lets) statements += let + "\n";
      statements += fmt::format("{} = ({})", ir::name_of(root), written.expressions[0]);
      CAPTURE(statements);
      const auto read = testing::compile_block(statements);
      REQUIRE_MESSAGE(read.variants.size() == 1, read.messages());
      const ir::Module& again = read.module();
      const NodeId same = again.root(root);
      const ir::LanguageText twice = ir::write_language(again, std::span(&same, 1));
      CHECK(twice.expressions == written.expressions);
      CHECK(twice.lets == written.lets);
      ++compared;
    }
  }
  CHECK(compared > 80);
}

}  // namespace
}  // namespace vicinal
