// Gradients and tangents: a tensor for each thing that a result is differentiated with respect to, checked
// against a bound problem.
#pragma once

#include "runtime/binding/problem.h"

namespace vicinal::runtime {

struct BoundDifferentials {
  Strided q, k, v, context_k, context_v;  // no data: not asked for
  struct Captured {
    void* data = nullptr;
    DType dtype = DType::f32;
    std::vector<std::int64_t> strides;
  };
  std::vector<Captured> inputs, params;  // by the module's number
};
struct BoundOutputDifferentials {
  Strided out, lse;
};

// `noun`: "gradient" or "tangent", for errors. They are of kind spec, for shapes, dtypes and what is not
// learnable, and of kind usage for unknown names.
Result<BoundDifferentials> bind_differentials(const ir::Module& module, const Problem& problem,
                                              const Differentials& differentials, std::string_view noun);
// `needed`: out must be there.
Result<BoundOutputDifferentials> bind_output_differentials(const ir::Module& module, const Problem& problem,
                                                           const OutputDifferentials& differentials,
                                                           std::string_view noun, bool needed);

}  // namespace vicinal::runtime
