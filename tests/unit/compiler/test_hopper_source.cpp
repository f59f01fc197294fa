// How a variant is taken apart for the Hopper kernel, and how that is cut.
#include <doctest/doctest.h>

#include <algorithm>

#include "compiler/emit/cuda/kernel_choice.h"
#include "tests/unit/compiler/compile_text.h"

namespace vicinal::testing {
namespace {

emit::KernelOptions options(int head_dim, int value_dim, DType dtype = DType::bf16) {
  emit::KernelOptions o;
  o.dtype = dtype;
  o.head_dim = head_dim;
  o.value_dim = value_dim;
  return o;
}

std::string hopper(const std::string& statements) {
  const CompiledText text = compile_block(statements);
  REQUIRE_MESSAGE(!text.sink.has_errors(), text.messages());
  const emit::Specialized& variant = text.variants.at(0).specialized;
  const emit::Choice choice = emit::choose(emit::KernelKind::hopper, variant, options(128, 128), 90);
  REQUIRE_MESSAGE(!choice.candidates.empty(), choice.why);
  return emit::emit_cuda(variant, choice.candidates.front()).text;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string obstacle(const std::string& statements, DType dtype = DType::bf16) {
  const CompiledText text = compile_block(statements);
  REQUIRE_MESSAGE(!text.sink.has_errors(), text.messages());
  const emit::Specialized& variant = text.variants.at(0).specialized;
  return emit::choose(emit::KernelKind::hopper, variant, options(64, 64, dtype), 90).why;
}

}  // namespace

TEST_CASE("every dim has a schedule of the Hopper kernel that fits in shared memory") {
  for (int head = 8; head <= 256; head += 8)
    for (const int value : {8, 64, 72, 128, 136, 192, 256})
      for (const int columns : {0, 4}) {
        CAPTURE(head);
        CAPTURE(value);
        CAPTURE(columns);
        const emit::HopperNeeds needs{
            .head_dim = head, .value_dim = value, .computes = columns != 0, .column_bytes = columns};
        const std::vector<emit::HopperSchedule> schedules = emit::hopper_schedules(needs);
        REQUIRE(!schedules.empty());
        const std::vector<emit::HopperSchedule> all = emit::hopper_variations(needs);
        CHECK(std::equal(schedules.begin(), schedules.end(), all.begin()));
        for (const emit::HopperSchedule& s : all) {
          CHECK(s.shared_bytes(head, value, 1, columns) <= emit::kHopperSharedBytes);
          // What setmaxnreg hands out is what the block was launched with.
          CHECK(s.blocks * (s.producer_registers + s.groups() * s.consumer_registers) * 128 <= 65536);
          CHECK(s.tile_k % 16 == 0);
          CHECK(s.tile_q % 64 == 0);
          CHECK(std::count(all.begin(), all.end(), s) == 1);
        }
      }
}

TEST_CASE("the Hopper kernel says what it does not run") {
  CHECK(obstacle("") == "");
  CHECK(obstacle("  axis t { window = 8, causal }\n") == "");
  CHECK(has(obstacle("", DType::f32), "f32"));
  CHECK(has(obstacle("  normalize = sigmoid\n"), "sigmoid"));
  CHECK(has(obstacle("  key = l2norm\n"), "norms"));
  CHECK(obstacle("  axis t { window = 8, dilation = 2 }\n") == "");
  CHECK(obstacle("  axis t { causal }\n  axis y { window = 3 }\n  axis x { window = 3, dilation = 9 }\n") ==
        "");
  CHECK(has(obstacle("  axis n { window = 3 }\n  axis t { window = 3 }\n  axis y { window = 3 }\n"
                     "  axis x { window = 3 }\n"),
            "three axes"));
  CHECK(has(obstacle("  input x: float[heads, tokens, d]\n  input y: float[keys, d]\n"
                     "  score = score + dot(x[h, q, :], y[k, :])\n"),
            "sums over inputs"));
  CHECK(has(obstacle("  input x: float[heads]\n  mask = k <= q + int(sin(x[h]))\n"), "transcendental"));
  CHECK(obstacle("  input x: float[heads]\n  score = score + sin(x[h])\n") == "");
}

TEST_CASE("a triangular mask is limits of a row and nothing for an element") {
  const std::string text = hopper("  mask = k <= q and q - k < 100\n");
  CHECK(has(text, "has_limits = true"));
  CHECK(has(text, "has_keeps = false"));
  CHECK(has(text, "limits.before("));
  CHECK(has(text, "limits.from("));
}

TEST_CASE("what the Hopper kernel knows of rows and columns is computed once for each") {
  const std::string text =
      hopper("  input doc: int[batch, tokens]\n  mask = k <= q and doc[b, q] == doc[b, k]\n");
  CHECK(has(text, "has_columns = true"));
  CHECK(has(text, "row.gm0 == column.gm0"));
}

TEST_CASE("scores give the exponent what does not vary along a row") {
  const std::string alibi = hopper("  input slopes: float[heads]\n  score = score - slopes[h] * (q - k)\n");
  CHECK(has(alibi, "has_core = false"));
  CHECK(has(alibi, "has_slope = true"));
  const std::string plain = hopper("");
  CHECK(has(plain, "has_core = false"));
  CHECK(has(plain, "has_slope = false"));
  const std::string capped = hopper("  score = 30.0 * tanh(score / 30.0)\n");
  CHECK(has(capped, "has_core = true"));
  CHECK(has(capped, "return 0x1.ep+4f;"));  // the factor, 30
  const std::string biased = hopper("  input bias: float[tokens]\n  score = score + bias[q]\n");
  CHECK(has(biased, "has_shift = true"));
  CHECK(has(biased, "has_core = false"));
}

TEST_CASE("a choice among conditions stays one condition beside others") {
  const std::string text =
      hopper("  input a: int[tokens]\n  mask = k % 3 == 0 and (a[q] > 0 or k % 5 == 1)\n");
  CHECK(has(text, "return keeps0 && keeps1;"));
}

}  // namespace vicinal::testing
