#include "runtime/hopper_boxes.h"

#include <algorithm>
#include <numeric>
#include <span>

namespace vicinal::runtime {
namespace {

constexpr int kLongestStep = 8, kLongestBox = 256;  // of the engine, in elements
// More copies than that for a tile take longer than the products that wait for them.
constexpr int kMostCopies = 8;
// Bringing a tile of keys and values to a multiprocessor, at 32 bytes a clock, takes as long as the products
// of 128 queries with it (4096 operations a clock); neither runs at its peak, and the copies are nearer to
// it.
constexpr double kTileWeight = 115;
constexpr int kGroupRows = 64;

int product(const std::vector<int>& x) {
  return std::accumulate(x.begin(), x.end(), 1, std::multiplies<>());
}

// Of ColumnArguments.
std::vector<std::int64_t> column_words(const std::vector<int>& box) {
  const std::size_t rank = box.size();
  std::vector<std::int64_t> words(3 * rank);
  const std::span<std::int64_t> steps(words.data(), rank), repeat(words.data() + rank, rank),
      inverse(words.data() + 2 * rank, rank);
  const int all = product(box);
  int step = 1;
  for (std::size_t i = rank; i-- > 0;) {
    steps[i] = step;
    step *= box[i];
    if (i == 0) break;
    // A thread has two columns of every eight.
    for (int column = 0; column < all; column += step) repeat[i] |= std::int64_t{1} << (column / 4);
    const int extent = i == rank - 1 ? (box[i] + kColumnGroup - 1) / kColumnGroup : box[i];
    inverse[i] = (65536 + extent - 1) / extent;
  }
  return words;
}

}  // namespace

int dilation_of(const Problem& p, std::size_t axis) {
  return p.axes.empty() ? 1 : static_cast<int>(p.axes[axis].dilation);
}

int copies_of(const Problem& p, const std::vector<int>& tile) {
  return product(tile) / product(tokens_of_copy(p, tile));
}

std::optional<BoxedView> boxed_view(const Strided& t, std::int64_t channels,
                                    const std::vector<GridAxis>& axes, std::int64_t heads,
                                    std::int64_t batch) {
  BoxedView view;
  cuda::BoxedTensor& boxed = view.tensor;
  boxed.data = reinterpret_cast<std::uint64_t>(t.data);
  boxed.dtype = t.dtype;
  boxed.extent.fill(1);
  boxed.extent[0] = channels;
  boxed.stride[0] = t.dim;
  const std::size_t rank = axes.size();
  for (std::size_t i = 0; i < rank; ++i) {
    boxed.extent[1 + i] = axes[rank - 1 - i].local;
    boxed.stride[1 + i] = t.axis.empty() ? 0 : t.axis[rank - 1 - i];
  }
  if (rank <= 2) {
    boxed.extent[3] = heads;
    boxed.stride[3] = t.head;
    boxed.extent[4] = batch;
    boxed.stride[4] = t.batch;
    return view;
  }
  constexpr std::int64_t kSlab = 64;
  if (batch == 1 || t.batch == heads * t.head) {
    boxed.extent[4] = heads * batch;
    boxed.stride[4] = t.head;
    view.steps = {0, 1, heads};
  } else if (heads == 1 || (t.head == channels && t.dim == 1 && channels % kSlab == 0)) {
    // No box reaches from one head into the next.
    boxed.extent[0] = heads * channels;
    boxed.extent[4] = batch;
    boxed.stride[4] = t.batch;
    view.steps = {channels, 0, 1};
  } else {
    return std::nullopt;
  }
  return view;
}

std::vector<int> tokens_of_copy(const Problem& p, const std::vector<int>& tile) {
  std::vector<int> copied(tile.size(), 1);
  for (std::size_t i = tile.size(); i-- > 0;) {
    const int step = dilation_of(p, i);
    int tokens = step <= kLongestStep ? std::min(tile[i], kLongestBox / step) : 1;
    while (tile[i] % tokens != 0) --tokens;
    copied[i] = tokens;
    if (tokens != tile[i]) break;
  }
  return copied;
}

std::optional<std::vector<int>> group_box(const std::vector<int>& tile) {
  std::vector<int> box(tile.size(), 1);
  int rest = kGroupRows;
  for (std::size_t i = tile.size(); i-- > 0;) {
    box[i] = std::min(tile[i], rest);
    if (rest % box[i] != 0 || tile[i] % box[i] != 0) return std::nullopt;
    rest /= box[i];
    // What is left of a warpgroup lies along slower axes only if this one is whole.
    if (rest > 1 && box[i] != tile[i]) return std::nullopt;
  }
  return rest == 1 ? std::optional(box) : std::nullopt;
}

plan::ShapeRules hopper_shape_rules(const Problem& p, bool skips) {
  plan::ShapeRules rules;
  rules.free_extent = kColumnGroup;
  if (skips) rules.part = [](const plan::TileShape& shape) { return *group_box(shape.q); };
  rules.tile_weight = kTileWeight;
  rules.factor = [&p](const plan::TileShape& shape) -> std::optional<double> {
    if (shape.q.size() > 1 && shape.k.back() % kColumnGroup != 0) return std::nullopt;
    const int queries = copies_of(p, shape.q), keys = copies_of(p, shape.k);
    if (!group_box(shape.q) || queries > kMostCopies || keys > kMostCopies) return std::nullopt;
    // Queries are copied seldom.
    return 1 + kCopyWeight * (keys - 1) + kCopyWeight / 8 * (queries - 1);
  };
  return rules;
}

cuda::Box box_of(const Problem& p, const std::vector<int>& tokens) {
  cuda::Box box;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::size_t axis = tokens.size() - 1 - i;
    box.tokens[i] = tokens[axis];
    box.step[i] = tokens[axis] == 1 ? 1 : dilation_of(p, axis);
  }
  return box;
}

std::vector<std::int64_t> box_words(const Problem& p, const plan::TileShape& shape, plan::Side columns) {
  std::vector<std::int64_t> words;
  for (const std::vector<int>* tile : {&shape.q, &shape.k})
    for (const int tokens : tokens_of_copy(p, *tile)) words.push_back(tokens);
  const std::vector<std::int64_t> of_columns = column_words(shape.of(columns));
  words.insert(words.end(), of_columns.begin(), of_columns.end());
  return words;
}

}  // namespace vicinal::runtime
