// The devices of this machine, and what kernels need to know of them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/cuda/driver_api.h"

namespace vicinal::cuda {

struct DeviceInfo {
  int ordinal = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int shared_bytes_per_block = 0;        // static
  int shared_bytes_per_block_optin = 0;  // dynamic, when the kernel asks for it
  int shared_bytes_per_multiprocessor = 0;
  int l2_bytes = 0;
  std::size_t memory_bytes = 0;
  int driver_version = 0;  // 12040 for 12.4

  int capability() const { return 10 * major + minor; }
};

Result<DeviceInfo> device_info(const DriverApi& api, int ordinal);
Result<std::vector<DeviceInfo>> list_devices(const DriverApi& api);

}  // namespace vicinal::cuda
