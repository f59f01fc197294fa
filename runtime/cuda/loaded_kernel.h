// A cubin in a device's memory, and its one entry. Immutable after load(), so threads may share it; a program
// with several devices loads one per device.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "runtime/cuda/context.h"

namespace vicinal::cuda {

struct KernelAttributes {
  int registers = 0;
  int local_bytes = 0;   // per thread; stack and spills
  int shared_bytes = 0;  // static, per block
};

class LoadedKernel {
 public:
  // `dynamic_shared_bytes`: the most that any launch will ask for.
  static Result<LoadedKernel> load(const Context& context, std::span<const std::byte> cubin,
                                   const std::string& entry, int dynamic_shared_bytes = 0);

  FunctionHandle function() const { return function_; }
  const KernelAttributes& attributes() const { return attributes_; }
  const Context& context() const { return context_; }

 private:
  explicit LoadedKernel(Context context) : context_(std::move(context)) {}

  Context context_;
  std::shared_ptr<CUmod_st> module_;
  FunctionHandle function_ = nullptr;
  KernelAttributes attributes_;
};

}  // namespace vicinal::cuda
