// A variant as CUDA source: a struct for its parameters, a struct for its expressions, and one kernel that
// hands both to templates/.
#pragma once

#include <vicinal/dtype.h>

#include <optional>
#include <string>
#include <vector>

#include "compiler/emit/cuda/hopper_schedules.h"
#include "compiler/emit/cuda/mma_schedules.h"
#include "compiler/emit/specialized.h"

namespace vicinal::emit {

// The kernels of templates/vicinal/kernels.
enum class KernelKind { portable, reference, mma, hopper };
inline constexpr KernelKind kKernelKinds[] = {KernelKind::hopper, KernelKind::mma, KernelKind::portable,
                                              KernelKind::reference};
std::string_view name_of(KernelKind kind);
std::optional<KernelKind> kernel_named(std::string_view name);

struct KernelOptions {
  KernelKind kind = KernelKind::portable;
  DType dtype = DType::bf16;  // of Q, K, V and the output: f32, f16 or bf16
  Precision precision = Precision::ieee;
  int head_dim = 128, value_dim = 128;
  int tile_q = 64, tile_k = 64;
  // Of a kernel that has schedules, whose tiles these are.
  HopperSchedule schedule;
  MmaSchedule mma;
  std::vector<DType> input_dtypes;  // by input; empty: f32, i32 and bool
};

// One member of the emitted Parameters, in order.
struct ParameterSlot {
  enum class Kind { param, extent, input } kind;
  std::uint32_t index;
};

struct KernelSource {
  std::string text;
  std::string entry;     // the extern "C" name
  int threads = 0;       // of a block
  int rows = 0;          // query rows of a block
  int shared_bytes = 0;  // dynamic
  std::vector<ParameterSlot> parameters;
};

KernelSource emit_cuda(const Specialized& variant, const KernelOptions& options);

// Changes whenever the emitter would print another text for the same variant.
inline constexpr std::string_view kEmitterVersion = "vicinal-cuda-8";

}  // namespace vicinal::emit
