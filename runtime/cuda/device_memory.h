// Owners of device memory, streams, events and graphs, for the command line, benchmarks and tests. A launch
// inside the library needs none of them. All work in the context that is current, and must be dropped while
// it lives.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "runtime/cuda/driver_api.h"

namespace vicinal::cuda {

// Of the current context's device, by all that run on it.
Result<std::size_t> free_bytes(const DriverApi& api);

class DeviceBuffer {
 public:
  DeviceBuffer() = default;  // empty: null and no bytes
  static Result<DeviceBuffer> allocate(const DriverApi& api, std::size_t bytes);
  static Result<DeviceBuffer> copy_of(const DriverApi& api, std::span<const std::byte> bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  DevicePointer address() const { return address_; }
  std::size_t size() const { return bytes_; }

  // From and to pageable host memory, or between buffers; the host side may be used again once the stream is
  // synchronised.
  Result<void> write(std::span<const std::byte> from, StreamHandle stream = nullptr);
  Result<void> read(std::span<std::byte> to, StreamHandle stream = nullptr) const;
  Result<void> copy_from(const DeviceBuffer& other, StreamHandle stream = nullptr);
  Result<void> fill(unsigned char byte, StreamHandle stream = nullptr);

 private:
  const DriverApi* api_ = nullptr;
  DevicePointer address_ = 0;
  std::size_t bytes_ = 0;
};

class Stream {
 public:
  static Result<Stream> create(const DriverApi& api);
  StreamHandle handle() const { return handle_.get(); }
  Result<void> synchronize() const;

 private:
  const DriverApi* api_ = nullptr;
  std::shared_ptr<CUstream_st> handle_;
};

class Event {
 public:
  static Result<Event> create(const DriverApi& api);
  Result<void> record(StreamHandle stream);
  Result<void> synchronize() const;
  Result<float> milliseconds_since(const Event& earlier) const;  // both must have been reached

 private:
  const DriverApi* api_ = nullptr;
  std::shared_ptr<CUevent_st> handle_;
};

// Work recorded once and started many times.
class Graph {
 public:
  // Captures what `record` puts on the stream.
  static Result<Graph> capture(const DriverApi& api, StreamHandle stream,
                               const std::function<Result<void>()>& record);
  Result<void> launch(StreamHandle stream) const;

 private:
  const DriverApi* api_ = nullptr;
  std::shared_ptr<CUgraphExec_st> handle_;
};

}  // namespace vicinal::cuda
