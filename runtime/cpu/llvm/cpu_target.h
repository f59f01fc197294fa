// The processor that code is generated for, and how kernels are cut for it.
#pragma once

#include <llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h>

#include <string>

#include "compiler/emit/cpu/cpu_kernel.h"

namespace vicinal::cpu {

struct CpuTarget {
  llvm::orc::JITTargetMachineBuilder builder;
  int vector_bits = 128;        // of the widest registers that are used
  bool many_registers = false;  // 32 of them, otherwise 16
  bool fma = false;             // a * b + c in one rounding
  bool half = false;            // converts f16
  // Adds the products of two pairs of bf16 to an f32 in one instruction, in the time of one multiply-add. Of
  // Intel's processors those with this instruction take twice as long for it, and are none of these.
  bool bf16_pairs = false;
  // Registers of sixteen rows that multiply bf16 as matrices (llvm/matrices.h). `emulated`: by calls, slowly,
  // so that code for them runs on any machine with AVX-512 BF16.
  enum class Matrices : std::uint8_t { none, emulated, amx };
  Matrices matrices = Matrices::none;

  // Whether code for it runs where code for the other does.
  bool is_part_of(const CpuTarget& other) const;
  // "512-bit vectors, fma, f16, pairs of bf16"
  std::string describe() const;
};

// A processor by LLVM's name for it; without one this machine's, by its feature bits. What a machine's
// processor is called says little: hypervisors and old tables name it wrong. "emulated-amx": this machine's,
// with Matrices::emulated.
llvm::Expected<CpuTarget> cpu_target(const std::string& name);

inline constexpr int kLanes = 16;  // of every vector in generated code; wider than the registers may be
inline constexpr int kMatrixRows = 16, kMatrixDepth = 32;  // of a matrix register: rows, bf16 of a row

// Tiles in registers and in cache.
struct Blocking {
  int tile_q, tile_k;
  int qk_keys, qk_vectors;     // of one block of scores: keys, and vectors of queries
  int pv_queries, pv_vectors;  // of one block of the output: queries, and vectors of channels
  int per_word;   // operands of products in 32 bits of a lane: an f32, or two bf16, which are multiplied as
                  // pairs
  bool matrices;  // pairs, in matrix registers
  int key_step;   // of a tile's keys, units of queries may start at multiples of this
  int unit;       // queries that all stages take before the next: blocks of both kinds divide it
};
// The sums over queries of a backward pass are blocks of as many keys as those over keys are of queries.
Blocking blocking(const CpuTarget& target, const emit::CpuKernel& kernel);

}  // namespace vicinal::cpu
