#include "cli/launch_times.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "runtime/cuda/device_info.h"
#include "runtime/cuda/launch.h"

namespace vicinal::cli {

Spread spread(std::vector<double> x) {
  if (x.empty()) return {};
  std::sort(x.begin(), x.end());
  return {x[x.size() / 2], x[x.size() / 4], x[x.size() * 3 / 4], x.size()};
}

Result<LaunchTimer> LaunchTimer::make(const cuda::Context& context) {
  VICINAL_TRY(const cuda::DeviceInfo info, cuda::device_info(context.api(), context.device()));
  VICINAL_TRY(cuda::DeviceBuffer flush,
              cuda::DeviceBuffer::allocate(context.api(), 2 * static_cast<std::size_t>(info.l2_bytes) + 1));
  return LaunchTimer(context.api(), std::move(flush));
}

// Launches come in bursts that nobody waits for, so that the host's work for one is hidden behind the one
// before; a rest between bursts lets the clocks recover, which a power-limited GPU lowers under load.
Result<std::vector<double>> LaunchTimer::times(int repeat, const std::function<Result<void>()>& launch) {
  constexpr int kBurst = 7, kWarmUp = 1;
  constexpr auto kRest = std::chrono::milliseconds(20);
  struct Timed {
    cuda::Event begin, end;
  };
  std::vector<double> times;
  while (static_cast<int>(times.size()) < repeat) {
    std::vector<Timed> burst;
    const int count = std::min(kBurst, repeat - static_cast<int>(times.size()));
    for (int i = 0; i < kWarmUp + count; ++i) {
      VICINAL_TRY(cuda::Event begin, cuda::Event::create(*api_));
      VICINAL_TRY(cuda::Event end, cuda::Event::create(*api_));
      burst.push_back({std::move(begin), std::move(end)});
    }
    for (std::size_t i = 0; i < burst.size(); ++i) {
      VICINAL_TRY_VOID(flush_.fill(static_cast<unsigned char>(i)));
      VICINAL_TRY_VOID(burst[i].begin.record(nullptr));
      VICINAL_TRY_VOID(launch());
      VICINAL_TRY_VOID(burst[i].end.record(nullptr));
    }
    VICINAL_TRY_VOID(burst.back().end.synchronize());
    for (std::size_t i = kWarmUp; i < burst.size(); ++i) {
      VICINAL_TRY(const float ms, burst[i].end.milliseconds_since(burst[i].begin));
      times.push_back(static_cast<double>(ms));
    }
    std::this_thread::sleep_for(kRest);
  }
  return times;
}

Result<std::vector<double>> LaunchTimer::in_a_row(
    int repeat, bool in_graph, const std::function<Result<void>(cuda::StreamHandle)>& launch) const {
  constexpr int kRow = 200;
  VICINAL_TRY(const cuda::Stream stream, cuda::Stream::create(*api_));
  const auto row = [&]() -> Result<void> {
    for (int i = 0; i < kRow; ++i) VICINAL_TRY_VOID(launch(stream.handle()));
    return {};
  };
  cuda::Graph graph;
  if (in_graph) {
    VICINAL_TRY(graph, cuda::Graph::capture(*api_, stream.handle(), row));
  }
  std::vector<double> times;
  for (int i = -1; i < repeat; ++i) {  // the first is not counted
    VICINAL_TRY_VOID(stream.synchronize());
    const auto start = std::chrono::steady_clock::now();
    VICINAL_TRY_VOID(in_graph ? graph.launch(stream.handle()) : row());
    VICINAL_TRY_VOID(stream.synchronize());
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    if (i >= 0) times.push_back(time.count() / kRow);
  }
  return times;
}

}  // namespace vicinal::cli
