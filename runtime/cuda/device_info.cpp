#include "runtime/cuda/device_info.h"

namespace vicinal::cuda {

Result<DeviceInfo> device_info(const DriverApi& api, int ordinal) {
  DeviceInfo info;
  info.ordinal = ordinal;
  info.driver_version = api.version;
  DeviceId device = 0;
  VICINAL_TRY_VOID(check(api, api.device_get, &device, ordinal));
  char name[256] = {};
  VICINAL_TRY_VOID(check(api, api.device_name, name, static_cast<int>(sizeof name), device));
  info.name = name;
  const struct {
    int DeviceInfo::*field;
    DeviceAttribute attribute;
  } attributes[] = {
      {&DeviceInfo::major, DeviceAttribute::compute_capability_major},
      {&DeviceInfo::minor, DeviceAttribute::compute_capability_minor},
      {&DeviceInfo::multiprocessors, DeviceAttribute::multiprocessor_count},
      {&DeviceInfo::shared_bytes_per_block, DeviceAttribute::shared_memory_per_block},
      {&DeviceInfo::shared_bytes_per_block_optin, DeviceAttribute::shared_memory_per_block_optin},
      {&DeviceInfo::shared_bytes_per_multiprocessor, DeviceAttribute::shared_memory_per_multiprocessor},
      {&DeviceInfo::l2_bytes, DeviceAttribute::l2_cache_size},
  };
  for (const auto& [field, attribute] : attributes) {
    VICINAL_TRY_VOID(check(api, api.device_attribute, &(info.*field), attribute, device));
  }
  VICINAL_TRY_VOID(check(api, api.device_memory, &info.memory_bytes, device));
  return info;
}

Result<std::vector<DeviceInfo>> list_devices(const DriverApi& api) {
  int count = 0;
  VICINAL_TRY_VOID(check(api, api.device_count, &count));
  std::vector<DeviceInfo> devices;
  for (int i = 0; i < count; ++i) {
    VICINAL_TRY(DeviceInfo info, device_info(api, i));
    devices.push_back(std::move(info));
  }
  return devices;
}

}  // namespace vicinal::cuda
