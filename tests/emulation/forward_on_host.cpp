#include "tests/emulation/forward_on_host.h"

#include <fmt/format.h>

#include <cstring>

#include "runtime/hopper_boxes.h"
#include "runtime/hopper_launch.h"
#include "runtime/kernel_impl.h"
#include "runtime/tile_words.h"
#include "tests/emulation/tensor_map_on_host.h"

namespace vicinal::testing {
namespace {

int encode_on_host(void* to, cuda::TensorMapType, unsigned rank, void* data,
                   const unsigned long long* extents, const unsigned long long* strides,
                   const unsigned* spans, const unsigned* steps, cuda::TensorMapInterleave,
                   cuda::TensorMapSwizzle, cuda::TensorMapPromotion, cuda::TensorMapFill) {
  cuda_on_host::HostTensorMap map{};
  map.data = static_cast<char*>(data);
  for (unsigned i = 0; i < rank; ++i) {
    map.extent[i] = static_cast<std::int64_t>(extents[i]);
    map.stride[i] = i == 0 ? 2 : static_cast<std::int64_t>(strides[i - 1]);
    map.count[i] = static_cast<std::uint16_t>((spans[i] + steps[i] - 1) / steps[i]);
    map.step[i] = static_cast<std::uint16_t>(steps[i]);
  }
  std::memcpy(to, &map, sizeof map);
  return 0;
}

template <class T>
cuda::DevicePointer address(const std::vector<T>& list) {
  return reinterpret_cast<cuda::DevicePointer>(list.data());
}

}  // namespace

const cuda::DriverApi& driver_on_host() {
  static const cuda::DriverApi api = [] {
    cuda::DriverApi made;
    made.tensor_map_encode.address = encode_on_host;
    return made;
  }();
  return api;
}

std::optional<ForwardOnHost> ForwardOnHost::make(const Kernel& kernel, const emit::KernelOptions& options) {
  ForwardOnHost made;
  made.kernel_ = &kernel;
  made.options_ = options;
  made.source_ = emit::emit_cuda(kernel.impl().variant.specialized, options);
  const auto library = build_on_host(
      made.source_, made.hopper() ? "vicinal::hopper::LaunchArguments<emitted::Variant::Arguments>"
                                  : "emitted::Variant::Arguments");
  if (!library) return std::nullopt;
  made.library_ = *library;
  return made;
}

std::optional<std::string> ForwardOnHost::obstacle(const Problem& problem) const {
  const runtime::Problem bound = kernel_->impl().bind(problem.arguments()).value();
  if (!hopper()) return std::nullopt;
  if (auto found = runtime::hopper_tensor_obstacle(bound)) return found;
  if (shape(bound)) return std::nullopt;
  return "no boxes suit the copy engine";
}

std::optional<plan::TileShape> ForwardOnHost::shape(const runtime::Problem& bound) const {
  return runtime::find_shape(
      bound, options_.tile_q, options_.tile_k,
      hopper() ? runtime::hopper_shape_rules(bound, options_.schedule.skips) : plan::ShapeRules());
}

Result<void> ForwardOnHost::run(Problem& problem, unsigned blocks) const {
  const Kernel::Impl& impl = kernel_->impl();
  VICINAL_TRY(const runtime::Problem bound, impl.bind(problem.arguments()));
  if (const auto found = obstacle(problem)) return unexpected(ErrorKind::limit, *found);
  const std::optional<plan::TileShape> shape = this->shape(bound);
  VICINAL_TRY(const plan::TilePlan plan, plan::plan_tiles(impl.masks(), bound, *shape));
  const std::vector<runtime::RowRuns> rows = runtime::row_runs(plan);
  const cuda::TileWords tiles =
      plan.listed() ? runtime::tile_words(bound, *shape, plan.slices(), address(rows), address(plan.runs()))
                    : runtime::tile_words(bound, *shape);
  VICINAL_TRY(
      const runtime::Launch launch,
      runtime::prepare_launch(source_, options_, impl.variant.specialized.declarations(), bound, tiles));
  unsigned counters[2] = {};
  std::vector<std::byte> bytes;
  if (hopper()) {
    VICINAL_TRY(bytes, runtime::hopper_prefix(driver_on_host(), bound, *shape,
                                              reinterpret_cast<cuda::DevicePointer>(counters), true));
  }
  bytes.insert(bytes.end(), launch.arguments.begin(), launch.arguments.end());
  library_.symbol<Entry>("emulate")(bytes.data(), blocks, launch.shape.block.x);
  return {};
}

}  // namespace vicinal::testing
