#include "runtime/cpu/llvm/cpu_target.h"

#include <llvm/MC/MCSubtargetInfo.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/TargetParser/Host.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <numeric>
#include <optional>

namespace vicinal::cpu {
namespace {

// Whose processor it is; without a name this machine's.
bool is_amd(const std::string& name) {
  if (!name.empty()) return name.starts_with("znver");
  return llvm::sys::detail::x86::getVendorSignature() ==
         llvm::sys::detail::x86::VendorSignatures::AUTHENTIC_AMD;
}

// The system saves these registers for processes that ask for them.
bool may_use_amx() {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long kRequestPermission = 0x1023, kMatrixData = 18;
  static const bool granted = ::syscall(SYS_arch_prctl, kRequestPermission, kMatrixData) == 0;
  return granted;
#else
  return false;
#endif
}

}  // namespace

std::string CpuTarget::describe() const {
  return std::to_string(vector_bits) + "-bit vectors" + (fma ? ", fma" : "") + (half ? ", f16" : "") +
         (bf16_pairs ? ", pairs of bf16" : "") +
         (matrices == Matrices::amx        ? ", matrices of bf16"
          : matrices == Matrices::emulated ? ", emulated matrices of bf16"
                                           : "");
}

llvm::Expected<CpuTarget> cpu_target(const std::string& name) {
  llvm::Expected<llvm::orc::JITTargetMachineBuilder> builder =
      llvm::orc::JITTargetMachineBuilder::detectHost();
  if (!builder) return builder.takeError();
  CpuTarget target{std::move(*builder)};
  constexpr std::string_view kEmulated = "emulated-amx";
  const bool emulated = name == kEmulated, here = name.empty() || emulated;
  target.builder.setCodeGenOptLevel(llvm::CodeGenOptLevel::Less);
  auto machine = target.builder.createTargetMachine();
  if (!machine) return machine.takeError();
  if (!here) {
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
    const bool rounds = wide && has("+avx512bf16");
    target.bf16_pairs = rounds && is_amd(here ? "" : name);
    if (rounds && has("+amx-tile,+amx-bf16") && (!here || may_use_amx()))
      target.matrices = CpuTarget::Matrices::amx;
    if (emulated) {
      if (!rounds) return llvm::createStringError("this machine has not all that emulated AMX needs");
      target.matrices = CpuTarget::Matrices::emulated;
    }
  } else if (target.builder.getTargetTriple().isAArch64()) {
    target.many_registers = target.fma = target.half = true;
  }
  return target;
}

bool CpuTarget::is_part_of(const CpuTarget& other) const {
  return vector_bits <= other.vector_bits && (!fma || other.fma) && (!half || other.half) &&
         (!bf16_pairs || other.bf16_pairs) && (matrices != Matrices::amx || other.matrices == Matrices::amx);
}

namespace {

constexpr int round_up(int x, int step) {
  return (x + step - 1) / step * step;
}

// Accumulators of a block and its other operands fill the registers, with a few to spare.
struct Registers {
  int count, per_vector;

