// The only header that an emitted kernel includes.
//
// Every kernel has one shape, so that emitted code chooses by namespace alone:
//
//   template <AttentionVariant V, class T, int HeadDim, int ValueDim, int TileQ, int TileK>
//   void forward(const typename V::Arguments& a);
//
// run by a one-dimensional grid of blocks of kThreads threads.
#pragma once

#include "vicinal/captured.cuh"
#include "vicinal/contract.cuh"
#include "vicinal/kernels/portable.cuh"
#include "vicinal/kernels/reference.cuh"
#include "vicinal/numeric.cuh"
