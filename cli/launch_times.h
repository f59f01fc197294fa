// Times of launches on a CUDA device, and what is said of many times.
#pragma once

#include <functional>
#include <vector>

#include "runtime/cuda/context.h"
#include "runtime/cuda/device_memory.h"

namespace vicinal::cli {

struct Spread {
  double median = 0, low = 0, high = 0;  // quartiles
  std::size_t count = 0;
};
Spread spread(std::vector<double> x);

// Events around what a launch puts on the default stream, with the L2 cache overwritten before each.
class LaunchTimer {
 public:
  static Result<LaunchTimer> make(const cuda::Context& context);

  // Milliseconds, so many times.
  Result<std::vector<double>> times(int repeat, const std::function<Result<void>()>& launch);

  // Milliseconds that each of many launches takes which follow each other on a stream and are waited for
  // together: what the host or the device spends on one, whichever is more. `in_graph`: captured, and
  // replayed.
  Result<std::vector<double>> in_a_row(int repeat, bool in_graph,
                                       const std::function<Result<void>(cuda::StreamHandle)>& launch) const;

 private:
  LaunchTimer(const cuda::DriverApi& api, cuda::DeviceBuffer flush) : api_(&api), flush_(std::move(flush)) {}

  const cuda::DriverApi* api_;
  cuda::DeviceBuffer flush_;
};

}  // namespace vicinal::cli
