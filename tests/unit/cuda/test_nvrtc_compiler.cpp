// Compiles hand-written variants for several architectures, with no GPU needed. Times are printed, since they
// are a promise; spills are read from ptxas's own report.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "runtime/cuda/nvrtc_compiler.h"
#include "templates/embed/bundle.h"
#include "tests/support/example_variants.h"

namespace vicinal::cuda {
namespace {

using testing::Example;
using testing::ExampleKernel;

std::optional<NvrtcCompiler> compiler_or_skip() {
  const char* path = std::getenv("VICINAL_NVRTC");
  auto compiler = NvrtcCompiler::open(path ? path : "");
  if (compiler) return *compiler;
  MESSAGE("skipped: ", compiler.error().message);
  return std::nullopt;
}

CompileRequest request_for(const ExampleKernel& kernel, const std::string& arch) {
  CompileRequest request{.source = testing::example_source(kernel),
                         .entry = std::string(testing::kExampleEntry),
                         .arch = arch,
                         .headers = {},
                         .options = {"--ptxas-options=-v"},
                         .ptx = false,
                         .time_limit = {}};
  for (const templates::Header& header : templates::bundle()) {
    request.headers.push_back({std::string(header.name), std::string(header.text)});
  }
  return request;
}

struct Usage {
  int registers = -1, stack = -1, spill_stores = -1, spill_loads = -1, shared = -1;
};

// The number that stands before the phrase in the log, as in "255 registers", or -1.
int number_before(const std::string& log, std::string_view phrase) {
  const size_t end = log.find(phrase);
  if (end == std::string::npos) return -1;
  size_t start = end;
  while (start > 0 && std::isdigit(static_cast<unsigned char>(log[start - 1]))) --start;
  return start == end ? -1 : std::stoi(log.substr(start, end - start));
}

Usage usage_of(const std::string& log) {
  return {number_before(log, " registers"), number_before(log, " bytes stack frame"),
          number_before(log, " bytes spill stores"), number_before(log, " bytes spill loads"),
          number_before(log, " bytes smem")};
}

std::string describe(const ExampleKernel& k, const std::string& arch) {
  return fmt::format("{:12} {:4} {:3}/{:3} {}x{} {}", name_of(k.example), name_of(k.dtype), k.head_dim,
                     k.value_dim, k.tile_q, k.tile_k, arch);
}

void compile_and_report(const NvrtcCompiler& compiler, const ExampleKernel& kernel, const std::string& arch) {
  INFO(describe(kernel, arch));
  const auto compiled = compiler.compile(request_for(kernel, arch));
  REQUIRE_MESSAGE(compiled.has_value(), (compiled ? "" : compiled.error().message));
  const Usage usage = usage_of(compiled->log);
  fmt::print("  {}: {:.0f} ms, {} registers, {} B spilled, {} B stack, {} B shared\n", describe(kernel, arch),
             compiled->milliseconds, usage.registers, usage.spill_stores, usage.stack, usage.shared);
  CHECK(compiled->cubin.size() > 0);
  CHECK(usage.registers > 0);
  CHECK(usage.shared <= 48 * 1024);
  // ptxas moves some words of addresses and flags out to fit one more block on a processor. A thread's
  // accumulators are 128 bytes: were they moved, it would show here.
  if (kernel.head_dim <= 128 && kernel.value_dim <= 128) {
    constexpr int kAccumulators = 4 * 8 * 4;
    CHECK(usage.spill_stores < kAccumulators);
    CHECK(usage.stack < kAccumulators);
  }
}

}  // namespace

TEST_CASE("nvrtc: every example compiles for every kind of architecture, without spills up to head dim 128") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  for (const std::string arch : {"sm_80", "sm_90a", "sm_100a", "sm_120a"}) {
    for (const Example example : testing::kExamples) {
      compile_and_report(*compiler,
                         {.example = example, .dtype = DType::bf16, .head_dim = 128, .value_dim = 128}, arch);
    }
  }
}

