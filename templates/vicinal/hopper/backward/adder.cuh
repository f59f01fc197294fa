// The warp of the backward pass that brings the groups' sums for tiles of queries to memory, in turn with the
// blocks that add to the same ones.
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
        if (more) add((static_cast<i64>(item.b) * a.heads + note.h) * tiles + note.tile, note.turn);
      }
      if (lane() == 0) finish(item);
        // The groups have had gradients of values where their sums were.
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        named_sync(sums_full(group), kAddingThreads);
        named_arrive(sums_empty(group), kAddingThreads);
      }
    }
    if (lane() != 0) return;
    store_wait();
    hand_over();
  }

 private:
  VICINAL_DEVICE void add(i64 number, u32 turn) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      named_sync(sums_full(group), kAddingThreads);
      if (lane() != 0) continue;
      if (launch.turns != nullptr && group == 0) take_turn(launch.turns + number, turn);
      add_floats(launch.query_sums + number * Sums::kFloats + group * Sums::kGroupFloats,
                 base + L::kSums + group * Sums::kGroupFloats * 4, Sums::kGroupFloats * 4);
      store_commit();
    }
    if (lane() == 0) store_wait_read();
    __syncwarp();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) named_arrive(sums_empty(group), kAddingThreads);
    if (lane() != 0) return;
    if (added != nullptr || finished != nullptr) {
      // What this tile has added may take its time; what the last one has is there.
      store_wait_before<kGroups>();
      hand_over();
    }
    if (launch.turns == nullptr) return;
    added = launch.turns + number;
    next_turn = turn + 1;
  }

  // Who adds before has drawn its item before, and so is at work.
  VICINAL_DEVICE void take_turn(const u32* turns, u32 turn) {
    if (load_acquire(turns) != turn) {
      // Nobody should wait for this block meanwhile.
      pass_turn();
      spin_until([&] { return load_acquire(turns) == turn; });
    }
    global_proxy_fence();
  }

  // The item adds no more. Nobody hurries to know where tiles of keys do not wait for each other.
  VICINAL_DEVICE void finish(const Item& item) {
    pass_turn();
    if (launch.finished != nullptr) finished = launch.finished + item.b * a.kv_heads + item.kv_h;
  }

  // The next tile of keys may add to the tile of queries that this one has added to last.
  VICINAL_DEVICE void pass_turn() {
    if (added == nullptr && finished == nullptr) return;
    store_wait();
    hand_over();
  }
  // All that is not said yet has been added.
  VICINAL_DEVICE void hand_over() {
    global_proxy_fence();
    if (added != nullptr) store_release(added, next_turn);
    if (finished != nullptr) add_release(finished, 1);
    added = finished = nullptr;
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  // The turn of the tile of queries that was added to last, and the count of the last item's head, where they
  // are not said yet.
  u32 *added = nullptr, *finished = nullptr;
  u32 next_turn = 0;
};

}  // namespace vicinal::hopper::backward
