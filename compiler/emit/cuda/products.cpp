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

std::string product(std::string_view element, int columns, std::string_view a, std::string_view rest) {
  return fmt::format("wgmma.mma_async.sync.aligned.m64n{0}k16.f32.{1}.{1} {{{2}}}, {3}, {4};", columns,
                     element, placeholders(0, columns / 2), a, rest);
}

}  // namespace

std::string products_struct(DType dtype, int tile_k, int value_dim) {
  const std::string_view element = dtype == DType::bf16 ? "bf16" : "f16";
  const int scores = tile_k / 2, out = value_dim / 2;
  std::string text = "// Products of a warpgroup on the tensor cores.\nstruct Products {\n";
  text += fmt::format(
      "  // 64 queries times {} keys over 16 channels, both operands in shared memory.\n"
      "  static VICINAL_DEVICE void scores(float (&d)[{}], vicinal::u64 a, vicinal::u64 b, bool add) {{\n"
      "    asm volatile(\n        \"{{\\n\"\n        \".reg .pred add;\\n\"\n"
      "        \"setp.ne.b32 add, %{}, 0;\\n\"\n        \"{}\\n\"\n        \"}}\"\n"
      "        : {}\n        : \"l\"(a), \"l\"(b), \"r\"(static_cast<int>(add)));\n  }}\n",
      tile_k, scores, scores + 2,
      product(element, tile_k, fmt::format("%{}", scores), fmt::format("%{}, add, 1, 1, 0, 0", scores + 1)),
      in_and_out('f', scores));
  text += fmt::format(
      "  // Added to the output: weights of 16 keys, in registers, times {} channels of their values.\n"
      "  static VICINAL_DEVICE void values(float (&d)[{}], vicinal::u32 a, vicinal::u32 b, vicinal::u32 c, "
      "vicinal::u32 e,\n                                    vicinal::u64 tile) {{\n"
      "    asm volatile(\n        \"{}\"\n        : {}\n"
      "        : \"r\"(a), \"r\"(b), \"r\"(c), \"r\"(e), \"l\"(tile));\n  }}\n",
      value_dim, out,
      product(element, value_dim, fmt::format("{{{}}}", placeholders(out, 4)),
              fmt::format("%{}, 1, 1, 1, 1", out + 4)),
      in_and_out('f', out));
  text += "  // Keeps the compiler from moving accumulators past the instructions around them.\n";
  for (const int count : std::set{scores, out}) text += hold("float", 'f', count);
  text += hold("vicinal::u32", 'r', tile_k / 4);
  return text + "};\n\n";
}

}  // namespace vicinal::emit
