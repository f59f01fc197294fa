// Gradients by the reference interpreter: reverse mode straight from the definition, in double precision, a
// row at a time.
#pragma once

#include "runtime/binding/differentials.h"
#include "runtime/cpu/interpreter.h"

namespace vicinal::cpu {

// From the gradients of out and lse (no data: 0), in host memory, to those of what `wanted` has data for.
// `module` is after passes::differentiate and before the pipeline. Sums are made in one order whatever the
// number of threads.
void backward(const ir::Module& module, const runtime::Problem& problem,
              const runtime::BoundOutputDifferentials& given, const runtime::BoundDifferentials& wanted,
              unsigned threads);

// The same as a plain program in the tensors' own precision would compute it, from
// Interpreter::plain_trace(): everything in fp32, in order; weights and gradients of scores rounded to the
// tensors' dtype where they are multiplied by channels. What an error is measured against.
void plain_backward(const ir::Module& module, const runtime::Problem& problem,
                    const runtime::BoundOutputDifferentials& given, const runtime::BoundDifferentials& wanted,
                    unsigned threads);

// From tangents of what `given` has data for (else 0) to those of out and lse, where they have data.
void jvp(const ir::Module& module, const runtime::Problem& problem, const runtime::BoundDifferentials& given,
         const runtime::BoundOutputDifferentials& wanted, unsigned threads);

}  // namespace vicinal::cpu
