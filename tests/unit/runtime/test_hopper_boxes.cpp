// How tiles and tensors become boxes of the copy engine.
#include "runtime/hopper_boxes.h"

#include <doctest/doctest.h>

namespace vicinal::testing {
namespace {

using runtime::GridAxis;
using runtime::Problem;
using runtime::Strided;

// Of so many tokens along each axis, all of which see each other but for the dilation.
Problem grid(const std::vector<std::pair<std::int64_t, std::int64_t>>& axes) {
  Problem p;
  p.batch = p.heads = p.kv_heads = 1;
  p.tokens = p.keys = 1;
  for (const auto& [extent, dilation] : axes) {
    p.q_axis.push_back({extent, extent, 0});
    p.k_axis.push_back({extent, extent, 0});
    p.axes.push_back({0, dilation, 1, false});
    p.tokens = p.keys = p.tokens * extent;
  }
  return p;
}

Strided strided(std::int64_t batch, std::int64_t head, std::vector<std::int64_t> axis) {
  Strided t;
  t.dtype = DType::bf16;
  t.batch = batch;
  t.head = head;
  t.dim = 1;
  t.axis = std::move(axis);
  return t;
}

// The offset of an element by its role, and by the coordinates that the kernel computes.
void check_offsets(const Strided& t, std::int64_t channels, const std::vector<GridAxis>& axes,
                   std::int64_t heads, std::int64_t batch) {
  const auto view = runtime::boxed_view(t, channels, axes, heads, batch);
  REQUIRE(view.has_value());
  const cuda::BoxedTensor& boxed = view->tensor;
  const std::size_t rank = axes.size();
  for (const std::int64_t b : {std::int64_t{0}, batch - 1})
    for (const std::int64_t h : {std::int64_t{0}, heads - 1})
      for (const std::int64_t channel : {std::int64_t{0}, channels - 1}) {
        std::vector<std::int64_t> at;
        if (rank <= 2)
          at = {channel, axes[rank - 1].local - 1, rank == 2 ? axes[0].local - 1 : 0, h, b};
        else
          at = {channel + h * view->steps.channel, axes[2].local - 1, axes[1].local - 1, axes[0].local - 1,
                h * view->steps.head + b * view->steps.batch};
        std::int64_t offset = 0, expected = b * t.batch + h * t.head + channel * t.dim;
        for (std::size_t i = 0; i < at.size(); ++i) {
          CHECK(at[i] < boxed.extent[i]);
          offset += at[i] * boxed.stride[i];
        }
        for (std::size_t i = 0; i < rank; ++i) expected += (axes[i].local - 1) * t.axis[i];
        CHECK(offset == expected);
      }
}

}  // namespace

TEST_CASE("Hopper boxes: tensors of one to three axes, heads first and heads last") {
  const GridAxis t{3, 3, 0}, y{5, 5, 0}, x{7, 7, 0};
  check_offsets(strided(4 * 7 * 64, 7 * 64, {64}), 64, {x}, 4, 2);
  check_offsets(strided(35 * 256, 64, {7 * 256, 256}), 64, {y, x}, 4, 2);
  check_offsets(strided(4 * 105 * 64, 105 * 64, {35 * 64, 7 * 64, 64}), 64, {t, y, x}, 4, 2);
  check_offsets(strided(105 * 256, 64, {35 * 256, 7 * 256, 256}), 64, {t, y, x}, 4, 2);
  check_offsets(strided(0, 40, {35 * 160, 7 * 160, 160}), 40, {t, y, x}, 4, 1);
  check_offsets(strided(105 * 40, 0, {35 * 40, 7 * 40, 40}), 40, {t, y, x}, 1, 3);
  // A box of 64 channels would reach into the next head.
  CHECK(!runtime::boxed_view(strided(105 * 160, 40, {35 * 160, 7 * 160, 160}), 40, {t, y, x}, 4, 2));
  // Heads with room between them, batches of another stride.
  CHECK(!runtime::boxed_view(strided(105 * 512, 128, {35 * 512, 7 * 512, 512}), 64, {t, y, x}, 4, 2));
}

TEST_CASE("Hopper boxes: what one copy brings") {
  const auto copied = [](const Problem& p, std::vector<int> tile) {
    return runtime::tokens_of_copy(p, tile);
  };
  using Tokens = std::vector<int>;
  CHECK(copied(grid({{1024, 1}}), {192}) == Tokens{192});
  CHECK(copied(grid({{1024, 5}}), {128}) == Tokens{32});
  CHECK(copied(grid({{1024, 8}}), {128}) == Tokens{32});
  CHECK(copied(grid({{1024, 9}}), {128}) == Tokens{1});
  CHECK(copied(grid({{24, 1}, {44, 11}, {80, 5}}), {8, 1, 16}) == Tokens{8, 1, 16});
  // An axis in parts has the slower ones token by token.
  CHECK(copied(grid({{24, 1}, {44, 11}, {80, 5}}), {4, 2, 16}) == Tokens{1, 1, 16});
  const cuda::Box box = runtime::box_of(grid({{24, 1}, {44, 11}, {80, 5}}), {8, 1, 16});
  CHECK(box.tokens == std::array{16, 1, 8});
  CHECK(box.step == std::array{5, 1, 1});
}

TEST_CASE("Hopper boxes: a warpgroup's queries are a box or they are not") {
  using Tokens = std::vector<int>;
  CHECK(runtime::group_box({192}) == Tokens{64});
  CHECK(runtime::group_box({16, 8}) == Tokens{8, 8});
  CHECK(runtime::group_box({3, 8, 8}) == Tokens{1, 8, 8});
  CHECK(runtime::group_box({12, 4, 4}) == Tokens{4, 4, 4});
  CHECK(runtime::group_box({1, 128}) == Tokens{1, 64});
  CHECK(runtime::group_box({2, 32, 2}) == Tokens{1, 32, 2});
  CHECK(!runtime::group_box({8, 24}));
  CHECK(!runtime::group_box({2, 96}));
}

TEST_CASE("Hopper boxes: words of a tile of keys say where its columns lie") {
  const Problem p = grid({{30, 1}, {48, 1}, {80, 1}});
  for (const std::vector<int>& k : {std::vector{2, 8, 8}, {1, 8, 16}, {2, 5, 8}, {4, 1, 24}, {16, 1, 8}}) {
    const std::vector<std::int64_t> words = runtime::box_words(p, {{2, 8, 8}, k}, plan::Side::keys);
    const std::size_t rank = 3;
    REQUIRE(words.size() == 5 * rank);
    const auto word = [&](std::size_t list, std::size_t axis) { return words[list * rank + axis]; };
    const int columns = k[0] * k[1] * k[2];
    CHECK(word(2, 2) == 1);
    CHECK(word(2, 1) == k[2]);
    CHECK(word(2, 0) == k[1] * k[2]);
    // The digits of a group of eight columns, by products with the inverse extents.
    for (int group = 0; group < columns / 8; ++group) {
      const int last = k[2] / 8;
      int rest = static_cast<int>(group * word(4, 2) >> 16);
      CHECK(rest == group / last);
      CHECK((rest * word(4, 1) >> 16) == rest / k[1]);
    }
    // Two bits for every eight columns; one at each start of the axis.
    for (const std::size_t axis : {1u, 2u}) {
      const int stretch = axis == 1 ? k[1] * k[2] : k[2];
      std::int64_t expected = 0;
      for (int c = 0; c < columns; c += stretch) expected |= std::int64_t{1} << (c / 8 * 2);
      CHECK(word(3, axis) == expected);
    }
  }
}

TEST_CASE("Hopper boxes: the search keeps to what the kernel has") {
  Problem p = grid({{30, 1}, {48, 1}, {80, 1}});
  p.axes = {{18, 1, 1, false}, {24, 1, 1, false}, {24, 1, 1, false}};
  for (const bool skips : {false, true})
    for (const plan::ShapeChoice& choice :
         plan::search_shapes(p, 192, 64, 20, runtime::hopper_shape_rules(p, skips))) {
      CHECK(choice.shape.k.back() % 8 == 0);
      CHECK(runtime::group_box(choice.shape.q).has_value());
    }
  // Far apart along both axes, no box of 128 keys comes in a few copies.
  Problem far = grid({{400, 20}, {400, 20}});
  far.axes = {{20, 20, 1, false}, {20, 20, 1, false}};
  CHECK(plan::search_shapes(far, 128, 128, 1, runtime::hopper_shape_rules(far, false)).empty());
}

}  // namespace vicinal::testing
