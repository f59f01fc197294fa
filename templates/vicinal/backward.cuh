// The only header that an emitted backward kernel includes.
#pragma once

#include "vicinal/captured.cuh"
#include "vicinal/kernels/backward.cuh"
#include "vicinal/kernels/captured_gradients.cuh"
#include "vicinal/kernels/tangents.cuh"
#include "vicinal/numeric.cuh"
