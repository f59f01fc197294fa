#include "runtime/cuda/context.h"

namespace vicinal::cuda {

Result<Context> Context::current_or_primary(const DriverApi& api) {
  ContextHandle current = nullptr;
  VICINAL_TRY_VOID(check(api, api.context_current, &current));
  if (current == nullptr) return primary(api, 0);
  DeviceId device = 0;
  VICINAL_TRY_VOID(check(api, api.context_device, &device));
  return Context(api, std::shared_ptr<CUctx_st>(current, [](ContextHandle) {}), device);
}

Result<Context> Context::primary(const DriverApi& api, int ordinal) {
  DeviceId device = 0;
  VICINAL_TRY_VOID(check(api, api.device_get, &device, ordinal));
  ContextHandle handle = nullptr;
  VICINAL_TRY_VOID(check(api, api.primary_retain, &handle, device));
  const auto release = [&api, device](ContextHandle) { (void)api.primary_release.address(device); };
  return Context(api, std::shared_ptr<CUctx_st>(handle, release), device);
}

ContextScope::ContextScope(const Context& context) : api_(context.api()) {
  ContextHandle current = nullptr;
  if (api_.context_current.address(&current) == 0 && current == context.handle()) return;
  pushed_ = api_.context_push.address(context.handle()) == 0;
}

ContextScope::~ContextScope() {
  ContextHandle popped = nullptr;
  if (pushed_) (void)api_.context_pop.address(&popped);
}

}  // namespace vicinal::cuda
