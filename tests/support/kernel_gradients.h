// Gradients as kernels on a device store them, held against the interpreter's.
#pragma once

#include "tests/support/gradient_check.h"

namespace vicinal::testing {

// Room for every gradient: those of tensors in the kernel's dtype, those of inputs and params in f32. Filled
// with what no gradient is, so that one that is not written shows.
struct KernelGradients {
  HostTensor q, k, v, context_k, context_v;
  std::map<std::string, HostTensor> inputs, params;
  bool context = false;

  KernelGradients(const GradientCase& c, DType dtype);
  Differentials wanted() const;
};

// In the places of gradients.
KernelGradients random_tangents(const GradientCase& c, DType dtype, std::mt19937& random);

// The incoming gradients as a kernel takes them: out's in its dtype, the LSE's in f32.
void round_given(GradientCase& c, DType dtype);

// NaN in the keys of a token and infinity in its values: what nobody keeps leaves no trace.
void poison(Problem& problem, std::int64_t token);

// `wanted` is the interpreter's. An error may be a few roundings of the dtype, relative to the tensor's
// largest gradient, since out is rounded before it meets d_out, and weights' sums cancel.
void check_differential(const std::string& what, const HostTensor& got, const HostTensor& wanted,
                        DType dtype);
// All gradients of one case, by several kernels; `c` holds those of `host`, which interprets. An error passes
// as above, and is at most twice a plain program's in the kernel's dtype (cpu::plain_backward), plus two
// units in the last place. Where either says no over this problem, other channels and incoming gradients are
// looked at too: for the largest gradient, since one number may be nearly nothing by luck (a bias of a head
// has the sum of the LSE's gradients), and for the plain program's error, as it is or as a part of the
// largest gradient, which a few rows suit by luck.
void check_kernel_gradients(const Kernel& host, std::initializer_list<const KernelGradients*> all,
                            const GradientCase& c, DType dtype);

}  // namespace vicinal::testing
