// Emitted CUDA source as a library for the host: its kernels run a block at a time (cuda_on_host.h).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "compiler/emit/cuda/kernel_source.h"

namespace vicinal::testing {

class HostLibrary {
 public:
  // `text`: a unit as it is emitted, and functions that launch its kernels. Nothing where it does not
  // compile; what the compiler says is then a message of the test.
  static std::optional<HostLibrary> build(const std::string& text);

  template <class Function>
  Function* symbol(const std::string& name) const {
    return reinterpret_cast<Function*>(address(name));
  }

 private:
  void* address(const std::string& name) const;

  std::shared_ptr<void> library_;
};

using Entry = void(const void* arguments, unsigned grid, unsigned threads);
// An emitted unit as a library with an Entry `emulate`, which runs its kernel with arguments of that type.
std::optional<HostLibrary> build_on_host(const emit::KernelSource& source, std::string_view arguments);

}  // namespace vicinal::testing
