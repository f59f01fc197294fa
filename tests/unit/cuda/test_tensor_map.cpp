// What the copy engine can take.
#include <doctest/doctest.h>

#include "runtime/cuda/tensor_map.h"
#include "runtime/program.h"

namespace vicinal::testing {
namespace {

cuda::BoxedTensor tensor() {
  return {0x1000, DType::bf16, {128, 1000, 1, 16, 2}, {1, 128, 128, 128000, 2048000}};
}

}  // namespace

TEST_CASE("tensors that the copy engine takes, and why it does not take others") {
  CHECK(!cuda::tensor_map_obstacle(tensor()));
  cuda::BoxedTensor t = tensor();
  t.data += 8;
  CHECK(cuda::tensor_map_obstacle(t).value().find("aligned") != std::string::npos);
  t = tensor();
  t.stride[0] = 2;
  CHECK(cuda::tensor_map_obstacle(t).value().find("channels") != std::string::npos);
  for (const std::int64_t stride :
       {std::int64_t{0}, std::int64_t{-128}, std::int64_t{132}, std::int64_t{1} << 39}) {
    t = tensor();
    t.stride[1] = stride;
    CHECK(cuda::tensor_map_obstacle(t).value().find("stride") != std::string::npos);
    // Of a dimension with one element nobody asks.
    t.extent[1] = 1;
    CHECK(!cuda::tensor_map_obstacle(t));
  }
}

TEST_CASE("a kernel that spills, or whose products wait for each other, is told") {
  CHECK(!runtime::defect("", {128, 64, 0}));
  CHECK(!runtime::defect("ptxas info : (C7519) Potential Performance Loss", {128, 0, 0}));
  CHECK(runtime::defect("ptxas warning : (C7512) Potential Performance Loss", {128, 0, 0})
            .value()
            .find("C7512") != std::string::npos);
  CHECK(runtime::defect("", {168, 400, 0}).value().find("400") != std::string::npos);
}

}  // namespace vicinal::testing
