// What a kernel is launched with. Every field is one 8-byte word, and the host writes the words in the order
// in which they stand here, so that ranks and parameter lists need no host type of their own.
#pragma once

#include "vicinal/platform.cuh"

namespace vicinal {

// A tensor by its strides, in elements. A context tensor or a sequence uses axis[0]; the rest are 0.
template <int Rank>
struct TensorArgument {
  void* data;
  i64 batch, head, dim;
  i64 axis[Rank];
};

// One axis of the token grid. A shard of a larger grid holds `local` tokens from `origin` on.
struct GridAxis {
  i64 extent;  // of the whole grid
  i64 local, origin;
};

// A captured tensor: element strides and extents, slowest dimension first.
template <class T, int Rank>
struct InputArgument {
  const T* data;
  i64 stride[Rank == 0 ? 1 : Rank];
  i64 extent[Rank == 0 ? 1 : Rank];
};

// Tiles [begin, end) of a row, by their numbers; the lowest bit of the second word says that every pair is
// kept.
struct TileRun {
  u32 begin, end_and_full;
};

// The runs [first, last) of a row.
struct RowRuns {
  u32 first, last;
};

// How a kernel that works in tiles walks them (tiles.cuh). `row_runs` and `runs` list the tiles of keys that
// each tile of queries has to visit; without a list all in its reach are visited. Where both sides' tiles lie
// on grids (box_grid.cuh), `pairs` has their bits.
template <int Rank>
struct TileArguments {
  i64 q[Rank], k[Rank];  // tokens of a tile along each axis, in its dilation group
  i64 rows;              // tiles of queries
  RowRuns* row_runs;     // [slice][row]; null without a list
  TileRun* runs;
  i64 run_capacity;  // of a row, where a kernel writes the list; its runs start at row * run_capacity
  // Words of 32 tiles of keys, by slice and tile of queries: those of which some pair is kept, then those of
  // which all are.
  u32* pairs;
  // The slice of a batch and a query head: b * slice_batch + h / heads_per_slice * slice_head.
  i64 slice_batch, slice_head, heads_per_slice;
};

// Rank: number of grid axes (1 for a sequence). Parameters: emitted with the variant; its dynamic params,
// named extents and captured inputs.
template <int Rank, class Parameters>
struct ForwardArguments {
  i64 batch, heads, kv_heads;
  i64 tokens, keys, context;  // of the whole grid; context keys are never sharded
  GridAxis q_axis[Rank], k_axis[Rank];
  TensorArgument<Rank> q, k, v, context_k, context_v, out;
  TensorArgument<Rank> lse;  // float; dim is unused; data is null when it is not wanted
  TileArguments<Rank> tiles;
  Parameters parameters;
};

}  // namespace vicinal
