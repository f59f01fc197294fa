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

}  // namespace

std::string products_struct(const KernelOptions& options) {
  const std::string_view element = options.dtype == DType::bf16 ? "bf16" : "f16";
  const int tile_q = options.schedule.tile_q, tile_k = options.schedule.tile_k;
  const int scores = tile_k / 2, out = options.value_dim / 2, weights = tile_k / 4;
  std::string text = "// Products of a warpgroup on the tensor cores, put under way.\nstruct Products {\n";

  Product first(element, tile_k);
  for (int d = 0; d < options.head_dim; d += kStep) {
    const int slab = d / kSlabChannels * kSlabRowBytes, inside = d % kSlabChannels * 2;
    const std::string a = first.descriptor("queries", slab * tile_q + inside),
                      b = first.descriptor("keys", slab * tile_k + inside);
    first.multiply(fmt::format("{}, {}, {}, 1, 1, 0, 0", a, b, d == 0 ? 0 : 1));
  }
  text += fmt::format(
      "  // 64 queries times {} keys over {} channels, given by their descriptors.\n"
      "  static VICINAL_DEVICE void scores(float (&d)[{}], vicinal::u64 queries, vicinal::u64 keys) {{\n{}  "
      "}}\n",
      tile_k, options.head_dim, scores, first.statements());

  Product second(element, options.value_dim);
  for (int k = 0; k < tile_k; k += kStep) {
    const std::string a = second.registers("a", k / 4, 4), b = second.descriptor("values", k * kSlabRowBytes);
    second.multiply(fmt::format("{}, {}, 1, 1, 1, 1", a, b));
  }
  text += fmt::format(
      "  // Added to the output: weights of {} keys times {} channels of their values, given by a "
      "descriptor.\n"
      "  static VICINAL_DEVICE void values(float (&d)[{}], const vicinal::u32 (&a)[{}],\n"
      "                                    vicinal::u64 values) {{\n{}  }}\n",
      tile_k, options.value_dim, out, weights, second.statements());

  text += "  // Keeps the compiler from moving accumulators past the instructions around them.\n";
  for (const int count : std::set{scores, out}) text += hold("float", 'f', count);
  text += hold("vicinal::u32", 'r', weights);
  return text + "};\n\n";
}

}  // namespace vicinal::emit
