#include "compiler/emit/cuda/products.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <vector>

namespace vicinal::emit {
namespace {

// "%0, %1, ..." from first on.
std::string placeholders(int first, int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(fmt::format("%{}", first + i));
  return fmt::format("{}", fmt::join(names, ", "));
}

// "+f"(d[0]), ... with line breaks.
std::string in_and_out(char constraint, int count) {
  std::string out;
  for (int i = 0; i < count; ++i)
    out += fmt::format("{}\"+{}\"(d[{}])", i == 0 ? "" : i % 8 == 0 ? ",\n          " : ", ", constraint, i);
  return out;
}

// The registers of an accumulator stay where they are until here, whatever the compiler knows of them.
std::string hold(std::string_view type, char constraint, int count) {
  return fmt::format(
      "  static VICINAL_DEVICE void hold({} (&d)[{}]) {{\n    asm volatile(\"\"\n        : {}\n        :\n"
      "        : \"memory\");\n  }}\n",
      type, count, in_and_out(constraint, count));
}

// Operand tiles lie in slabs of 64 channels, in rows of 128 bytes; a descriptor counts in 16 bytes.
constexpr int kSlabChannels = 64, kSlabRowBytes = 128, kDescriptorUnit = 16, kStep = 16;

// The instructions of a product, as many to an asm statement as uniform registers can hold the descriptors
// of: what the compiler spends on a statement grows with its operands, and each instruction names the whole
// accumulator.
class Product {
 public:
  Product(std::string_view element, int columns)
      : element_(element), columns_(columns), operands_(columns / 2) {}

  // Names of new inputs.
  std::string registers(std::string_view array, int first, int count) {
    for (int i = 0; i < count; ++i) input("r", fmt::format("{}[{}]", array, first + i));
    return fmt::format("{{{}}}", placeholders(operands_ - count, count));
  }
  std::string descriptor(std::string_view name, int bytes) {
    input("l", bytes == 0 ? std::string(name) : fmt::format("{} + {}", name, bytes / kDescriptorUnit));
    return placeholders(operands_ - 1, 1);
  }
  void multiply(std::string_view operands) {
    instructions_ +=
        fmt::format("        \"wgmma.mma_async.sync.aligned.m64n{0}k16.f32.{1}.{1} {{{2}}}, {3};\\n\"\n",
                    columns_, element_, placeholders(0, columns_ / 2), operands);
    if (++count_ % kMostInstructions == 0) end_statement();
  }
  std::string statements() {
    if (!instructions_.empty()) end_statement();
    return "    asm volatile(\"wgmma.fence.sync.aligned;\" ::: \"memory\");\n" + text_ +
           "    asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\");\n";
  }

 private:
  static constexpr int kMostInstructions = 8;

  void end_statement() {
    text_ += fmt::format("    asm volatile(\n{}        : {}\n        : {}\n        : \"memory\");\n",
                         instructions_, in_and_out('f', columns_ / 2), inputs_);
    instructions_ = inputs_ = {};
    operands_ = columns_ / 2;
  }
  void input(std::string_view constraint, const std::string& value) {
    const int i = operands_++ - columns_ / 2;
    inputs_ += fmt::format("{}\"{}\"({})",
                           i == 0       ? ""
                           : i % 8 == 0 ? ",\n          "
                                        : ", ",
                           constraint, value);
  }