TEST_CASE("nvrtc: head dims, value dims, dtypes and tiles of the portable kernel") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  const ExampleKernel kernels[] = {
      {.example = Example::video, .dtype = DType::f32, .head_dim = 8, .value_dim = 8},
      {.example = Example::video, .dtype = DType::f16, .head_dim = 32, .value_dim = 32},
      {.example = Example::causal_alibi, .dtype = DType::f16, .head_dim = 64, .value_dim = 64},
      {.example = Example::causal_alibi, .dtype = DType::bf16, .head_dim = 72, .value_dim = 40},
      {.example = Example::everything, .dtype = DType::f32, .head_dim = 128, .value_dim = 128},
      {.example = Example::plain, .dtype = DType::bf16, .head_dim = 192, .value_dim = 128},
      {.example = Example::plain, .dtype = DType::f32, .head_dim = 256, .value_dim = 256},
      {.example = Example::plain,
       .dtype = DType::bf16,
       .head_dim = 64,
       .value_dim = 64,
       .tile_q = 16,
       .tile_k = 64},
      {.example = Example::plain,
       .dtype = DType::bf16,
       .head_dim = 64,
       .value_dim = 64,
       .tile_q = 32,
       .tile_k = 16},
  };
  for (const ExampleKernel& kernel : kernels) compile_and_report(*compiler, kernel, "sm_90a");
  compile_and_report(*compiler, {.example = Example::causal_alibi, .dtype = DType::bf16}, "sm_75");
}

TEST_CASE("nvrtc: the reference kernel compiles") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  const ExampleKernel kernel{.example = Example::video, .dtype = DType::bf16, .reference = true};
  const auto compiled = compiler->compile(request_for(kernel, "sm_90a"));
  REQUIRE_MESSAGE(compiled.has_value(), (compiled ? "" : compiled.error().message));
  fmt::print("  reference kernel: {:.0f} ms\n", compiled->milliseconds);
}

TEST_CASE("nvrtc: the same request gives the same bytes, and PTX when it is asked for") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  CompileRequest request = request_for({.example = Example::plain, .head_dim = 16, .value_dim = 16}, "sm_80");
  const auto first = compiler->compile(request);
  request.ptx = true;
  const auto second = compiler->compile(request);
  REQUIRE(first.has_value());
  REQUIRE(second.has_value());
  CHECK(first->cubin == second->cubin);
  CHECK(first->ptx.empty());
  CHECK(second->ptx.find(".target sm_80") != std::string::npos);
}

TEST_CASE("nvrtc: text that does not compile is our error and carries the log") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  const auto compiled = compiler->compile({.source = "int f() { return nothing; }",
                                           .entry = "f",
                                           .arch = "sm_80",
                                           .headers = {},
                                           .options = {},
                                           .ptx = false,
                                           .time_limit = {}});
  REQUIRE(!compiled);
  CHECK(compiled.error().kind == ErrorKind::internal);
  CHECK(compiled.error().message.find("vicinal.cu(1)") != std::string::npos);
  CHECK(compiled.error().message.find("nothing") != std::string::npos);
}

TEST_CASE("nvrtc: a broken contract is said in our words") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  CompileRequest request = request_for({.head_dim = 12}, "sm_80");
  const auto compiled = compiler->compile(request);
  REQUIRE(!compiled);
  CHECK(compiled.error().message.find("head dims are multiples of 8 from 8 to 256") != std::string::npos);
}

TEST_CASE("nvrtc: past the time limit the caller gets a limit error and the compile ends on its own") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  CompileRequest request = request_for({.example = Example::plain}, "sm_80");
  request.time_limit = std::chrono::milliseconds(1);
  const auto late = compiler->compile(request);
  REQUIRE(!late);
  CHECK(late.error().kind == ErrorKind::limit);
  request.time_limit = std::chrono::minutes(1);
  CHECK(compiler->compile(request).has_value());
}

TEST_CASE("nvrtc: version, digest and architectures") {
  const auto compiler = compiler_or_skip();
  if (!compiler) return;
  CHECK(compiler->major() >= 12);
  const auto digest = compiler->digest();
  REQUIRE(digest.has_value());
  CHECK(digest->size() == 64);
  CHECK(*digest == *compiler->digest());
  const auto archs = compiler->supported_archs();
  REQUIRE(archs.has_value());
  CHECK(std::find(archs->begin(), archs->end(), 90) != archs->end());
  fmt::print("  NVRTC {}.{} at {}, {}\n", compiler->major(), compiler->minor(), compiler->path().string(),
             fmt::join(compiler->fixed_options("sm_90a"), " "));
}

}  // namespace vicinal::cuda
