// The warp of the backward pass that brings the groups' sums for tiles of queries to memory, where other
// blocks add to the same ones. Whose tile of keys is the first stores, so that nobody has to clear them;
// whose sum completes them hands them to the warps that finish them.
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
        if (more) add(item.b, note, tiles);
      }
      if (lane() == 0) pass_turn();
        // The groups have had gradients of values where their sums were.
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        named_sync(sums_full(group), kAddingThreads);
        named_arrive(sums_empty(group), kAddingThreads);
      }
    }
    if (lane() != 0) return;
    store_wait();
#pragma unroll
    for (int i = 0; i < kFinishers; ++i) {
      barrier_wait(shared_address(&control.complete_empty[complete.stage()]), complete.parity() ^ 1);
      hand_out({0, 0, 0, 0});
    }
  }

 private:
  VICINAL_DEVICE void add(int b, const QueryNote<V::rank>& note, int tiles) {
    const i64 number = (static_cast<i64>(b) * a.heads + note.h) * tiles + note.tile;
    if (lane() == 0) {
      settle_last();
      take_turn(launch.adds + number, note.turn);
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      named_sync(sums_full(group), kAddingThreads);
      if (lane() != 0) continue;
      float* const to = launch.query_sums + number * Sums::kFloats + group * Sums::kGroupFloats;
      const u32 from = base + L::kSums + group * Sums::kGroupFloats * 4;
      if (note.turn == 0) {
        store_bytes(to, from, Sums::kGroupFloats * 4);
      } else {
        add_floats(to, from, Sums::kGroupFloats * 4);
      }
      store_commit();
    }
    if (lane() == 0) store_wait_read();
    __syncwarp();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) named_arrive(sums_empty(group), kAddingThreads);
    if (lane() != 0) return;
    // What this tile has added may take its time; what the last one has is there.
    store_wait_before<kGroups>();
    hand_over();
    added = {launch.adds + number, note.adds, {1, b, note.h, note.tile}};
  }

  // Who adds before has drawn its item before, and so is at work.
  VICINAL_DEVICE void take_turn(const u32* adds, u32 turn) {
    if (turn == 0) return;
    const auto comes = [&] {
      const u32 before = load_acquire(adds);
      return launch.in_order ? before == turn : before != 0;
    };
    if (!comes()) {
      // Nobody should wait for this block meanwhile.
      pass_turn();
      spin_until(comes);
    }
    global_proxy_fence();
  }

  // Others may add to the tile of queries that this one has added to last.
  VICINAL_DEVICE void pass_turn() {
    store_wait();
    hand_over();
    settle_last();
  }
  VICINAL_DEVICE void hand_over() {
    if (added.counter == nullptr) return;
    global_proxy_fence();
    before = add_release(added.counter, 1);
    last = added;
    added.counter = nullptr;
  }
  // Whether the tile's sums are complete is looked at late, when the counter has answered. Where the
  // finishers are behind, the kernel of queries finishes them.
  VICINAL_DEVICE void settle_last() {
    if (last.counter == nullptr) return;
    if (before + 1 == last.adds && a.d_q.data != nullptr &&
        barrier_passed(shared_address(&control.complete_empty[complete.stage()]), complete.parity() ^ 1)) {
      *last.counter = kFinished;
      hand_out(last.sums);
    }
    last.counter = nullptr;
  }
  VICINAL_DEVICE void hand_out(const CompleteSums& sums) {
    control.complete[complete.stage()] = sums;
    barrier_arrive(shared_address(&control.complete_full[complete.stage()]));
    complete.advance();
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;

  // A tile of queries that was added to, and how many do.
  struct Added {
    u32* counter;  // null: none
    u32 adds;
    CompleteSums sums;
  };
  Added added = {};  // last, and not yet handed over
  Added last = {};   // handed over, when so many had added before
  u32 before = 0;
  Place<kCompleteSlots> complete;
};

}  // namespace vicinal::hopper::backward
