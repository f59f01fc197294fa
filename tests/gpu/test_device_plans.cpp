// Tile plans that the device makes, against those of the host: on the device no more is left out and no more
// is called full.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "runtime/cuda/device_info.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "tests/support/device_problem.h"
#include "tests/support/gallery.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

std::optional<cuda::Context> context_or_skip() {
  const Result<const cuda::DriverApi*> api = cuda::driver();
  const Result<cuda::NvrtcCompiler> nvrtc = runtime::Engine::process().value()->nvrtc();
  if (!api || !nvrtc) {
    MESSAGE("skipped: ", (!api ? api.error() : nvrtc.error()).message);
    return std::nullopt;
  }
  return cuda::Context::primary(**api, 0).value();
}

struct Job {
  std::string name;
  Spec spec;
  std::optional<Kernel> host;  // its module, inputs' dtypes and masks
  std::optional<runtime::DevicePlanner> planner;
  std::string error;
};

// Of variants that have a mask.
std::vector<Job> planners(const cuda::Context& context, std::vector<Job> jobs) {
  const int capability = cuda::device_info(context.api(), context.device()).value().capability();
  host::parallel_for(static_cast<std::int64_t>(jobs.size()), host::default_threads(), [&](std::int64_t n) {
    Job& job = jobs[static_cast<std::size_t>(n)];
    CompileOptions options;
    options.backend = Backend::interpreter;
    options.dtype = DType::f32;
    options.head_dim = 8;
    std::mt19937 random(static_cast<unsigned>(n));
    options.input_dtypes = random_input_dtypes(job.spec, random);
    job.host = compile(job.spec, options).value();
    const Kernel::Impl& impl = job.host->impl();
    if (!emit::has_mask(impl.variant.specialized)) return;
    emit::KernelOptions how;
    how.head_dim = how.value_dim = 8;
    for (const ir::Input& input : impl.variant.checked.module.inputs) {
      const auto named = options.input_dtypes.find(input.name);
      how.input_dtypes.push_back(named == options.input_dtypes.end() ? emit::default_input_dtype(input.type)
                                                                     : named->second);
    }
    Result<runtime::DevicePlanner> planner =
        runtime::DevicePlanner::make(*runtime::Engine::process().value(), context, impl.variant.specialized,
                                     how, runtime::arch_name(capability));
    if (planner)
      job.planner = *std::move(planner);
    else
      job.error = planner.error().message;
  });
  return jobs;
}

struct Tally {
  std::int64_t tiles = 0, visited = 0, full = 0, spared = 0, overflown = 0;  // spared: by the host alone
  std::int64_t unsound = 0;
};

std::vector<int> marks(const std::vector<plan::Run>& runs, std::int64_t tiles) {
  std::vector<int> result(static_cast<std::size_t>(tiles));  // 1 partial, 2 full
  std::uint32_t end = 0;
  for (const plan::Run& run : runs) {
    REQUIRE(run.begin >= end);
    REQUIRE(run.begin < run.end());
    REQUIRE(run.end() <= tiles);
    for (end = run.begin; end < run.end(); ++end) result[end] = run.full() ? 2 : 1;
  }
  return result;
}

