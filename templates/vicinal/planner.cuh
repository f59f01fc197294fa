// The only header that emitted planners include. Two kernels: fill() of planning/input_ranges.cuh for every
// table, then plan_rows() or plan_pairs().
#pragma once

#include "vicinal/numeric.cuh"
#include "vicinal/planning/plan_pairs.cuh"
#include "vicinal/planning/plan_rows.cuh"