  std::string_view element_;
  int columns_, operands_, count_ = 0;
  std::string instructions_, inputs_, text_;
};

std::string_view element_of(const KernelOptions& options) {
  return options.dtype == DType::bf16 ? "bf16" : "f16";
}

// d = A * B of operands whose channels follow each other, over so many channels: rows of the first, of which
// the tile has so many, by rows of the second.
std::string product_of_rows(std::string_view element, int columns, int channels, int rows,
                            std::string_view first, std::string_view second) {
  Product product(element, columns);
  for (int d = 0; d < channels; d += kStep) {
    const int slab = d / kSlabChannels * kSlabRowBytes, inside = d % kSlabChannels * 2;
    const std::string a = product.descriptor(first, slab * rows + inside),
                      b = product.descriptor(second, slab * columns + inside);
    product.multiply(fmt::format("{}, {}, {}, 1, 1, 0, 0", a, b, d == 0 ? 0 : 1));
  }
  return product.statements();
}

// d += A * B of weights in registers and rows of the second.
std::string product_of_weights(std::string_view element, int columns, int rows, std::string_view second) {
  Product product(element, columns);
  for (int k = 0; k < rows; k += kStep) {
    const std::string a = product.registers("a", k / 4, 4), b = product.descriptor(second, k * kSlabRowBytes);
    product.multiply(fmt::format("{}, {}, 1, 1, 1, 1", a, b));
  }
  return product.statements();
}

std::string holds(const std::set<int>& sums, int weights) {
  std::string text = "  // Keeps the compiler from moving accumulators past the instructions around them.\n";
  for (const int count : sums) text += hold("float", 'f', count);
  return text + hold("vicinal::u32", 'r', weights) + "};\n\n";
}

}  // namespace

std::string products_struct(const KernelOptions& options) {
  const std::string_view element = element_of(options);
  const int tile_q = options.schedule.tile_q, tile_k = options.schedule.tile_k;
  const int scores = tile_k / 2, out = options.value_dim / 2, weights = tile_k / 4;
  std::string text = "// Products of a warpgroup on the tensor cores, put under way.\nstruct Products {\n";
  text += fmt::format(
      "  // 64 queries times {} keys over {} channels, given by their descriptors.\n"
      "  static VICINAL_DEVICE void scores(float (&d)[{}], vicinal::u64 queries, vicinal::u64 keys) {{\n{}  "
      "}}\n",
      tile_k, options.head_dim, scores,
      product_of_rows(element, tile_k, options.head_dim, tile_q, "queries", "keys"));
  text += fmt::format(
      "  // Added to the output: weights of {} keys times {} channels of their values, given by a "
      "descriptor.\n"
      "  static VICINAL_DEVICE void values(float (&d)[{}], const vicinal::u32 (&a)[{}],\n"
      "                                    vicinal::u64 values) {{\n{}  }}\n",
      tile_k, options.value_dim, out, weights,
      product_of_weights(element, options.value_dim, tile_k, "values"));
  return text + holds({scores, out}, weights);
}

std::string backward_products_struct(const KernelOptions& options, int tile_q) {
  const std::string_view element = element_of(options);
  constexpr int kTileK = 128, kGroups = 2;
  const int head = options.head_dim, value = options.value_dim, scores = tile_q / 2, weights = tile_q / 4;
  // Two groups share a tile of 64 queries by channels, one of 128 by queries.
  const int columns = tile_q == 64 ? head / kGroups : head;
  std::string text = "// Products of a warpgroup on the tensor cores, put under way.\nstruct Products {\n";
  const auto of_rows = [&](std::string_view what, std::string_view name, std::string_view first,
                           std::string_view second, int channels) {
    text += fmt::format(
        "  // {}, over {} channels, given by their descriptors.\n"
        "  static VICINAL_DEVICE void {}(float (&d)[{}], vicinal::u64 {}, vicinal::u64 {}) {{\n{}  }}\n",
        what, channels, name, scores, first, second,
        product_of_rows(element, tile_q, channels, kTileK, first, second));
  };
  const auto of_weights = [&](std::string_view what, std::string_view name, std::string_view rows, int dim) {
    text += fmt::format(
        "  // {}, given by their descriptor.\n"
        "  static VICINAL_DEVICE void {}(float (&d)[{}], const vicinal::u32 (&a)[{}], vicinal::u64 {}) {{\n"
        "{}  }}\n",
        what, name, dim / 2, weights, rows, product_of_weights(element, dim, tile_q, rows));
  };
  of_rows("64 keys times the queries", "scores", "keys", "queries", head);
  of_rows("Their values times the gradients of the output", "d_weights", "values", "d_out", value);
  of_weights("Added: weights of 64 keys times the gradients of the output", "d_values", "d_out", value);
  of_weights("Added: gradients of scores times the queries", "d_keys", "queries", head);
  Product last(element, columns);
  for (int k = 0; k < kTileK; k += kStep) {
    const int slab = k / kSlabChannels * kSlabRowBytes, inside = k % kSlabChannels * 2;
    const std::string a = last.descriptor("scores", slab * tile_q + inside),
                      b = last.descriptor("keys", k * kSlabRowBytes);
    last.multiply(fmt::format("{}, {}, {}, 1, 1, 0, 1", a, b, k == 0 ? 0 : 1));
  }
  text += fmt::format(
      "  // Gradients of the scores of 64 queries times {} channels of the keys, given by their "
      "descriptors.\n"
      "  static VICINAL_DEVICE void d_queries(float (&d)[{}], vicinal::u64 scores, vicinal::u64 keys) {{\n{}"
      "  }}\n",
      columns, columns / 2, last.statements());
  return text + holds({scores, head / 2, value / 2, columns / 2}, weights);
}

}  // namespace vicinal::emit
