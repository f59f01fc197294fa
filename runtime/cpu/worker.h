// One thread's part of a run: tasks, one after another, in memory that is kept for the next run.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "runtime/cpu/compiled_kernel.h"
#include "runtime/cpu/expression.h"
#include "runtime/cpu/key_sums.h"
#include "runtime/plan/tile_plan.h"

namespace vicinal::cpu {

class Worker {
 public:
  // `checked`: the module before any pass. Both must outlive it.
  Worker(const CompiledKernel& compiled, const ir::Module& checked);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // For a run. The plan must outlive it.
  void start(const runtime::Problem& problem, const plan::TilePlan& plan);
  // Computes a row of the plan, which is a tile of queries.
  void task(std::int64_t batch, std::int64_t head, std::int64_t number);
  // Whether a result stands that is not finite and may come from a key that its query does not keep.
  bool contaminated() const { return contaminated_; }

 protected:
  // A tile of keys, and the arrays that it points to.
  struct KeySlot {
    KeyTile tile{};
    std::vector<std::int64_t> rows;
    std::vector<std::int32_t> places;
    std::vector<std::int64_t> sum_rows;
  };

  std::size_t queries() const { return static_cast<std::size_t>(code_.shape.tile_q); }
  std::size_t keys() const { return static_cast<std::size_t>(code_.shape.tile_k); }

  void start_slice(std::int64_t b, std::int64_t h);
  void fill_queries(const plan::TileGrid& grid);
  void fill_keys(KeySlot& slot, const plan::TileGrid& grid, std::int64_t number, bool full);
  void fill_stretch(KeySlot& slot, const runtime::Strided& k, const runtime::Strided& v, std::int64_t local,
                    int dilation);
  void fill_box(KeySlot& slot, const plan::TileGrid& grid, const runtime::Strided& k,
                const runtime::Strided& v);
  void fill_sum_rows(KeySlot& slot, const plan::TileGrid& grid, bool context);
  // What the code's end() says of the result.
  std::int32_t compute(const Code& code, std::int64_t number);
  void visit(const Code& code, KeyTile& tile, const KeyTile* next);

  struct FreeAligned {
    void operator()(float* p) const;
  };

  const CompiledKernel& compiled_;
  const emit::CpuKernel& kernel_;
  const Code& code_;
  const PlaceLayout layout_;
  const bool windowed_;
  bool whole_rows_ = false;  // head_dim is a multiple of sixteen
  std::unique_ptr<float, FreeAligned> workspace_;

  // Of a run. A copy of the problem, which expressions refer to.
  runtime::Problem problem_;
  const plan::TilePlan* plan_ = nullptr;
  std::vector<CodeInput> inputs_;
  std::vector<Expression> expressions_;  // of the uniforms
  std::optional<Expression> sink_;
  Expression::Scratch scratch_;
  bool contaminated_ = false;
  KeySums* sums_ = nullptr;  // of a backward pass

  // Of a batch and head.
  std::int64_t batch_ = -1, head_ = -1, kv_head_ = 0;
  std::vector<std::uint32_t> uniforms_;

  // Of a task.
  plan::Row row_;
  QueryTile tile_{};
  std::vector<std::int64_t> query_rows_;  // of q, out and lse
  std::vector<std::int32_t> query_places_;
  KeySlot slots_[2];  // a tile of keys, and the next one
  std::vector<Stretch> box_, line_heads_;
};

}  // namespace vicinal::cpu
