// What generated code and its caller share: the memory that a call reads, and the interface of the library
// that generates it. That library alone links LLVM; it is opened at run time (runtime/cpu/code_generator.h).
//
// A task is a tile of queries of one batch and head. Its queries are lanes: begin() packs them transposed,
// visit() takes one tile of keys, end() divides and stores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "compiler/emit/cpu/cpu_kernel.h"

namespace vicinal::cpu {

inline constexpr std::size_t kMaxInputRank = 5;

// A captured input. One that is left out has zeros for strides and a zero to point at.
struct CodeInput {
  const void* data;
  std::int64_t extent[kMaxInputRank];
  std::int64_t stride[kMaxInputRank];  // in elements
};

// Members of both structs are eight bytes each: generated code knows them by their number.

// The queries of a task. Offsets and strides count elements; arrays by query have `tile_q` elements, of which
// those from `count` on repeat the first query's.
struct QueryTile {
  const void* q;
  std::int64_t q_dim;
  const std::int64_t* q_row;
  void* out;
  std::int64_t out_dim;
  const std::int64_t* out_row;
  float* lse;  // null: not wanted
  const std::int64_t* lse_row;
  std::int64_t count;
  const std::uint32_t* uniforms;  // CpuKernel::uniforms, and the sink
  const CodeInput* inputs;
  // Integers of every query, `tile_q` apart: its position, its index, its coordinates, and along every axis
  // with a window the first key it sees and how many it sees, as positions of the dilation group.
  const std::int32_t* places;
  float* workspace;  // CodeShape::workspace floats, aligned to 64 bytes

  // Of a backward pass, in which out, out_row and lse are read.
  const void* d_out;
  std::int64_t d_out_dim;
  const std::int64_t* d_out_row;
  const float* d_lse;          // by query
  float* d_query;              // [tile_q][head_dim in whole vectors], given by end()
  float *d_keys, *d_values;    // the sums that visit() adds to; rows of head and value dim, in whole vectors
  double* totals;              // the sums over a head: BackwardTotals, then one for every uniform site
  const CodeInput* gradients;  // by input: doubles, in C order, that other sites add to
};

enum BackwardTotals : std::int64_t { kScaleTotal = 0, kSinkTotal = 1, kSiteTotals = 2 };

// A tile of keys that such a task visits.
struct KeyTile {
  const void* k;
  std::int64_t k_dim;
  const std::int64_t* k_row;  // offset by key
  std::int64_t k_step;        // from row to row where `direct` says so
  const void* v;
  std::int64_t v_dim;
  const std::int64_t* v_row;
  std::int64_t v_step;
  std::int64_t count;
  std::int64_t kind;    // KeyTileKind
  std::int64_t direct;  // of which tensors rows are read where they lie, from k or v on
  std::int64_t first;   // the position of the first key, of which the next are `step` apart
  std::int64_t step;
  std::int64_t first_in_group;  // the same as a position of the dilation group
  // Where there are several axes: integers of every key, `tile_k` apart: its position, its coordinates, and
  // along every axis its position in the dilation group.
  const std::int32_t* places;
  const void* next_k;  // the first rows of the next tile, for prefetching; or null
  const void* next_v;
  // Of a backward pass: the rows of d_keys and d_values, by key; after the last one of `count`, for so many
  // more as a block may have, a row that nobody reads. And those of the next tile, for prefetching.
  const std::int64_t* sum_row;
  const void* next_d_keys;
  const void* next_d_values;
};
// Rows that sum_row has beyond those of a tile's keys.
inline constexpr std::size_t kSpareRows = 16;

// Bits of KeyTile::direct.
inline constexpr std::int64_t kDirectKeys = 1, kDirectValues = 2;
// Of keys in 16 bits: k_row says where they lie, as ever, but channels lie side by side and rows `k_step`
// apart, an even number.
inline constexpr std::int64_t kPairedKeys = 4;

enum KeyTileKind : std::int64_t { kFullTile = 0, kPartialTile = 1, kFullContext = 2, kPartialContext = 3 };

// Numbers of the arrays in `places`.
struct PlaceLayout {
  std::size_t axes;  // of the grid
  static constexpr std::size_t kPosition = 0, kIndex = 1;
  constexpr std::size_t query_coordinate(std::size_t axis) const { return 2 + axis; }
  constexpr std::size_t window_begin(std::size_t axis) const { return 2 + axes + axis; }
  constexpr std::size_t window_size(std::size_t axis) const { return 2 + 2 * axes + axis; }
  constexpr std::size_t query_arrays() const { return 2 + 3 * axes; }
  constexpr std::size_t key_coordinate(std::size_t axis) const { return 1 + axis; }
  constexpr std::size_t key_in_group(std::size_t axis) const { return 1 + axes + axis; }
  constexpr std::size_t key_arrays() const { return 1 + 2 * axes; }
};

// How a kernel was cut.
struct CodeShape {
  int tile_q = 0, tile_k = 0;
  std::size_t workspace = 0;  // floats
};

struct Code {
  void (*begin)(const QueryTile*) = nullptr;
  void (*visit)(const QueryTile*, const KeyTile*) = nullptr;
  // Not 0 where a result is not finite: then CpuKernelOptions::exact has to do the task.
  std::int32_t (*end)(const QueryTile*) = nullptr;
  CodeShape shape;
  double build_ms = 0, compile_ms = 0;
  std::size_t bytes = 0;  // of the object
  void* owner = nullptr;  // to be given to release()
};

// Multiplications and additions in registers alone, as many at a time as the processor has room for: how fast
// a thread could compute if it waited for nothing.
struct FmaBurst {
  float (*run)(std::int64_t rounds) = nullptr;
  double flops = 0;  // of a round
};

enum class CodeText { llvm, optimized_llvm, assembly };

// What the library exports as kCodeGeneratorSymbol: a function without parameters that returns one of these.
struct CodeGeneratorApi {
  const char* interface;  // must be VICINAL_CODE_INTERFACE: both sides were built from the same headers
  const char* host;       // the processor's features that count, in words
  // Errors in words; false where there is one.
  bool (*compile)(const emit::CpuKernel& kernel, Code& code, std::string& error);
  void (*release)(void* owner);
  bool (*text)(const emit::CpuKernel& kernel, CodeText what, std::string& text, std::string& error);
  // Kept for the process.
  bool (*burst)(FmaBurst& burst, std::string& error);
  // y[i] = op(x[i]) as generated code computes it, for operations of one float; false for any other.
  bool (*evaluate)(ir::Op op, const float* x, float* y, std::size_t count, std::string& error);
};
inline constexpr const char* kCodeGeneratorSymbol = "vicinal_code_generator";

}  // namespace vicinal::cpu
