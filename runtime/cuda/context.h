// The context of a device. None is ever created: it is the caller's current one, or the device's primary one,
// which the CUDA runtime and every framework share.
#pragma once

#include <memory>

#include "runtime/cuda/driver_api.h"

namespace vicinal::cuda {

class Context {
 public:
  // The context that is current on this thread, or else the primary context of device 0.
  static Result<Context> current_or_primary(const DriverApi& api);
  static Result<Context> primary(const DriverApi& api, int ordinal);

  const DriverApi& api() const { return *api_; }
  ContextHandle handle() const { return handle_.get(); }
  int device() const { return device_; }

 private:
  Context(const DriverApi& api, std::shared_ptr<CUctx_st> handle, int device)
      : api_(&api), handle_(std::move(handle)), device_(device) {}

  const DriverApi* api_;
  std::shared_ptr<CUctx_st> handle_;  // the last owner releases a primary context
  int device_;
};

// Makes a context current on this thread for a scope. Everything below works in the current context.
class ContextScope {
 public:
  explicit ContextScope(const Context& context);
  ~ContextScope();
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  const DriverApi& api_;
  bool pushed_ = false;
};

}  // namespace vicinal::cuda
