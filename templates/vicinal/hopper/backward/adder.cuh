// The warp of the backward pass that brings the groups' sums for tiles of queries to memory, where other
// blocks add to the same ones. Whose sum completes them hands them to the warps that finish them.
#pragma once

#include "vicinal/hopper/backward/layout.cuh"
#include "vicinal/ptx/tensor_copy.cuh"

namespace vicinal::hopper::backward {

template <Variant V, int HeadDim, int ValueDim, class Schedule>
class Adder {
  using L = BackwardLayout<V, HeadDim, ValueDim, Schedule>;
  using Control = typename L::Control;
  using Sums = typename L::Sums;

 public:
  VICINAL_DEVICE Adder(const LaunchArguments<typename V::Arguments>& arguments, u32 shared, Control& c)
      : launch(arguments), a(arguments.backward), base(shared), control(c) {}

  // By one warp.
  VICINAL_DEVICE void run() {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) named_arrive(sums_empty(group), kAddingThreads);
    const int tiles = query_boxes<V>(a).count();
    Place<kItemSlots> slot;
    Place<L::kQueryStages> place;
#pragma unroll 1
    for (Item item; (item = next_item(control, slot)).exists;) {
#pragma unroll 1
      for (bool more = true; more; place.advance()) {
        barrier_wait(shared_address(&control.q_full[place.stage()]), place.parity());
        const QueryNote<V::rank> note = control.note[place.stage()];
        release(control.q_empty[place.stage()]);
        more = !(note.flags & kEnd);
        if (more)
          add({(static_cast<i64>(item.b) * a.heads + note.h) * tiles + note.tile, note.adds}, note.turn);
      }
      if (launch.in_order) pass_turn();
        // The groups have had gradients of values where their sums were.
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        named_sync(sums_full(group), kAddingThreads);
        named_arrive(sums_empty(group), kAddingThreads);
      }
    }
    if (lane() == 0) store_wait();
    count_all();
    look_at_counts();
#pragma unroll
    for (int i = 0; i < kFinishers; ++i) {
      barrier_wait(shared_address(&control.complete_empty[complete.stage()]), complete.parity() ^ 1);
      hand_out(kNoTile);
    }
  }

 private:
  // A tile of queries that was added to, by its number among all, and how many tiles of keys do.
  struct Added {
    i64 tile;
    u32 adds;
  };

  VICINAL_DEVICE void add(const Added& to, u32 turn) {
    // Who is the first in order stores, so that nobody has to clear the sums.
    const bool stores = launch.in_order && turn == 0;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      named_sync(sums_full(group), kAddingThreads);
      if (group == 0 && launch.in_order && !stores) take_turn(launch.adds + to.tile, turn);
      if (lane() != 0) continue;
      float* const sums = launch.query_sums + to.tile * Sums::kFloats + group * Sums::kGroupFloats;
      const u32 from = base + L::kSums + group * Sums::kGroupFloats * 4;
      if (stores) {
        store_bytes(sums, from, Sums::kGroupFloats * 4);
      } else {
        add_floats(sums, from, Sums::kGroupFloats * 4);
      }
      store_commit();
    }
    if (lane() == 0) store_wait_read();
    __syncwarp();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) named_arrive(sums_empty(group), kAddingThreads);
    // What this tile has added may take its time; what those before have is there.
    if (launch.in_order || uncounted == kMostUncounted) {
      if (lane() == 0) store_wait_before<kGroups>();
      look_at_counts();
      count_all();
    }
    if (lane() == uncounted) added = to;
    ++uncounted;
  }

  // Who adds before has drawn its item before, and so is at work.
  VICINAL_DEVICE void take_turn(const u32* adds, u32 turn) {
    if (__shfl_sync(~0u, lane() == 0 ? load_acquire(adds) : 0, 0) != turn) {
      // Nobody should wait for this block meanwhile.
      pass_turn();
      if (lane() == 0) spin_until([&] { return load_acquire(adds) == turn; });
      __syncwarp();
    }
    if (lane() == 0) global_proxy_fence();
  }
  // Others may add to the tile of queries that this one has added to last.
  VICINAL_DEVICE void pass_turn() {
    if (uncounted == 0) return;
    if (lane() == 0) store_wait();
    look_at_counts();
    count_all();
  }

  // Lets all know who was added to: a lane, one tile. Without an order nobody waits for it, and it is done
  // for many tiles at a time, since the fence takes as long as the products of a tile.
  VICINAL_DEVICE void count_all() {
    if (lane() == 0) global_proxy_fence();
    __syncwarp();
    counted = lane() < uncounted;
    if (counted) {
      last = added;
      before = add_release(launch.adds + last.tile, 1);
    }
    uncounted = 0;
  }
  // Whose sums are complete is looked at late, when the counters have answered. Where the finishers are
  // behind, the kernel of queries finishes them.
  VICINAL_DEVICE void look_at_counts() {
    const bool full = counted && before + 1 == last.adds && a.d_q.data != nullptr;
    counted = false;
#pragma unroll 1
    for (u32 left = __ballot_sync(~0u, full); left != 0; left &= left - 1) {
      const int from = __ffs(static_cast<int>(left)) - 1;
      const auto tile = static_cast<i64>(__shfl_sync(~0u, static_cast<u64>(last.tile), from));
      if (!barrier_passed(shared_address(&control.complete_empty[complete.stage()]), complete.parity() ^ 1))
        break;
      if (lane() == 0) launch.adds[tile] = kFinished;
      hand_out(tile);
    }
  }
  VICINAL_DEVICE void hand_out(i64 tile) {
    if (lane() == 0) {
      control.complete[complete.stage()] = tile;
      barrier_arrive(shared_address(&control.complete_full[complete.stage()]));
    }
    complete.advance();
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;

  // By lanes: tiles that were added to and are not counted yet; those that were counted last, before which so
  // many had added.
  static constexpr int kMostUncounted = 8;
  Added added = {}, last = {};
  int uncounted = 0;
  bool counted = false;
  u32 before = 0;
  Place<kCompleteSlots> complete;
};

}  // namespace vicinal::hopper::backward
