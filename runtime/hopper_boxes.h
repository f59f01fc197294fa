// How the Hopper kernel's tiles and tensors become boxes of the copy engine: dimensions, steps, and what one
// copy brings (templates/vicinal/hopper/boxes.cuh).
#pragma once

#include "runtime/binding/problem.h"
#include "runtime/cuda/tensor_map.h"
#include "runtime/plan/tile_cost.h"

namespace vicinal::runtime {

// A tensor with the five dimensions of a tensor map. Up to two token axes: channels, tokens with the last
// axis first, heads, batch. Of three, heads and batch have one dimension together, or heads lie side by side
// among the channels; `steps` says what they add to a coordinate.
struct BoxedView {
  cuda::BoxedTensor tensor;
  struct HeadSteps {
    std::int64_t channel = 0, head = 0, batch = 0;
  } steps;
};

// Nothing where three token axes, heads and batches do not fit five dimensions.
std::optional<BoxedView> boxed_view(const Strided& tensor, std::int64_t channels,
                                    const std::vector<GridAxis>& axes, std::int64_t heads,
                                    std::int64_t batch);

// How many tokens of a tile one copy brings, along each axis. The engine steps over at most 8 elements and
// 256 of them in all; where it takes an axis in parts, it takes the slower ones token by token.
std::vector<int> tokens_of_copy(const Problem& problem, const std::vector<int>& tile);

// And how many copies bring the tile.
int copies_of(const Problem& problem, const std::vector<int>& tile);

// What another copy of a tile adds to the products that it comes for, as a part of them.
inline constexpr double kCopyWeight = 0.03;

// What the heads that are at work at a time may have for it to stay in the L2 cache.
inline constexpr std::int64_t kSectionBytes = std::int64_t{32} << 20;

int dilation_of(const Problem& problem, std::size_t axis);

// The 64 tokens of a warpgroup as a box, where they are one: a tile's extents from the last axis on.
std::optional<std::vector<int>> group_box(const std::vector<int>& tile);

// Which shapes the kernel has, and what they cost it. `skips`: as its schedule says.
plan::ShapeRules hopper_shape_rules(const Problem& problem, bool skips);

// The box that copies so many tokens.
cuda::Box box_of(const Problem& problem, const std::vector<int>& tokens);

// Along the last of several axes a tile whose tokens are columns of a product has a multiple of so many.
inline constexpr int kColumnGroup = 8;

// The words behind the HeadSteps of a launch: what copies bring, and ColumnArguments of the side whose tokens
// are columns.
std::vector<std::int64_t> box_words(const Problem& problem, const plan::TileShape& shape, plan::Side columns);

}  // namespace vicinal::runtime
