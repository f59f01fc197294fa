// What the Hopper kernel is launched with beyond the arguments of every kernel: tensor maps and the order of
// its work (templates/vicinal/hopper/contract.cuh).
#pragma once

#include <optional>
#include <string>

#include "runtime/binding/problem.h"
#include "runtime/cuda/driver_api.h"
#include "runtime/plan/tile_grid.h"

namespace vicinal::runtime {

// Why the copy engine cannot take the tensors of a problem; nothing where it can.
std::optional<std::string> hopper_tensor_obstacle(const Problem& problem);

// The bytes that go before the arguments of every kernel. `counters`: of WorkCounters, or 0. `unequal`: tiles
// of queries may have more to do than others.
Result<std::vector<std::byte>> hopper_prefix(const cuda::DriverApi& api, const Problem& problem,
                                             const plan::TileShape& shape, cuda::DevicePointer counters,
                                             bool unequal);

}  // namespace vicinal::runtime
