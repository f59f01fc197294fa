#include "runtime/cuda/device_memory.h"

#include <fmt/format.h>

#include <utility>

namespace vicinal::cuda {
namespace {

Result<void> check_size(std::size_t bytes, std::size_t buffer) {
  if (bytes <= buffer) return {};
  return unexpected(ErrorKind::internal,
                    fmt::format("copy of {} bytes with a device buffer of {}", bytes, buffer));
}

}  // namespace

Result<std::size_t> free_bytes(const DriverApi& api) {
  std::size_t free = 0, total = 0;
  VICINAL_TRY_VOID(check(api, api.memory_info, &free, &total));
  return free;
}

Result<DeviceBuffer> DeviceBuffer::allocate(const DriverApi& api, std::size_t bytes) {
  DeviceBuffer buffer;
  buffer.api_ = &api;
  buffer.bytes_ = bytes;
  if (bytes > 0) VICINAL_TRY_VOID(check(api, api.memory_allocate, &buffer.address_, bytes));
  return buffer;
}

Result<DeviceBuffer> DeviceBuffer::copy_of(const DriverApi& api, std::span<const std::byte> bytes) {
  VICINAL_TRY(DeviceBuffer buffer, allocate(api, bytes.size()));
  VICINAL_TRY_VOID(buffer.write(bytes));
  VICINAL_TRY_VOID(check(api, api.stream_synchronize, nullptr));
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : api_(other.api_), address_(std::exchange(other.address_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(api_, other.api_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (address_ != 0) (void)api_->memory_free.address(address_);
}

Result<void> DeviceBuffer::write(std::span<const std::byte> from, StreamHandle stream) {
  VICINAL_TRY_VOID(check_size(from.size(), bytes_));
  if (from.empty()) return {};
  return check(*api_, api_->copy_to_device, address_, from.data(), from.size(), stream);
}

Result<void> DeviceBuffer::read(std::span<std::byte> to, StreamHandle stream) const {
  VICINAL_TRY_VOID(check_size(to.size(), bytes_));
  if (to.empty()) return {};
  return check(*api_, api_->copy_to_host, to.data(), address_, to.size(), stream);
}

Result<void> DeviceBuffer::copy_from(const DeviceBuffer& other, StreamHandle stream) {
  VICINAL_TRY_VOID(check_size(other.bytes_, bytes_));
  if (other.bytes_ == 0) return {};
  return check(*api_, api_->copy_on_device, address_, other.address_, other.bytes_, stream);
}

Result<void> DeviceBuffer::fill(unsigned char byte, StreamHandle stream) {
  if (bytes_ == 0) return {};
  return check(*api_, api_->memory_set, address_, byte, bytes_, stream);
}

Result<Stream> Stream::create(const DriverApi& api) {
  StreamHandle handle = nullptr;
  VICINAL_TRY_VOID(check(api, api.stream_create, &handle, kStreamNonBlocking));
  Stream stream;
  stream.api_ = &api;
  stream.handle_.reset(handle, [&api](StreamHandle h) { (void)api.stream_destroy.address(h); });
  return stream;
}

Result<void> Stream::synchronize() const {
  return check(*api_, api_->stream_synchronize, handle());
}

Result<Event> Event::create(const DriverApi& api) {
  EventHandle handle = nullptr;
  VICINAL_TRY_VOID(check(api, api.event_create, &handle, 0u));
  Event event;
  event.api_ = &api;
  event.handle_.reset(handle, [&api](EventHandle h) { (void)api.event_destroy.address(h); });
  return event;
}

Result<void> Event::record(StreamHandle stream) {
  return check(*api_, api_->event_record, handle_.get(), stream);
}

Result<void> Event::synchronize() const {
  return check(*api_, api_->event_synchronize, handle_.get());
}

Result<float> Event::milliseconds_since(const Event& earlier) const {
  float milliseconds = 0;
  VICINAL_TRY_VOID(check(*api_, api_->event_elapsed, &milliseconds, earlier.handle_.get(), handle_.get()));
  return milliseconds;
}

Result<Graph> Graph::capture(const DriverApi& api, StreamHandle stream,
                             const std::function<Result<void>()>& record) {
  VICINAL_TRY_VOID(check(api, api.stream_begin_capture, stream, CaptureMode::thread_local_));
  const Result<void> recorded = record();
  GraphHandle captured = nullptr;  // ended in any case, or the stream could not be used again
  const Result<void> ended = check(api, api.stream_end_capture, stream, &captured);
  const std::shared_ptr<CUgraph_st> owner(captured, [&api](GraphHandle h) {
    if (h != nullptr) (void)api.graph_destroy.address(h);
  });
  if (!recorded) return recorded.forward_error();
  if (!ended) return ended.forward_error();

  GraphExecHandle handle = nullptr;
  VICINAL_TRY_VOID(check(api, api.graph_instantiate, &handle, captured, 0ull));
  Graph graph;
  graph.api_ = &api;
  graph.handle_.reset(handle, [&api](GraphExecHandle h) { (void)api.graph_exec_destroy.address(h); });
  return graph;
}

Result<void> Graph::launch(StreamHandle stream) const {
  return check(*api_, api_->graph_launch, handle_.get(), stream);
}

}  // namespace vicinal::cuda