void compare(const cuda::Context& context, const Job& job, Problem& problem, const plan::TileShape& shape,
             Tally& tally) {
  const cuda::ContextScope scope(context);
  const cuda::Stream stream = cuda::Stream::create(context.api()).value();
  const RunArguments arguments = problem.arguments();
  Plan::Impl there, here;
  here.problem = job.host->impl().bind(arguments).value();
  here.shape = there.shape = shape;
  here.tiles.emplace(plan::plan_tiles(job.host->impl().masks(), here.problem, shape, {}).value());

  there.problem = here.problem;
  std::vector<cuda::DeviceBuffer> buffers;
  const ir::Module& module = job.host->impl().variant.checked.module;
  for (std::size_t i = 0; i < module.inputs.size(); ++i) {
    if (there.problem.inputs[i].data == nullptr) continue;
    const HostTensor& host = problem.inputs.at(module.inputs[i].name);
    buffers.push_back(cuda::DeviceBuffer::copy_of(context.api(), host.bytes()).value());
    there.problem.inputs[i].data = reinterpret_cast<void*>(
        buffers.back().address() + static_cast<std::uint64_t>(host.origin()) * size_of(host.dtype()));
  }
  there.context = context;
  there.layout = job.planner->layout(there.problem, shape).value();
  there.workspace = cuda::DeviceBuffer::allocate(context.api(), there.layout->bytes).value();
  there.workspace.fill(0xff, stream.handle()).value();
  there.words = runtime::planned_words(*there.layout, there.workspace.address(), there.problem, shape);
  const Result<void> planned = job.planner->enqueue(there.problem, *there.layout, there.workspace.address(),
                                                    there.words, stream.handle());
  REQUIRE_MESSAGE(planned.has_value(), (planned ? "" : planned.error().message));
  const auto device = runtime::list_rows(there, stream.handle()).value();
  const auto host = runtime::list_rows(here, nullptr).value();
  const plan::TileGrid grid(here.problem, shape);
  REQUIRE(static_cast<std::int64_t>(device.size()) == grid.rows() * there.layout->slices.count());
  REQUIRE(device.size() == host.size());
  for (std::size_t n = 0; n < device.size(); ++n) {
    plan::Row row;
    grid.row(static_cast<std::int64_t>(n) % grid.rows(), row);
    const std::vector<int> got = marks(device[n], row.tiles), want = marks(host[n], row.tiles);
    tally.overflown += host[n].size() > static_cast<std::size_t>(there.layout->run_capacity);
    for (std::size_t t = 0; t < got.size(); ++t) {
      ++tally.tiles;
      tally.visited += got[t] != 0;
      tally.full += got[t] == 2;
      tally.spared += got[t] == 1 && want[t] != 1;
      tally.unsound += (got[t] == 0 && want[t] != 0) || (got[t] == 2 && want[t] != 2);
    }
  }
}

void check(const cuda::Context& context, const std::vector<Job>& jobs, std::int64_t tokens) {
  std::mt19937 random(23);
  Tally tally;
  int variants = 0;
  for (const Job& job : jobs) {
    CAPTURE(job.name);
    CHECK_MESSAGE(job.error.empty(), job.error);
    if (!job.planner) continue;
    std::optional<Problem> problem = random_problem(*job.host, random, {.tokens = tokens});
    if (!problem) continue;
    ++variants;
    const std::size_t rank = job.host->impl().bind(problem->arguments()).value().q_axis.size();
    for (int n = 0; n < 2; ++n) {
      const plan::TileShape shape = random_tile_shape(rank, random);
      CAPTURE(plan::print(shape));
      const std::int64_t before = tally.unsound;
      compare(context, job, *problem, shape, tally);
      CHECK(tally.unsound == before);
    }
  }
  MESSAGE(
      fmt::format("{} variants, {} tiles: {} visited, {} of them full; {} partial that the host settles, {} "
                  "rows of more runs than there is room for",
                  variants, tally.tiles, tally.visited, tally.full, tally.spared, tally.overflown));
  CHECK(tally.full > tally.tiles / 50);
  CHECK(tally.visited < tally.tiles * 9 / 10);
}

}  // namespace

TEST_CASE("device plans: the gallery") {
  const auto context = context_or_skip();
  if (!context) return;
  std::vector<Job> jobs;
  for (const GalleryBlock& block : gallery()) jobs.push_back({block.name, block.spec, {}, {}, {}});
  check(*context, planners(*context, std::move(jobs)), 300);
}

TEST_CASE("device plans: random masks") {
  const auto context = context_or_skip();
  if (!context) return;
  std::vector<Job> jobs;
  for (unsigned seed = 1; seed <= 300; ++seed) {
    const std::string text = random_spec(seed, true).mask_only;
    jobs.push_back({text, Spec::from_string(text).value(), {}, {}, {}});
  }
  check(*context, planners(*context, std::move(jobs)), 60);
}

