// Elementary functions on f32 scalars and vectors, of polynomials of our own. Errors are in units in the last
// place of the exact result, over all floats, as tests/unit/runtime/test_elementary.cpp holds them.
#pragma once

#include "runtime/cpu/llvm/emitter.h"

namespace vicinal::cpu {

// e^x for the weights of a softmax: x <= 0, or up to 80. Within 2 ulp down to x = -87.3; from -87.7 down it
// is exactly 0, so that no weight is subnormal. NaN stays NaN.
Value* exp_of_weight(Emitter& e, Value* x);

Value* exp2(Emitter& e, Value* x);     // within 2 ulp; overflow is inf, subnormal results are right
Value* exp(Emitter& e, Value* x);      // within 2 ulp
Value* log2(Emitter& e, Value* x);     // within 3 ulp; log2(0) = -inf, of less NaN
Value* log(Emitter& e, Value* x);      // within 3 ulp
Value* tanh(Emitter& e, Value* x);     // within 4 ulp
Value* sigmoid(Emitter& e, Value* x);  // within 4 ulp

// Of the host's library, a lane at a time.
Value* library_function(Emitter& e, const char* name, Value* x, Value* y = nullptr);

}  // namespace vicinal::cpu
