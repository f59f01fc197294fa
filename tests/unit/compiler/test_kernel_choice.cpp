// Which kernels run a variant, and how the tensor-core kernel is cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "compiler/emit/cuda/kernel_choice.h"
#include "tests/unit/compiler/compile_text.h"

namespace vicinal::testing {
namespace {

using emit::KernelKind;

emit::KernelOptions options(DType dtype, int head_dim = 64, int value_dim = 64) {
  emit::KernelOptions o;
  o.dtype = dtype;
  o.head_dim = head_dim;
  o.value_dim = value_dim;
  return o;
}

// Of a block with these statements, on a device.
std::string_view fastest(const std::string& statements, DType dtype, int capability) {
  const CompiledText text = compile_block(statements);
  REQUIRE_MESSAGE(!text.sink.has_errors(), text.messages());
  const emit::Choice choice =
      emit::choose_fastest(text.variants.at(0).specialized, options(dtype), capability);
  REQUIRE_MESSAGE(!choice.candidates.empty(), choice.why);
  return emit::name_of(choice.candidates.front().kind);
}

std::string why_not(KernelKind kind, const std::string& statements, int capability) {
  const CompiledText text = compile_block(statements);
  REQUIRE_MESSAGE(!text.sink.has_errors(), text.messages());
  return emit::choose(kind, text.variants.at(0).specialized, options(DType::bf16), capability).why;
}

}  // namespace

TEST_CASE("the fastest kernel that runs a variant on a device") {
  CHECK(fastest("mask = k <= q", DType::bf16, 90) == "hopper");
  CHECK(fastest("mask = k <= q", DType::bf16, 80) == "mma");
  CHECK(fastest("mask = k <= q", DType::bf16, 120) == "mma");
  CHECK(fastest("mask = k <= q", DType::bf16, 75) == "portable");
  CHECK(fastest("mask = k <= q", DType::f32, 90) == "mma");
  CHECK(fastest("normalize = sigmoid", DType::f16, 90) == "mma");
  CHECK(fastest("axis y { }\naxis x { }", DType::f16, 90) == "hopper");
  CHECK(fastest("axis n { }\naxis t { }\naxis y { }\naxis x { }", DType::f16, 90) == "mma");
  const std::string sums =
      "  input x: float[heads, tokens, d]\n  input y: float[keys, d]\n"
      "  score = score + dot(x[h, q, :], y[k, :])\n";
  CHECK(fastest(sums, DType::bf16, 90) == "portable");
  CHECK(why_not(KernelKind::mma, sums, 80).find("sums over inputs") != std::string::npos);
  CHECK(why_not(KernelKind::mma, "", 75).find("8.0 or more, and this one has 7.5") != std::string::npos);
  CHECK(why_not(KernelKind::hopper, "", 100).find("9.0, and this one has 10.0") != std::string::npos);
  CHECK(why_not(KernelKind::portable, "", 75).empty());
}

TEST_CASE("every dim has schedules of the tensor-core kernel, and the last ones fit on small devices") {
  // Dynamic shared memory that a block may ask for, beside some KiB of static: sm_80, sm_86.
  constexpr int kLarge = 163 * 1024, kSmall = 99 * 1024, kStatic = 16 * 1024;
  for (int head = 8; head <= 256; head += 8)
    for (const int value : {8, 64, 72, 128, 136, 192, 256})
      for (const int bytes : {2, 4})
        for (const bool computes : {false, true}) {
          CAPTURE(head);
          CAPTURE(value);
          CAPTURE(bytes);
          const emit::MmaNeeds needs{head, value, bytes, computes};
          const std::vector<emit::MmaSchedule> schedules = emit::mma_schedules(needs);
          REQUIRE(!schedules.empty());
          CHECK(schedules.back().shared_bytes(head, value) + kStatic <= kLarge);
          if (bytes == 2) CHECK(schedules.back().shared_bytes(head, value) <= kSmall);
          const std::vector<emit::MmaSchedule> all = emit::mma_variations(needs);
          CHECK(std::equal(schedules.begin(), schedules.end(), all.begin()));
          std::set<std::string> names;
          for (const emit::MmaSchedule& s : all) {
            // Whole blocks of 16 rows for every warp, whole chunks, and a bit of 64 for every pair of a
            // thread in a chunk.
            CHECK(s.tile_q % (16 * s.warps) == 0);
            CHECK(s.tile_k % s.chunk == 0);
            CHECK(s.chunk % 16 == 0);
            CHECK(s.tile_q / s.warps * s.chunk <= 32 * 64);
            names.insert(emit::print(s));
          }
          CHECK(names.size() == all.size());  // a record of a measurement tells them apart
        }
}

TEST_CASE("the precision of fp32 products is the kernel's own") {
  const CompiledText text = compile_block("mask = k <= q");
  const emit::Specialized& variant = text.variants.at(0).specialized;
  const auto source = [&](DType dtype, Precision precision) {
    emit::KernelOptions o = options(dtype);
    o.precision = precision;
    return emit::emit_cuda(variant, emit::choose(KernelKind::mma, variant, o, 80).candidates.at(0));
  };
  const emit::KernelSource ieee = source(DType::f32, Precision::ieee),
                           tf32 = source(DType::f32, Precision::tf32);
  CHECK(ieee.entry != tf32.entry);
  CHECK(ieee.text.find("split = true") != std::string::npos);
  CHECK(tf32.text.find("split = false") != std::string::npos);
  CHECK(source(DType::bf16, Precision::ieee).text == source(DType::bf16, Precision::tf32).text);
}

}  // namespace vicinal::testing
