// The only header that an emitted kernel for tensor cores includes.
#pragma once

#include "vicinal/captured.cuh"
#include "vicinal/kernels/mma.cuh"
#include "vicinal/numeric.cuh"
