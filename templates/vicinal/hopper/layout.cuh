// Who is who in a block of the Hopper kernel, and where things lie in its shared memory.
#pragma once

#include "vicinal/hopper/contract.cuh"
#include "vicinal/ptx/barrier.cuh"
#include "vicinal/ptx/warpgroup.cuh"
#include "vicinal/tile_row.cuh"

namespace vicinal::hopper {

constexpr int kGroupThreads = 128, kGroupRows = 64;  // of a warpgroup
constexpr int kWorkSlots = 2;

VICINAL_DEVICE int lane() {
  return static_cast<int>(threadIdx.x) % 32;
}
// The warp's number in its warpgroup, and whether the thread is the group's first.
VICINAL_DEVICE int warp() {
  return static_cast<int>(threadIdx.x) / 32 % 4;
}
VICINAL_DEVICE bool leads() {
  return threadIdx.x % kGroupThreads == 0;
}
// The thread's first column in the accumulator of a product.
VICINAL_DEVICE int column() {
  return lane() % 4 * 2;
}

// Where eight channels of a row stand that is staged in slabs of so many rows, by the swizzle of 128 bytes.
template <int SlabRows>
VICINAL_DEVICE u32 staged_chunk(u32 start, int row, int chunk) {
  return start + chunk / 8 * (SlabRows * kSlabRowBytes) + row * kSlabRowBytes + ((chunk % 8 ^ row % 8) << 4);
}

// The warp's 16 rows, which it has staged itself, from `first` on, row by row: a stored box knows no
// dilation. row(r) is where a row goes, or null.
template <int Dim, int SlabRows, class Row>
VICINAL_DEVICE void store_staged_rows(u32 start, int first, const Row& row) {
#pragma unroll 1
  for (int n = lane(); n < 16 * (Dim / 8); n += 32) {
    const int chunk = n % (Dim / 8), r = first + n / (Dim / 8);
    auto* const to = row(r);
    if (to == nullptr) continue;
    *reinterpret_cast<uint4*>(to + chunk * 8) = load_shared(staged_chunk<SlabRows>(start, r, chunk));
  }
}

// The number-th piece of work where so many slices (heads and batches) are done before the next ones: a tile
// of each of them, then the next tile.
struct Piece {
  u32 slice, tile;
};
VICINAL_DEVICE Piece piece_of(u32 number, u32 slices, u32 tiles, u32 section) {
  const u32 before = number / (section * tiles) * section, inside = number - before * tiles,
            here = section < slices - before ? section : slices - before;
  return {before + inside % here, inside / here};
}

// Every warp for itself: another may still have to read what stands beside the stage.
VICINAL_DEVICE void release(u32 empty) {
  __syncwarp();
  if (lane() == 0) barrier_arrive(empty);
}
VICINAL_DEVICE void release(u64& empty) {
  release(shared_address(&empty));
}

// A tile of queries, as the scheduler hands it to the producer and the consumers, and the tiles of keys that
// it visits: a list of runs, or all in reach.
template <int Rank>
struct Work {
  int exists;  // 0: there is no more
  int b, h, kv_h;
  TileRow<Rank> row;
  u32 first_run, last_run;  // of the list

  VICINAL_DEVICE bool visits_any() const { return first_run != last_run || row.all_tiles != 0; }
};

// A tile of keys, beside its stage in the ring.
template <int Rank>
struct TileNote {
  int first[Rank];  // position of the first key in its dilation group; of the context's, its index
  u32 flags;
};
constexpr u32 kPartial = 1, kLast = 2, kContext = 4;

// A place in a ring of so many stages, and the parity of the pass over it.
template <u32 Stages>
class Place {
 public:
  VICINAL_DEVICE u32 stage() const { return stage_; }
  VICINAL_DEVICE u32 parity() const { return parity_; }
  // Of what is kept for two passes: when it is written again no warp can still be reading it.
  VICINAL_DEVICE u32 slot() const { return stage_ + parity_ * Stages; }

  VICINAL_DEVICE void advance() {
    if (++stage_ == Stages) {
      stage_ = 0;
      parity_ ^= 1;
    }
  }
  // One step behind.
  VICINAL_DEVICE Place before() const {
    Place place;
    place.stage_ = stage_ == 0 ? Stages - 1 : stage_ - 1;
    place.parity_ = stage_ == 0 ? parity_ ^ 1 : parity_;
    return place;
  }

 private:
  u32 stage_ = 0, parity_ = 0;
};

// Schedule: an emitted struct of constants (see compiler/emit/cuda/hopper_schedules.h).
template <class V, int HeadDim, int ValueDim, class Schedule>
struct Layout {
  static constexpr int kTileQ = Schedule::tile_q, kTileK = Schedule::tile_k, kStages = Schedule::stages;
  static constexpr int kGroups = kTileQ / kGroupRows;  // of consumers
  static constexpr int kHeadSlabs = slabs(HeadDim), kValueSlabs = slabs(ValueDim);
  static constexpr int kQueryBytes = kTileQ * kHeadSlabs * kSlabRowBytes;
  static constexpr int kOutBytes = kTileQ * kValueSlabs * kSlabRowBytes;
  static constexpr int kKeyBytes = kTileK * kHeadSlabs * kSlabRowBytes;
  static constexpr int kValueBytes = kTileK * kValueSlabs * kSlabRowBytes;

  // The output is staged beside the queries, or where they were.
  static constexpr bool kOutputApart = Schedule::output_apart;
  static constexpr int kQueries = 0;
  static constexpr int kOutput = kOutputApart ? kQueryBytes : kQueries;
  static constexpr int kKeys =
      kOutputApart ? kOutput + kOutBytes : (kQueryBytes > kOutBytes ? kQueryBytes : kOutBytes);
  static constexpr int kValues = kKeys + kStages * kKeyBytes;
  static constexpr int kControl = kValues + kStages * kValueBytes;

  struct Control {
    u64 q_full, q_empty;
    u64 k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
    u64 work_full[kWorkSlots], work_empty[kWorkSlots];
    Work<V::rank> work[kWorkSlots];
    // By Place::slot.
    TileNote<V::rank> note[2 * kStages];
    KeyRanges<V::rank> limits[V::neighborhood || V::has_limits ? kTileQ : 1];  // of the tile's queries
    typename V::Column column[V::has_columns ? 2 * kStages : 1][V::has_columns ? kTileK : 1];
  };

  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kControl + static_cast<int>(sizeof(Control));
};

// Numbered barriers; 0 is the block's own.
VICINAL_DEVICE constexpr int turn_of(int group) {
  return 1 + group;
}
VICINAL_DEVICE constexpr int barrier_of(int group) {
  return 4 + group;
}

}  // namespace vicinal::hopper
