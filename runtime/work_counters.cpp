#include "runtime/work_counters.h"

#include <vector>

namespace vicinal::runtime {
namespace {

// CU_STREAM_PER_THREAD
const auto kStreamPerThread = reinterpret_cast<cuda::StreamHandle>(2);

}  // namespace

Result<std::unique_ptr<WorkCounters>> WorkCounters::make(const cuda::Context& context) {
  std::unique_ptr<WorkCounters> counters(new WorkCounters(context));
  const cuda::ContextScope scope(context);
  const std::vector<std::byte> zeros(kPairs * kPairBytes);
  VICINAL_TRY(counters->memory_, cuda::DeviceBuffer::copy_of(context.api(), zeros));
  return counters;
}

WorkCounters::~WorkCounters() {
  const cuda::ContextScope scope(context_);
  memory_ = {};
}

cuda::DevicePointer WorkCounters::take(cuda::StreamHandle stream) {
  const cuda::DriverApi& api = context_.api();
  cuda::CaptureStatus status = cuda::CaptureStatus::none;
  // It fails for the legacy stream while another one is captured; that stream itself never is.
  const bool captured =
      api.stream_is_capturing.address(stream, &status) == 0 && status != cuda::CaptureStatus::none;
  const std::lock_guard guard(lock_);
  const auto fresh = [&]() -> cuda::DevicePointer {
    return taken_ == kPairs ? 0 : memory_.address() + taken_++ * kPairBytes;
  };
  if (captured) return fresh();
  const std::pair key(stream, stream == kStreamPerThread ? std::this_thread::get_id() : std::thread::id());
  const auto known = of_stream_.find(key);
  return known != of_stream_.end() ? known->second : of_stream_[key] = fresh();
}

}  // namespace vicinal::runtime
