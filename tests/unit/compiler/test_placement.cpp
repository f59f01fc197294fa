// What is kept for a row and for a column, by spec.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "compiler/analysis/placement.h"
#include "tests/unit/compiler/compile_text.h"
#include "tests/unit/compiler/prefix.h"

namespace vicinal {
namespace {

using ir::Root;

// The rows, and after a bar the columns, of what the block's mask and score are made of.
std::string kept(const std::string& body) {
  const auto compiled = testing::compile_block(body);
  REQUIRE_MESSAGE(compiled.variants.size() == 1, compiled.messages());
  const ir::Module& m = compiled.variants[0].specialized.grid.module;
  const ir::NodeId roots[] = {m.root(Root::mask), m.root(Root::score)};
  const analysis::Placement placement = analysis::place(m, roots);
  std::string text;
  for (ir::NodeId id : placement.rows) {
    CHECK(placement.place[id.value] <= analysis::Place::row);  // or the same for the launch
    text += testing::prefix(m, id) + " ";
  }
  text += "|";
  for (ir::NodeId id : placement.columns) {
    CHECK(placement.place[id.value] == analysis::Place::column);
    text += " " + testing::prefix(m, id);
  }
  return text;
}

}  // namespace

TEST_CASE("placement: rows and columns of the usual masks and scores") {
  CHECK(kept("") == "|");
  CHECK(kept("mask = k <= q") == "q |");
  CHECK(kept("input doc: int[batch, tokens]\n mask = doc[b, q] == doc[b, k]") == "(doc b q) | (doc b k)");
  CHECK(kept("input slopes: float[heads]\n score = score - slopes[h] * abs(q - k)") == "(slopes h) q |");
  CHECK(kept("input bias: float[heads, 33]\n score = score + bias[h, clamp(k - q, -16, 16) + 16]") ==
        "h q |");
  CHECK(kept("input bias: float[heads, tokens, keys]\n score = score + bias[h, q, k]") == "h q |");
  CHECK(kept("input bias: float[heads, keys]\n score = score + bias[h, k]") == "| (bias h k)");
  CHECK(kept("input bias: float[heads, tokens]\n score = score + bias[h, q] / 3") ==
        "(div.f (bias h q) 3.0) |");
  CHECK(kept("input gain: float[heads]\n score = score * exp(gain[h])") == "(exp.f (gain h)) |");
}

TEST_CASE("placement: what is at hand is no column") {
  CHECK(kept("mask = k + 1 <= q") == "q |");
  CHECK(kept("mask = k < 7 or k <= q") == "q |");
  CHECK(kept("score = score + (k + heads)") == "|");
  CHECK(kept("score = score + (k + h)") == "| (float.i (add.i k h))");
  CHECK(kept("input s: float[1]\n score = score * tanh(s[0])") == "(tanh.f (s 0)) |");
  CHECK(kept("mask = q // 64 == k // 64") == "(floordiv.i q 64) | (floordiv.i k 64)");
  CHECK(kept("mask = q < 64") == "(lt.i q 64) |");
  CHECK(kept("mask = k < 64") == "|");
  CHECK(kept("mask = k % 3 == 0") == "| (eq.i (floormod.i k 3) 0)");
  CHECK(kept("axis t\n mask = k.t <= q.t") == "q.t |");
  // With several axes, a coordinate is computed from the position.
  CHECK(kept("axis t\n axis x\n mask = k.t <= q.t") == "q.t | k.t");
  // Of the launch: neither.
  CHECK(kept("param cap: float = 3.0 learnable\n score = score * (cap + 1)") == "(add.f param cap 1.0) |");
}

}  // namespace vicinal
