// A kernel for the CPU before there is any code: a variant's expressions, taken apart by where they are
// computed. This is all that a code generator knows of a variant.
#pragma once

#include <vicinal/dtype.h>

#include <optional>
#include <string>
#include <vector>

#include "compiler/analysis/row_limits.h"
#include "compiler/emit/specialized.h"

namespace vicinal::emit {

struct CpuKernelOptions {
  DType dtype = DType::f32;             // of Q, K, V and the output: f32, f16 or bf16
  std::optional<DType> out_dtype = {};  // of the output, where it is another
  int head_dim = 64, value_dim = 64;
  int tile_q = 0, tile_k = 0;  // 0: chosen
  // Slower code in which values of keys that are not kept are left out of every sum, where otherwise they
  // count 0 times: the difference shows where they are not finite.
  bool exact = false;
  std::vector<DType> input_dtypes;  // by input
  std::string target;               // CompileOptions::cpu_target

  DType output() const { return out_dtype.value_or(dtype); }
};

// Of one kind of key.
struct CpuKeys {
  passes::ScoreForm form;
  analysis::IndexBounds bounds;
  bool has_mask = false;
  // By node: which of the kernel's uniforms it is, or kNotUniform.
  std::vector<std::uint32_t> uniform;
};
inline constexpr std::uint32_t kNotUniform = 0xffffffff;

// A value that is the same for all pairs of a batch and head, hence computed by the caller: 32 bits, as the
// node's type says.
struct CpuUniform {
  bool context;  // of which keys' module the node is
  ir::NodeId node;
  bool exact;  // a mask reads it: every operation rounds to fp32. Others round once, at the end
};

// Something learnable that the score or the output reads, and the derivative in it.
struct CpuSite {
  bool context;            // of which keys' module the nodes are
  ir::Root of;             // score or output
  ir::NodeId leaf, value;  // a Load, a Dot or a param; the derivative
  bool second;             // of a Dot, which has a site for each of its inputs that is learnable
  // Whether a batch and head read one element: then the kernel gives one sum. Otherwise it adds to a tensor.
  bool uniform;
};

// How a Load or a Dot reads one of its inputs: by the operands first..last.
struct InputRead {
  std::uint32_t input;
  std::size_t first, last;
};
InputRead read_of(const ir::Node& leaf, bool second);

enum class CpuPass : std::uint8_t { forward, backward };

struct CpuKernel {
  CpuKernelOptions options;
  CpuPass pass = CpuPass::forward;
  // Of a backward pass: what it adds up besides the gradients of Q, K and V.
  std::vector<CpuSite> sites;
  bool scale_sum = false, sink_sum = false;
  ir::Normalize normalize = ir::Normalize::softmax;
  bool query_l2norm = false, key_l2norm = false;
  CpuKeys grid;
  std::optional<CpuKeys> context;
  std::vector<CpuUniform> uniforms;
  // Whether there is a sink. Its value follows the uniforms: computed like the oracle's, in double from the
  // spec as it was written, since alone in a row it is the whole result.
  bool has_sink = false;
  bool reads_key_places = false;  // positions or coordinates of keys
  // Of the grid's keys where these are a sequence: the mask says the same, and is asked all the same.
  analysis::RowLimits limits;

  // Tables of params, axes and inputs are the same in both.
  const ir::Module& declarations() const { return grid.form.module; }
  const CpuKeys& keys(bool of_context) const { return of_context ? *context : grid; }
  // Whether keys are left out along the axis by the neighborhood, beyond what tiles leave out.
  bool windowed(std::size_t axis) const;
  bool windowed() const;
  // Whether the keys that a query sees follow each other and their ends are known: from `limits`, or from the
  // window of the only axis.
  bool has_limits() const;
};

CpuKernel cpu_kernel(const Specialized& variant, const CpuKernelOptions& options);

// The backward pass of a variant, which reads `out` as it is before an output expression; its score stays in
// one piece, and `factor` is the scale. `differentiated`:
// specialize() of a module with its partials. `captured`: with the gradients of what is learnable.
CpuKernel cpu_backward_kernel(const Specialized& differentiated, const CpuKernelOptions& options,
                              bool captured);

// Two kernels with the same text are the same.
std::string print(const CpuKernel& kernel);

}  // namespace vicinal::emit
