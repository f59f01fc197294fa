// Counters in device memory from which the blocks of a launch draw their work. Launches that may run at the
// same time need counters of their own: one pair belongs to a stream, whose launches follow each other, and
// one to every launch that a graph captures, which may run beside anything.
#pragma once

#include <map>
#include <mutex>
#include <thread>

#include "runtime/cuda/context.h"
#include "runtime/cuda/device_memory.h"

namespace vicinal::runtime {

class WorkCounters {
 public:
  static Result<std::unique_ptr<WorkCounters>> make(const cuda::Context& context);
  ~WorkCounters();

  // The address of two 32-bit counters, both 0; 0 when all are taken. The kernel leaves them at 0.
  cuda::DevicePointer take(cuda::StreamHandle stream);

 private:
  explicit WorkCounters(cuda::Context context) : context_(std::move(context)) {}

  static constexpr std::size_t kPairs = 4096, kPairBytes = 8;
  cuda::Context context_;
  cuda::DeviceBuffer memory_;
  std::mutex lock_;
  std::size_t taken_ = 0;
  // A thread's default stream has the same handle in all threads.
  std::map<std::pair<cuda::StreamHandle, std::thread::id>, cuda::DevicePointer> of_stream_;
};

}  // namespace vicinal::runtime
