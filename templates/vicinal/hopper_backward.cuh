// The only header that an emitted kernel of the Hopper backward pass includes.
#pragma once

#include "vicinal/captured.cuh"
#include "vicinal/kernels/hopper_backward.cuh"
#include "vicinal/numeric.cuh"