TEST_CASE("device plans: a captured run plans again, a prepared one is held to its data") {
  const auto context = context_or_skip();
  if (!context) return;
  const Spec spec =
      Spec::from_string("attention t {\n input doc: int[tokens]\n mask = doc[q] == doc[k] and k <= q\n}")
          .value();
  CompileOptions options;
  options.backend = Backend::cuda;
  options.dtype = DType::f32;
  options.head_dim = 8;
  const Kernel kernel = compile(spec, options).value();
  constexpr std::int64_t tokens = 1000;
  const cuda::ContextScope scope(*context);
  const cuda::Stream stream = cuda::Stream::create(context->api()).value();
  const auto buffer = [&](std::span<const std::byte> bytes) {
    return cuda::DeviceBuffer::copy_of(context->api(), bytes).value();
  };
  // Of zero queries and keys the output is the mean of the values that are kept; those count the tokens.
  std::vector<float> zeros(tokens * 8), counting(tokens * 8);
  for (std::size_t i = 0; i < counting.size(); ++i) counting[i] = static_cast<float>(i / 8);
  std::vector<std::int32_t> doc(tokens);
  const cuda::DeviceBuffer qk = buffer(std::as_bytes(std::span(zeros))),
                           v = buffer(std::as_bytes(std::span(counting))),
                           out = buffer(std::as_bytes(std::span(zeros)));
  cuda::DeviceBuffer docs = buffer(std::as_bytes(std::span(doc)));
  const auto tensor = [](const cuda::DeviceBuffer& b, DType dtype, std::vector<std::int64_t> shape) {
    return Tensor{reinterpret_cast<void*>(b.address()), dtype, std::move(shape)};
  };
  const std::vector<std::int64_t> shape = {1, 1, tokens, 8};
  RunArguments a{.q = tensor(qk, DType::f32, shape),
                 .k = tensor(qk, DType::f32, shape),
                 .v = tensor(v, DType::f32, shape),
                 .out = tensor(out, DType::f32, shape),
                 .inputs = {{"doc", tensor(docs, DType::i32, {tokens})}}};
  const std::size_t wanted = kernel.supports(a).value().workspace_bytes;
  REQUIRE(wanted > 0);
  const cuda::DeviceBuffer workspace = cuda::DeviceBuffer::allocate(context->api(), wanted).value();
  a.workspace = {reinterpret_cast<void*>(workspace.address()), wanted - 1};
  const Result<void> small = kernel.run(a, stream.handle());
  REQUIRE(!small.has_value());
  CHECK(small.error().message.find("the workspace has") != std::string::npos);
  a.workspace = {reinterpret_cast<void*>(workspace.address() + 8), wanted};
  const Result<void> crooked = kernel.run(a, stream.handle());
  REQUIRE(!crooked.has_value());
  CHECK(crooked.error().message.find("aligned") != std::string::npos);
  a.workspace = {reinterpret_cast<void*>(workspace.address()), wanted};

  const cuda::Graph graph = cuda::Graph::capture(context->api(), stream.handle(), [&] {
                              return kernel.run(a, stream.handle());
                            }).value();
  RunArguments without = a;
  without.workspace = {};
  std::optional<Plan> plan;
  for (const std::int32_t length : {1000, 37, 200}) {
    CAPTURE(length);
    for (std::size_t i = 0; i < doc.size(); ++i) doc[i] = static_cast<std::int32_t>(i) / length;
    docs.write(std::as_bytes(std::span(doc)), stream.handle()).value();
    if (plan) {
      const auto stale =
          kernel.impl().check(kernel.impl().bind(without).value(), plan->impl(), stream.handle());
      REQUIRE(!stale.has_value());
      CHECK(stale.error().message.find("other contents") != std::string::npos);
    }
    plan = kernel.prepare(without, stream.handle()).value();
    CHECK(plan->depends_on_data());
    CHECK(
        kernel.impl().check(kernel.impl().bind(without).value(), plan->impl(), stream.handle()).has_value());
    for (const bool captured : {true, false}) {
      if (captured)
        graph.launch(stream.handle()).value();
      else
        kernel.run(without, *plan, stream.handle()).value();
      std::vector<float> got(zeros.size());
      out.read(std::as_writable_bytes(std::span(got)), stream.handle()).value();
      stream.synchronize().value();
      int wrong = 0;
      for (std::int64_t i = 0; i < tokens; ++i) {
        const double want = (static_cast<double>(i / length * length) + static_cast<double>(i)) / 2;
        wrong +=
            std::fabs(static_cast<double>(got[static_cast<std::size_t>(i * 8)]) - want) > 1e-3 * (1 + want);
      }
      CHECK(wrong == 0);
    }
  }

  // Nothing to compute.
  const auto empty = [&](std::vector<std::int64_t> queries, std::vector<std::int64_t> keys) {
    RunArguments none = without;
    none.q = tensor(qk, DType::f32, queries), none.out = tensor(out, DType::f32, std::move(queries));
    none.k = tensor(qk, DType::f32, keys), none.v = tensor(v, DType::f32, std::move(keys));
    const Plan nothing = kernel.prepare(none, stream.handle()).value();
    kernel.run(none, nothing, stream.handle()).value();
    none.workspace = a.workspace;
    kernel.run(none, stream.handle()).value();
    stream.synchronize().value();
  };
  empty({0, 1, tokens, 8}, {0, 1, tokens, 8});
  empty({1, 0, tokens, 8}, {1, 0, tokens, 8});
}

}  // namespace vicinal::testing
