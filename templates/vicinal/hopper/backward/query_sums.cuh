// From the sums of a tile of queries to the gradients of these.
#pragma once

#include "vicinal/hopper/backward/contract.cuh"
#include "vicinal/hopper/layout.cuh"

namespace vicinal::hopper::backward {

template <Variant V, class T, int HeadDim, int TileQ>
class SumsReader {
  static constexpr int kRank = V::rank;
  using Sums = QuerySums<TileQ, HeadDim>;

 public:
  VICINAL_DEVICE explicit SumsReader(const LaunchArguments<typename V::Arguments>& arguments)
      : launch(arguments), a(arguments.backward) {}

  // By a block of a thread for each that has sums.
  VICINAL_DEVICE void read(int b, int h, int tile) const {
    const BoxGrid<V> boxes = query_boxes<V>(a);
    const int thread = static_cast<int>(threadIdx.x), group = thread / kGroupThreads;
    const int first_row = (Sums::kSplitsChannels ? 0 : group * kGroupRows) + warp() * 16 + lane() / 4,
              first_channel = (Sums::kSplitsChannels ? group * Sums::kColumns : 0) + lane() % 4 * 8;
    Query<kRank> q = {};
    q.b = b;
    q.h = h;
    q.kv_h = h / static_cast<int>(a.heads / a.kv_heads);
    const float factor = last_factor<V>(a, q);
    const float4* const from =
        reinterpret_cast<const float4*>(launch.query_sums +
                                        ((b * a.heads + h) * boxes.count() + tile) * Sums::kFloats +
                                        group * Sums::kGroupFloats) +
        thread % kGroupThreads;
    int place[kRank];
    boxes.place(tile, place);
    T* rows[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      Token<kRank> token;
      rows[r] = boxes.token(place, first_row + 8 * r, token)
                    ? static_cast<T*>(a.d_q.data) + b * a.d_q.batch + h * a.d_q.head +
                          token_offset(a.d_q, token) + first_channel
                    : nullptr;
    }
    float check = 0.0f;  // NaN once anything is not finite
#pragma unroll 2
    for (int n = 0; n < Sums::kPerThread / 4; n += 4) {
      // Of four groups of 8 channels the thread's two in each.
      u32 two[2][4];
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const float4 four = from[(n + m) * kGroupThreads];
        const float sums[2][2] = {{four.x, four.y}, {four.z, four.w}};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (rows[r] != nullptr) check = fmaf(sums[r][1], 0.0f, fmaf(sums[r][0], 0.0f, check));
          two[r][m] = pack<T>(sums[r][0] * factor, sums[r][1] * factor);
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        transpose(two[r]);
        if (rows[r] != nullptr)
          *reinterpret_cast<uint4*>(rows[r] + 8 * n) = {two[r][0], two[r][1], two[r][2], two[r][3]};
      }
    }
    if (check != 0.0f) *launch.poisoned = 1;
  }

 private:
  // Of the four threads that share rows each gets one group's channels.
  VICINAL_DEVICE static void transpose(u32 (&x)[4]) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      const bool upper = lane() & step;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (i & step) continue;
        const u32 got = __shfl_xor_sync(~0u, upper ? x[i] : x[i | step], step);
        x[i] = upper ? got : x[i];
        x[i | step] = upper ? x[i | step] : got;
      }
    }
  }

  const LaunchArguments<typename V::Arguments>& launch;
  const typename V::Arguments& a;
};

}  // namespace vicinal::hopper::backward
