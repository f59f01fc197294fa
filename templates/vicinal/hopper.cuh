// The only header that an emitted Hopper kernel includes.
#pragma once

#include "vicinal/captured.cuh"
#include "vicinal/kernels/hopper.cuh"
#include "vicinal/numeric.cuh"
