// Random problems for a variant that is only known by its module: extents that its windows fit, captured
// inputs of the declared shapes.
#pragma once

#include <optional>
#include <random>

#include "runtime/plan/tile_grid.h"
#include "tests/support/plain_attention.h"

namespace vicinal::testing {

struct ProblemLimits {
  std::int64_t tokens =
      40;  // of a sequence; an axis with a window is as long as it must be, and a little longer
  std::int64_t heads = 4;
  std::optional<ProblemShape> shape = {};  // in place of a random one
};

// A problem that the kernel accepts, with its dtype and dims; nothing when none was found, then `why` says
// what the last one was refused for.
std::optional<Problem> random_problem(const Kernel& kernel, std::mt19937& random, const ProblemLimits& limits,
                                      std::string* why = nullptr);

// The element types of the module's inputs, some of them not the default.
std::map<std::string, DType> random_input_dtypes(const Spec& spec, std::mt19937& random);

// Small tiles, few of them powers of two.
plan::TileShape random_tile_shape(std::size_t rank, std::mt19937& random);

}  // namespace vicinal::testing
