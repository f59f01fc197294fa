#include "runtime/device_planner.h"

#include "runtime/cuda/launch.h"
#include "runtime/cuda_kernel.h"

namespace vicinal::runtime {

Result<DevicePlanner> DevicePlanner::make(Engine& engine, const cuda::Context& context,
                                          const emit::Specialized& variant,
                                          const emit::KernelOptions& options, const std::string& arch,
                                          emit::TileList list) {
  emit::PlannerSource source = emit::emit_planner(variant, options, list);
  VICINAL_TRY(const CompiledCubin compiled, compile_cubin(engine, source.rows, arch));
  const std::string& binary = compiled.kernel.payload->binary;
  const auto bytes = std::as_bytes(std::span(binary.data(), binary.size()));
  VICINAL_TRY(cuda::LoadedKernel rows, cuda::LoadedKernel::load(context, bytes, source.rows.entry));
  DevicePlanner planner(variant.declarations(), options, std::move(source), std::move(rows));
  if (!planner.source_.tables.empty()) {
    VICINAL_TRY(planner.tables_, cuda::LoadedKernel::load(context, bytes, planner.source_.tables_entry));
  }
  return planner;
}

Result<void> DevicePlanner::enqueue(const Problem& problem, const PlannerLayout& layout,
                                    cuda::DevicePointer memory, const cuda::TileWords& tiles,
                                    cuda::StreamHandle stream) const {
  VICINAL_TRY(const auto launch, prepare_planner(source_, options_, module_, problem, layout, memory, tiles));
  if (!launch) return {};
  if (tables_ && launch->tables)
    VICINAL_TRY_VOID(cuda::launch(*tables_, stream, *launch->tables, launch->arguments));
  return cuda::launch(rows_, stream, launch->rows, launch->arguments);
}

}  // namespace vicinal::runtime
