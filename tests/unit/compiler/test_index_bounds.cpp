// What the compiler says of indices, held against all indices of small problems.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "compiler/ir/evaluate.h"
#include "compiler/ir/text.h"
#include "tests/unit/compiler/compile_text.h"

namespace vicinal {
namespace {

using ir::SymbolKind;

// "proved", "checked: <what must not be negative>" or "clamped"; "never" for an error.
std::string verdict(const std::string& statements) {
  const auto compiled = testing::compile_block(statements);
  if (compiled.names().find("index-out-of-range") != std::string::npos) return "never";
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  const auto& variant = compiled.variants[0];
  if (!variant.specialized.grid.bounds.clamped.empty()) return "clamped";
  if (variant.launch_checks.empty()) return "proved";
  std::string out = "checked:";
  for (const auto& check : variant.launch_checks)
    out += " " + check.difference.print(variant.checked.module) + ";";
  return out;
}

TEST_CASE("proved, checked at launch, clamped, refused") {
  const auto of = [](const std::string& dims, const std::string& indices) {
    return verdict("input x: float[" + dims + "]\nscore = score + x[" + indices + "]");
  };
  CHECK(of("batch, heads, tokens, keys", "b, h, q, k") == "proved");
  CHECK(of("kv_heads", "kv_h") == "proved");
  CHECK(of("17", "clamp(k - q, -8, 8) + 8") == "proved");
  CHECK(of("17", "clamp(k - q + 8, 0, 16)") == "checked: -keys + 2147483640;");  // where k - q + 8 would wrap
  CHECK(of("(keys + 7) // 8", "k // 8") == "proved");
  CHECK(of("(keys + 7) // 8", "k >> 3") == "proved");
  CHECK(of("tokens + keys", "q - k + keys") == "checked: -tokens - keys + 2147483648;");
  CHECK(of("8", "q % 8") == "proved");
  CHECK(of("8", "k & 7") == "proved");
  CHECK(of("2", "int(q > k)") == "proved");
  CHECK(of("n", "min(k, n - 1)") == "clamped");  // n may be 0
  CHECK(of("n + 1", "min(k, n)") == "proved");
  CHECK(of("tokens", "max(q - 4, 0)") == "proved");
  CHECK(of("tokens", "k") == "checked: tokens - keys;");
  CHECK(of("n", "q + k") == "checked: -tokens - keys + 2147483649; -tokens - keys + n + 1;");
  CHECK(of("pages", "k // 8") == "checked: -keys + 8 * pages;");
  CHECK(of("8", "q % 9") == "clamped");
  CHECK(of("tokens", "q - 4") == "clamped");
  CHECK(of("tokens", "q * k") == "clamped");
  CHECK(of("8", "8") == "never");
  CHECK(of("8", "-1") == "never");
  CHECK(of("tokens", "-1 - k") == "never");
  CHECK(of("tokens", "tokens + k") == "never");
}

TEST_CASE("arithmetic that is no index asks for nothing") {
  CHECK(verdict("score = score + q * 1000000007 + (q + k) * 3") == "proved");
  CHECK(verdict("input x: float[8]\nscore = score + x[(q * 40503) % 8]") == "proved");
}

TEST_CASE("context keys have extents of their own") {
  const auto compiled = testing::compile_block(
      "axis t { window = 2 }\ncontext\ninput x: float[context]\nscore = score + (x[k] if k.context else 0)");
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  CHECK(compiled.variants[0].specialized.context->bounds.clamped.empty());
}

// An input's every index over every query and key: where nothing is clamped and all checks hold, it is in
// range.
void holds(const std::string& dim, const std::string& index) {
  CAPTURE(dim);
  CAPTURE(index);
  const auto compiled = testing::compile_block("input y: float[n]\ninput x: float[" + dim +
                                               "]\nscore = score + x[" + index + "] + y[0 * n]");
  if (compiled.variants.empty()) return;  // always out of range: an error
  const driver::Variant& variant = compiled.variants[0];
  const ir::Module& m = variant.specialized.grid.module;
  const auto clamp = variant.specialized.grid.bounds.clamp;
  for (std::int32_t tokens : {1, 2, 5, 9})
    for (std::int32_t keys : {1, 3, 8, 13})
      for (std::int32_t n : {1, 2, 4, 16}) {
        std::int32_t q = 0, k = 0;
        const auto extent = [&](const ir::Symbol& s) -> std::optional<std::int64_t> {
          return s.kind == SymbolKind::tokens ? tokens : s.kind == SymbolKind::keys ? keys : n;
        };
        const auto lookup = [&](const ir::Symbol& s) -> std::optional<ir::Value> {
          if (s.kind == SymbolKind::q) return ir::int_value(q);
          if (s.kind == SymbolKind::k) return ir::int_value(k);
          return ir::int_value(static_cast<std::int32_t>(*extent(s)));
        };
        bool launches = true;
        for (const analysis::LaunchCheck& c : variant.launch_checks)
          launches = launches && *c.difference.evaluate(extent) >= 0;
        if (!launches) continue;
        for (q = 0; q < tokens; ++q)
          for (k = 0; k < keys; ++k)
            for (std::uint32_t node = 0; node < m.size(); ++node) {
              const auto* load = std::get_if<ir::Load>(&m.nodes()[node].what);
              if (load == nullptr || m.inputs[load->input].name != "x" || clamp[node] != 0) continue;
              const std::int32_t at = ir::evaluate(m, m.nodes()[node].operands[0], lookup)->i;
              const std::int32_t size = ir::evaluate(m, m.inputs[load->input].dims[0], lookup)->i;
              if (at < 0 || at >= size)
                FAIL_CHECK(fmt::format("{} of {} at tokens {} keys {} n {} q {} k {}", at, size, tokens, keys,
                                       n, q, k));
            }
      }
}

TEST_CASE("what is said of an index is true of every query and key") {
  const char* const dims[] = {"tokens",          "keys",      "n",    "n + 1", "8", "tokens + keys",
                              "(keys + 3) // 4", "keys // 4", "2 * n"};
  const char* const indices[] = {"q",
                                 "k",
                                 "q + k",
                                 "q - k",
                                 "k - q + tokens",
                                 "abs(q - k)",
                                 "min(q, n)",
                                 "max(k - 2, 0)",
                                 "clamp(q - k, 0, n - 1)",
                                 "clamp(k - q, -4, 3) + 4",
                                 "k // 4",
                                 "(k + 3) // 4",
                                 "k % 4",
                                 "k % n",
                                 "q >> 1",
                                 "q & 7",
                                 "-k // 4 + 4",
                                 "q * 2",
                                 "3 - q",
                                 "k // 4 + q",
                                 "q if q > k else k",
                                 "n - 1",
                                 "keys - 1 - k",
                                 "(q + 2) // 2 // 2",
                                 "2 * (k // 4)",
                                 "k ^ 1",
                                 "-(q // 2) + tokens"};
  for (const char* dim : dims)
    for (const char* index : indices) holds(dim, index);
}

}  // namespace
}  // namespace vicinal
