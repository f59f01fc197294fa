// A variant as CUDA source: a struct for its parameters, a struct for its expressions, and one kernel that
// hands both to templates/.
#pragma once

#include <vicinal/dtype.h>

#include <optional>
#include <string>
#include <vector>

#include "compiler/emit/cuda/hopper_schedules.h"
#include "compiler/emit/specialized.h"

namespace vicinal::emit {

// The kernels of templates/vicinal/kernels.
enum class KernelKind { portable, reference, hopper };
std::string_view name_of(KernelKind kind);

struct KernelOptions {
  KernelKind kind = KernelKind::portable;
  DType dtype = DType::bf16;  // of Q, K, V and the output: f32, f16 or bf16
  int head_dim = 128, value_dim = 128;
  int tile_q = 64, tile_k = 64;
  HopperSchedule schedule;          // of a Hopper kernel, whose tiles these are
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

// Why the Hopper kernel does not run a variant with these options; nothing where it does.
std::optional<std::string> hopper_obstacle(const Specialized& variant, const KernelOptions& options);
// The ways to cut it then, best first: schedules and the tiles that go with them.
std::vector<KernelOptions> hopper_candidates(const Specialized& variant, const KernelOptions& options,
                                             bool variations = false);

// Changes whenever the emitter would print another text for the same variant.
inline constexpr std::string_view kEmitterVersion = "vicinal-cuda-5";

}  // namespace vicinal::emit
