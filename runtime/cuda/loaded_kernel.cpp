#include "runtime/cuda/loaded_kernel.h"

namespace vicinal::cuda {

Result<LoadedKernel> LoadedKernel::load(const Context& context, std::span<const std::byte> cubin,
                                        const std::string& entry, int dynamic_shared_bytes) {
  const DriverApi& api = context.api();
  const ContextScope scope(context);
  LoadedKernel kernel(context);

  ModuleHandle module = nullptr;
  VICINAL_TRY_VOID(check(api, api.module_load, &module, cubin.data()));
  kernel.module_ = std::shared_ptr<CUmod_st>(module, [context](ModuleHandle handle) {
    const ContextScope unload_scope(context);
    (void)context.api().module_unload.address(handle);
  });
  VICINAL_TRY_VOID(check(api, api.module_function, &kernel.function_, module, entry.c_str()));
  if (dynamic_shared_bytes > 0) {
    VICINAL_TRY_VOID(check(api, api.function_set_attribute, kernel.function_,
                           FunctionAttribute::max_dynamic_shared_bytes, dynamic_shared_bytes));
  }
  const struct {
    int KernelAttributes::*field;
    FunctionAttribute attribute;
  } attributes[] = {{&KernelAttributes::registers, FunctionAttribute::registers},
                    {&KernelAttributes::local_bytes, FunctionAttribute::local_bytes},
                    {&KernelAttributes::shared_bytes, FunctionAttribute::shared_bytes}};
  for (const auto& [field, attribute] : attributes) {
    VICINAL_TRY_VOID(
        check(api, api.function_attribute, &(kernel.attributes_.*field), attribute, kernel.function_));
  }
  return kernel;
}

}  // namespace vicinal::cuda
