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
    if (lane() == 0) store_wait();
  }

 private:
  VICINAL_DEVICE void add(i64 number, u32 turn) {
    bool stores = false;
    if (lane() == 0) stores = begin(launch.turns + number, turn);
    float* const to = launch.query_sums + number * Sums::kFloats;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      named_sync(sums_full(group), kAddingThreads);
      if (lane() != 0) continue;
      const u32 from = base + L::kSums + group * Sums::kGroupFloats * 4;
      if (stores)
        store_bytes(to + group * Sums::kGroupFloats, from, Sums::kGroupFloats * 4);
      else
        add_floats(to + group * Sums::kGroupFloats, from, Sums::kGroupFloats * 4);
      store_commit();
    }
    if (lane() == 0) store_wait_read();
    __syncwarp();
#pragma unroll
    for (int group = 0; group < kGroups; ++group) named_arrive(sums_empty(group), kAddingThreads);
    if (!stores && !launch.in_turn()) return;
    added = launch.turns + number;
    said = first_stores<V>(launch) ? static_cast<u32>(kStored) : turn + 1;
  }

  // Before there is anything to add; what was added last comes to memory while the first question is under
  // way. Whether this tile of keys stores. Who is waited for is at work: it has asked before, or drawn its
  // item before.
  VICINAL_DEVICE bool begin(u32* turns, u32 turn) {
    const u32 awaited = first_stores<V>(launch) ? static_cast<u32>(kStored) : turn;
    const u32 now = turn == 0 && !first_stores<V>(launch) ? 0 : load_acquire(turns);
    hand_over();
    if (first_stores<V>(launch) ? now == kNobody && atomicCAS(turns, kNobody, kStoring) == kNobody
                                : turn == 0)
      return true;
    if (now != awaited) spin_until([&] { return load_acquire(turns) == awaited; });
    global_proxy_fence();
    return false;
  }

  // The next tile of keys may add to the tile of queries that this one has added to last.
  VICINAL_DEVICE void hand_over() {
    if (added == nullptr) return;
    wait_until_added();
    store_release(added, said);
    added = nullptr;
  }
  VICINAL_DEVICE static void wait_until_added() {
    store_wait();
    global_proxy_fence();
  }

  // The item adds no more.
  VICINAL_DEVICE void finish(const Item& item) {
    hand_over();
    if (launch.in_turn()) return;
    wait_until_added();
    add_release(launch.finished + item.b * a.kv_heads + item.kv_h, 1);
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
  const u32 base;
  Control& control;
  // The turns of the tile of queries that was added to last, where they are not said yet.
  u32* added = nullptr;
  u32 said = 0;
};

}  // namespace vicinal::hopper::backward