  explicit Registers(const CpuTarget& target)
      : count(target.many_registers ? 32 : 16), per_vector(std::max(1, 32 * kLanes / target.vector_bits)) {}
  bool many() const { return count / per_vector >= 32; }
  // Of a block with so many columns; more than sixteen accumulators gain nothing.
  int rows(int columns) const {
    return std::clamp((count - 1) / per_vector / columns - 1, 1, columns == 1 ? 16 : 24 / columns);
  }
};

// How many keys a query of a sequence sees, where its window or the mask's limits say that.
std::optional<std::int64_t> keys_seen(const emit::CpuKernel& kernel) {
  const ir::Module& m = kernel.declarations();
  if (m.axes.size() == 1 && m.axes[0].window.valid()) {
    const auto window = m.constant_value(m.axes[0].window);
    return window ? std::optional<std::int64_t>(window->i) : std::nullopt;
  }
  std::optional<std::int64_t> least;
  for (const analysis::RowSum& begin : kernel.limits.begins)
    for (const analysis::RowSum& end : kernel.limits.ends)
      if (const analysis::RowSum keys = end.plus(begin, true); keys.terms.empty())
        least = std::min(least.value_or(keys.constant), keys.constant);
  return least;
}

// The vectors of queries that go through all stages together, out of so many: few of them waste little of a
// narrow window, many load little for what they compute.
int vectors_of_unit(const Registers& registers, int vectors, std::optional<std::int64_t> seen) {
  int best = vectors % 3 == 0 ? 3 : vectors % 2 == 0 ? 2 : 1;
  const auto cost = [&](int unit) {
    const int keys = registers.rows(registers.many() ? unit : 1);
    constexpr double kWeights[] = {1.1, 1.04, 1};  // of a score, where a key is loaded for so many vectors
    return kWeights[unit - 1] * static_cast<double>((*seen + kLanes * unit + keys - 2) / keys * keys);
  };
  for (int unit = best - 1; seen && unit > 0; --unit)
    if (vectors % unit == 0 && cost(unit) < cost(best)) best = unit;
  return best;
}

// Whether operands of the forward products may stay bf16, weights among them, which are rounded. Vectors that
// are divided by their norms would have to be rounded again, and an output in f32 is asked for by who needs
// it exact: both compute with f32.
bool may_multiply_bf16(const emit::CpuKernel& kernel) {
  return kernel.options.dtype == DType::bf16 && kernel.options.output() == DType::bf16 &&
         kernel.pass == emit::CpuPass::forward && !kernel.query_l2norm && !kernel.key_l2norm;
}

// The queries that a block of matrix registers has, out of so many; a unit is as many.
int queries_of_matrices(int tile_q) {
  return tile_q % (2 * kLanes) == 0 ? 2 * kLanes : kLanes;
}

void block_matrices(Blocking& b) {
  b.per_word = 2;
  b.matrices = true;
  b.key_step = kMatrixDepth;
  b.unit = b.pv_queries = queries_of_matrices(b.tile_q);
  b.qk_vectors = b.unit / kLanes;
  b.qk_keys = 2 * kMatrixRows;
}

}  // namespace

Blocking blocking(const CpuTarget& target, const emit::CpuKernel& kernel) {
  const emit::CpuKernelOptions& o = kernel.options;
  const Registers registers(target);
  // In a window of several axes queries see little of what their neighbours see.
  const bool narrow = kernel.declarations().axes.size() > 1 && kernel.windowed();
  Blocking b{};
  // Tiles and units are the same where a task is done again, in the same workspace, by code that leaves keys
  // out of sums: it goes by single keys, and computes with f32.
  const bool bf16 = may_multiply_bf16(kernel),
             matrices = bf16 && target.matrices != CpuTarget::Matrices::none;
  // With matrix registers products are short beside what brings their operands: values are packed once for
  // many queries, sums are fetched once for many keys, and rows of a power of two would share few of a
  // cache's sets.
  b.tile_q = narrow ? 16 : matrices ? 160 : std::max(o.head_dim, o.value_dim) <= 64 ? 96 : 48;
  if (o.tile_q != 0) b.tile_q = round_up(o.tile_q, kLanes);
  b.tile_k = o.tile_k != 0 ? o.tile_k : matrices && !narrow ? 192 : 64;
  if (matrices && !o.exact) {
    block_matrices(b);
    return b;
  }
  b.per_word = b.key_step = bf16 && target.bf16_pairs && !o.exact ? 2 : 1;
  const int vectors = matrices ? queries_of_matrices(b.tile_q) / kLanes
                               : vectors_of_unit(registers, b.tile_q / kLanes, keys_seen(kernel));
  b.unit = kLanes * vectors;
  b.qk_vectors = registers.many() ? vectors : 1;
  b.qk_keys = registers.rows(b.qk_vectors);
  const int channels = round_up(o.value_dim, kLanes) / kLanes;
  b.pv_vectors = registers.many() ? std::min(channels, 4) : 1;
  b.pv_queries = registers.rows(b.pv_vectors);
  while (b.unit % b.pv_queries != 0) --b.pv_queries;
  if (kernel.pass == emit::CpuPass::backward && o.tile_k == 0) {
    // Whole blocks of keys, of both kinds, where a few more keys make them so.
    const int tile_k = round_up(b.tile_k, std::lcm(b.qk_keys, b.pv_queries));
    if (tile_k <= 80) b.tile_k = tile_k;
  }
  return b;
}

}  // namespace vicinal::cpu
