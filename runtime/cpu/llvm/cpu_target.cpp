#include "runtime/cpu/llvm/cpu_target.h"

#include <llvm/MC/MCSubtargetInfo.h>
#include <llvm/Target/TargetMachine.h>

#include <algorithm>
#include <numeric>

namespace vicinal::cpu {

std::string CpuTarget::describe() const {
  return std::to_string(vector_bits) + "-bit vectors" + (fma ? ", fma" : "") + (half ? ", f16" : "");
}

llvm::Expected<CpuTarget> cpu_target(const std::string& name) {
  llvm::Expected<llvm::orc::JITTargetMachineBuilder> builder =
      llvm::orc::JITTargetMachineBuilder::detectHost();
  if (!builder) return builder.takeError();
  CpuTarget target{std::move(*builder)};
  target.builder.setCodeGenOptLevel(llvm::CodeGenOptLevel::Less);
  auto machine = target.builder.createTargetMachine();
  if (!machine) return machine.takeError();
  if (!name.empty()) {
    if (!(*machine)->getMCSubtargetInfo()->isCPUStringValid(name))
      return llvm::createStringError("LLVM knows no processor of the name " + name);
    target.builder.setCPU(name);
    target.builder.getFeatures() = llvm::SubtargetFeatures();
    machine = target.builder.createTargetMachine();
    if (!machine) return machine.takeError();
  }
  const llvm::MCSubtargetInfo& features = *(*machine)->getMCSubtargetInfo();
  const auto has = [&](const char* feature) { return features.checkFeatures(feature); };
  if (target.builder.getTargetTriple().isX86()) {
    const bool wide = has("+avx512f,+avx512vl,+avx512bw,+avx512dq");
    target.vector_bits = wide ? 512 : has("+avx2") ? 256 : 128;
    target.many_registers = wide;
    target.fma = has("+fma");
    target.half = has("+f16c");
  } else if (target.builder.getTargetTriple().isAArch64()) {
    target.many_registers = target.fma = target.half = true;
  }
  return target;
}

bool CpuTarget::is_part_of(const CpuTarget& other) const {
  return vector_bits <= other.vector_bits && (!fma || other.fma) && (!half || other.half);
}

namespace {

constexpr int round_up(int x, int step) {
  return (x + step - 1) / step * step;
}

}  // namespace

Blocking blocking(const CpuTarget& target, const emit::CpuKernelOptions& o, bool narrow) {
  Blocking b{};
  b.tile_q = narrow ? 16 : std::max(o.head_dim, o.value_dim) <= 64 ? 96 : 48;
  if (o.tile_q != 0) b.tile_q = round_up(o.tile_q, kLanes);
  b.tile_k = o.tile_k != 0 ? o.tile_k : 64;
  // Accumulators of a block and its other operands fill the registers, with a few to spare.
  const int per_vector = std::max(1, 32 * kLanes / target.vector_bits);
  const int registers = target.many_registers ? 32 : 16;
  const int vectors = b.tile_q / kLanes;
  const auto rows = [&](int columns) { return (registers - 1) / per_vector / columns - 1; };
  b.qk_vectors = 1;
  if (registers / per_vector >= 32) b.qk_vectors = vectors % 3 == 0 ? 3 : vectors % 2 == 0 ? 2 : 1;
  b.qk_keys = std::clamp(rows(b.qk_vectors), 1, b.qk_vectors == 3 ? 8 : b.qk_vectors == 2 ? 12 : 16);
  const int channels = round_up(o.value_dim, kLanes) / kLanes;
  b.pv_vectors = registers / per_vector >= 32 ? std::min(channels, 4) : 1;
  b.pv_queries = std::clamp(rows(b.pv_vectors), 1,
                            b.pv_vectors == 4   ? 6
                            : b.pv_vectors == 3 ? 8
                            : b.pv_vectors == 2 ? 12
                                                : 16);
  while (b.tile_q % b.pv_queries != 0) --b.pv_queries;
  b.unit = kLanes * b.qk_vectors;
  while (b.unit % b.pv_queries != 0 || b.tile_q % b.unit != 0) b.unit += kLanes * b.qk_vectors;
  return b;
}

Blocking backward_blocking(const CpuTarget& target, const emit::CpuKernelOptions& o, bool narrow) {
  Blocking b = blocking(target, o, narrow);
  // Whole blocks of keys, of both kinds, where a few more keys make them so.
  const int both = std::lcm(b.qk_keys, b.pv_queries), tile_k = round_up(b.tile_k, both);
  if (o.tile_k == 0 && tile_k <= 80) b.tile_k = tile_k;
  return b;
}

}  // namespace vicinal::cpu
