#include "runtime/cpu/compiled_kernel.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <map>
#include <new>

#include "compiler/support/hash.h"
#include "runtime/cpu/expression.h"
#include "runtime/host/parallel.h"

namespace vicinal::cpu {
namespace {

using runtime::Problem;

// Every index of a box, the last axis fastest: visit(n, token by axis), tokens as coordinates of the grid.
template <class Visit>
void each_token(const std::vector<Stretch>& box, const plan::TileGrid& grid, Visit visit) {
  std::int32_t token[plan::kMaxRank], left[plan::kMaxRank];
  const std::size_t rank = box.size();
  for (std::size_t i = 0; i < rank; ++i) token[i] = box[i].first, left[i] = box[i].count;
  for (std::int64_t n = 0;; ++n) {
    visit(n, token);
    std::size_t i = rank;
    while (i > 0) {
      token[i - 1] += grid.axis(i - 1).dilation;
      if (--left[i - 1] > 0) break;
      token[i - 1] = box[i - 1].first;
      left[i - 1] = box[i - 1].count;
      --i;
    }
    if (i == 0) return;
  }
}

std::int64_t tokens_of(const std::vector<Stretch>& box) {
  std::int64_t count = 1;
  for (const Stretch& s : box) count *= s.count;
  return count;
}

std::int64_t offset_of(const runtime::Strided& t, const std::vector<runtime::GridAxis>& axes,
                       const std::int32_t* token) {
  std::int64_t at = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) at += (token[i] - axes[i].origin) * t.axis[i];
  return at;
}

std::int32_t position_of(const std::vector<runtime::GridAxis>& axes, const std::int32_t* token) {
  std::int64_t at = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) at = at * axes[i].extent + token[i];
  return static_cast<std::int32_t>(at);
}

const void* slice_of(const runtime::Strided& t, std::int64_t b, std::int64_t h) {
  if (t.data == nullptr) return nullptr;
  return static_cast<const std::byte*>(t.data) +
         (b * t.batch + h * t.head) * static_cast<std::int64_t>(size_of(t.dtype));
}

struct FreeAligned {
  void operator()(float* p) const { ::operator delete (p, std::align_val_t{64}); }
};

}  // namespace

// What one thread needs for one task at a time.
struct CompiledKernel::Worker {
  explicit Worker(const CompiledKernel& kernel_owner)
      : owner(kernel_owner),
        kernel(owner.kernel_),
        code(owner.code_),
        layout{owner.kernel_.declarations().axes.size()},
        workspace(
            static_cast<float*>(::operator new (code.shape.workspace * sizeof(float), std::align_val_t{64}))),
        query_rows(3 * queries()),
        query_places(layout.query_arrays() * queries()),
        uniforms(kernel.uniforms.size() + 1) {
    // Lanes that hold no query compute with what is there.
    std::memset(workspace.get(), 0, code.shape.workspace * sizeof(float));
    for (KeySlot& slot : slots) {
      slot.rows.resize(2 * keys());
      slot.places.resize(layout.key_arrays() * keys());
    }
  }

  std::size_t queries() const { return static_cast<std::size_t>(code.shape.tile_q); }
  std::size_t keys() const { return static_cast<std::size_t>(code.shape.tile_k); }

  // For a run.
  void start(const ir::Module& checked, const Problem& p, const plan::TilePlan& tiles) {
    problem = &p;
    plan = &tiles;
    batch = head = -1;
    contaminated = false;
    inputs.clear();
    for (const runtime::CapturedInput& x : p.inputs) {
      static constexpr double zero = 0;
      CodeInput input{&zero, {}, {}};
      if (!left_out(x)) {
        input.data = x.data;
        std::copy(x.extents.begin(), x.extents.end(), input.extent);
        std::copy(x.strides.begin(), x.strides.end(), input.stride);
      }
      inputs.push_back(input);
    }
    expressions.clear();
    if (kernel.has_sink) sink.emplace(checked, p, checked.root(ir::Root::sink), Arithmetic::wide);
    for (const emit::CpuUniform& u : kernel.uniforms)
      expressions.emplace_back((u.context ? kernel.context->form : kernel.grid.form).module, p, u.node,
                               u.exact ? Arithmetic::exact : Arithmetic::wide);
  }

  void task(std::int64_t b, std::int64_t h, std::int64_t number) {
    const plan::TileGrid& grid = plan->grid();
    grid.row(number, row);
    for (const Stretch& s : row.tokens)
      if (s.count == 0) return;
    if (b != batch || h != head) slice(b, h);
    fill_queries(grid);
    if (compute(code, number) == 0) return;
    if (const Code* const exact = owner.exact_code())
      compute(*exact, number);
    else
      contaminated = true;
  }

  // Whether a result stands that is not finite and may come from a key that its query does not keep.
  bool contaminated = false;

 private:
  struct KeySlot {
    KeyTile tile{};
    std::vector<std::int64_t> rows;
    std::vector<std::int32_t> places;
  };

  void slice(std::int64_t b, std::int64_t h) {
    batch = b;
    head = h;
    kv_head = h / (problem->heads / problem->kv_heads);
    Place place;
    place.b = b;
    place.h = h;
    place.kv_h = kv_head;
    if (kernel.has_sink) fill_sink(place);
    for (std::size_t i = 0; i < expressions.size(); ++i) {
      const emit::CpuUniform& u = kernel.uniforms[i];
      const ir::Type type = (u.context ? kernel.context->form : kernel.grid.form).module[u.node].type;
      expressions[i].start_row(place, scratch);
      const ir::Value value = expressions[i].at(place, scratch);
      uniforms[i] = type == ir::Type::real      ? std::bit_cast<std::uint32_t>(static_cast<float>(value.f))
                    : type == ir::Type::integer ? static_cast<std::uint32_t>(value.i)
                                                : std::uint32_t{value.b};
    }
  }

  void fill_sink(const Place& place) {
    sink->start_row(place, scratch);
    uniforms.back() = std::bit_cast<std::uint32_t>(static_cast<float>(sink->at(place, scratch).f));
  }

  void fill_queries(const plan::TileGrid& grid) {
    const Problem& p = *problem;
    const std::size_t stride = queries();
    const auto place = [&](std::size_t array, std::size_t n) -> std::int32_t& {
      return query_places[array * stride + n];
    };
    const std::int32_t shift =
        kernel.declarations().align_end ? static_cast<std::int32_t>(p.keys - p.tokens) : 0;
    each_token(row.tokens, grid, [&](std::int64_t number, const std::int32_t* token) {
      const auto n = static_cast<std::size_t>(number);
      query_rows[n] = offset_of(p.q, p.q_axis, token);
      query_rows[stride + n] = offset_of(p.out, p.q_axis, token);
      if (p.lse.data != nullptr) query_rows[2 * stride + n] = offset_of(p.lse, p.q_axis, token);
      const std::int32_t index = position_of(p.q_axis, token);
      place(PlaceLayout::kPosition, n) = index + shift;
      place(PlaceLayout::kIndex, n) = index;
      for (std::size_t i = 0; i < layout.axes; ++i) {
        place(layout.query_coordinate(i), n) = token[i];
        if (!kernel.windowed(i)) continue;
        const KeyRange range = neighborhood(grid.axis(i), token[i]);
        place(layout.window_begin(i), n) = range.begin;
        place(layout.window_size(i), n) = range.end - range.begin;
      }
    });
    const auto count = static_cast<std::size_t>(tokens_of(row.tokens));
    const auto repeat = [&](auto* array) { std::fill(array + count, array + stride, array[0]); };
    for (std::size_t i = 0; i < 3; ++i) repeat(query_rows.data() + i * stride);
    for (std::size_t i = 0; i < layout.query_arrays(); ++i) repeat(query_places.data() + i * stride);

    tile.q = slice_of(p.q, batch, head);
    tile.q_dim = p.q.dim;
    tile.q_row = query_rows.data();
    tile.out = const_cast<void*>(slice_of(p.out, batch, head));
    tile.out_dim = p.out.dim;
    tile.out_row = query_rows.data() + stride;
    tile.lse = static_cast<float*>(const_cast<void*>(slice_of(p.lse, batch, head)));
    tile.lse_row = query_rows.data() + 2 * stride;
    tile.count = static_cast<std::int64_t>(count);
    tile.uniforms = uniforms.data();
    tile.inputs = inputs.data();
    tile.places = query_places.data();
    tile.workspace = workspace.get();
  }

  // Keys that follow each other at one distance, or a box.
  void fill_keys(KeySlot& slot, const plan::TileGrid& grid, std::int64_t number, bool full) {
    const Problem& p = *problem;
    KeyTile& t = slot.tile;
    const bool context = grid.is_context(row, number);
    const runtime::Strided &k = context ? p.context_k : p.k, &v = context ? p.context_v : p.v;
    grid.tile(row, number, box);
    t.k = slice_of(k, batch, kv_head);
    t.v = slice_of(v, batch, kv_head);
    t.k_dim = k.dim;
    t.v_dim = v.dim;
    t.count = tokens_of(box);
    t.k_row = slot.rows.data();
    t.v_row = slot.rows.data() + keys();
    t.places = slot.places.data();
    t.direct = 0;
    const bool masked = context ? kernel.context->has_mask : kernel.grid.has_mask || windowed;
    t.kind = (context ? kFullContext : kFullTile) + (masked && !full ? 1 : 0);
    if (context || grid.rank() == 1) {
      const int dilation = context ? 1 : grid.axis(0).dilation;
      const std::int64_t local = box[0].first - (context ? 0 : p.k_axis[0].origin);
      t.first = box[0].first;
      t.step = dilation;
      t.first_in_group = box[0].first / dilation;
      stretch(slot, k, v, local, dilation);
      return;
    }
    fill_box(slot, grid, k, v);
  }

  // Along the last axis neighbouring keys are one step apart in everything.
  void fill_box(KeySlot& slot, const plan::TileGrid& grid, const runtime::Strided& k,
                const runtime::Strided& v) {
    const Problem& p = *problem;
    const std::size_t stride = keys(), last = box.size() - 1;
    const auto step = static_cast<std::int32_t>(grid.axis(last).dilation);
    const auto run = static_cast<std::size_t>(box[last].count);
    const std::int64_t k_step = k.axis[last] * step, v_step = v.axis[last] * step;
    const auto ascend = [&](std::size_t array, std::size_t n, std::int32_t from, std::int32_t by) {
      std::int32_t* const to = slot.places.data() + array * stride + n;
      for (std::size_t i = 0; i < run; ++i) to[i] = from + static_cast<std::int32_t>(i) * by;
    };
    std::vector<Stretch>& heads = line_heads;
    heads.assign(box.begin(), box.end());
    heads[last].count = 1;
    each_token(heads, grid, [&](std::int64_t number, const std::int32_t* token) {
      const std::size_t n = static_cast<std::size_t>(number) * run;
      const std::int64_t k_first = offset_of(k, p.k_axis, token), v_first = offset_of(v, p.k_axis, token);
      for (std::size_t i = 0; i < run; ++i) {
        slot.rows[n + i] = k_first + static_cast<std::int64_t>(i) * k_step;
        slot.rows[stride + n + i] = v_first + static_cast<std::int64_t>(i) * v_step;
      }
      if (kernel.reads_key_places) {
        ascend(PlaceLayout::kPosition, n, position_of(p.k_axis, token), step);
        for (std::size_t i = 0; i <= last; ++i)
          ascend(layout.key_coordinate(i), n, token[i], i == last ? step : 0);
      }
      for (std::size_t i = 0; i <= last; ++i)
        if (kernel.windowed(i))
          ascend(layout.key_in_group(i), n, token[i] / grid.axis(i).dilation, i == last ? 1 : 0);
    });
  }

  // Floats that lie as products take them are read in place.
  void stretch(KeySlot& slot, const runtime::Strided& k, const runtime::Strided& v, std::int64_t local,
               int dilation) {
    KeyTile& t = slot.tile;
    t.k_step = k.axis[0] * dilation;
    t.v_step = v.axis[0] * dilation;
    const auto n = static_cast<std::size_t>(t.count);
    const auto place = [&](const runtime::Strided& x, const void*& data, std::int64_t step,
                           std::int64_t* rows, bool in_place, int bit) {
      const std::int64_t first = local * x.axis[0];
      if (in_place && x.dtype == DType::f32 && x.dim == 1) {
        data = static_cast<const float*>(data) + first;
        t.direct |= bit;
      } else {
        for (std::size_t i = 0; i < n; ++i) rows[i] = first + static_cast<std::int64_t>(i) * step;
      }
    };
    place(k, t.k, t.k_step, slot.rows.data(), !kernel.key_l2norm, 1);
    place(v, t.v, t.v_step, slot.rows.data() + keys(), kernel.options.value_dim % 16 == 0, 2);
  }

  std::int32_t compute(const Code& with, std::int64_t number) {
    const plan::TileGrid& grid = plan->grid();
    with.begin(&tile);
    KeySlot* waiting = nullptr;
    std::size_t turn = 0;
    const auto visit = [&](const KeySlot* next) {
      // Where the next rows do not lie together, something that is in the cache is fetched again.
      KeyTile& t = waiting->tile;
      const auto together = [](std::int64_t direct, std::int64_t step, std::int64_t width) {
        return direct == 3 && step == width;
      };
      const bool k_next =
          next != nullptr && together(next->tile.direct, next->tile.k_step, kernel.options.head_dim);
      const bool v_next =
          next != nullptr && together(next->tile.direct, next->tile.v_step, kernel.options.value_dim);
      t.next_k = k_next ? next->tile.k : workspace.get();
      t.next_v = v_next ? next->tile.v : workspace.get();
      with.visit(&tile, &t);
    };
    plan->each_tile(plan->slices().of(batch, head), number, row, [&](std::int64_t n, bool full) {
      KeySlot& slot = slots[turn ^= 1];
      fill_keys(slot, grid, n, full);
      if (slot.tile.count == 0) return;
      if (waiting != nullptr) visit(&slot);
      waiting = &slot;
    });
    if (waiting != nullptr) visit(nullptr);
    return with.end(&tile);
  }

  const CompiledKernel& owner;
  const emit::CpuKernel& kernel;
  const Code& code;
  const PlaceLayout layout;
  const bool windowed = kernel.windowed();
  std::unique_ptr<float, FreeAligned> workspace;
  std::vector<std::int64_t> query_rows;  // of q, out and lse
  std::vector<std::int32_t> query_places;
  std::vector<std::uint32_t> uniforms;
  KeySlot slots[2];
  std::vector<CodeInput> inputs;
  std::vector<Expression> expressions;  // of the uniforms
  std::optional<Expression> sink;
  Expression::Scratch scratch;
  const Problem* problem = nullptr;
  const plan::TilePlan* plan = nullptr;
  std::int64_t batch = -1, head = -1, kv_head = 0;
  plan::Row row;
  std::vector<Stretch> box, line_heads;
  QueryTile tile{};
};

CompiledKernel::CompiledKernel(const CodeGeneratorApi& generator, emit::CpuKernel kernel, std::string digest)
    : generator_(generator), kernel_(std::move(kernel)), digest_(std::move(digest)) {}

CompiledKernel::~CompiledKernel() {
  for (const Code* code : {&std::as_const(code_), &std::as_const(exact_)})
    if (code->owner != nullptr) generator_.release(code->owner);
}

const Code* CompiledKernel::exact_code() const {
  std::call_once(exact_once_, [&] {
    emit::CpuKernel exact = kernel_;
    exact.options.exact = true;
    std::string ignored;
    if (!generator_.compile(exact, exact_, ignored)) exact_ = {};
  });
  return exact_.owner == nullptr ? nullptr : &exact_;
}

Result<std::shared_ptr<const CompiledKernel>> CompiledKernel::make(const CodeGeneratorApi& generator,
                                                                   emit::CpuKernel kernel, bool& known) {
  // By digest, and only as long as somebody holds them.
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<const CompiledKernel>> made;
  std::string digest = support::sha256_hex(emit::print(kernel));
  {
    const std::lock_guard lock(mutex);
    if (const auto found = made.find(digest); found != made.end())
      if (auto kept = found->second.lock()) {
        known = true;
        return kept;
      }
  }
  known = false;
  auto compiled = std::make_shared<CompiledKernel>(generator, std::move(kernel), digest);
  std::string error;
  if (!generator.compile(compiled->kernel_, compiled->code_, error))
    return unexpected(ErrorKind::internal, "LLVM does not compile the kernel: " + error,
                      "this is a mistake of ours; the interpreter runs the spec meanwhile");
  const std::lock_guard lock(mutex);
  std::erase_if(made, [](const auto& entry) { return entry.second.expired(); });
  made[std::move(digest)] = compiled;
  return std::shared_ptr<const CompiledKernel>(std::move(compiled));
}

Result<void> CompiledKernel::check(const Problem& problem) const {
  for (std::size_t i = 0; i < problem.inputs.size(); ++i) {
    const runtime::CapturedInput& x = problem.inputs[i];
    const DType want = kernel_.options.input_dtypes[i];
    if (x.data == nullptr || x.dtype == want) continue;
    return unexpected(ErrorKind::spec,
                      fmt::format("input `{}` is {}, and the kernel was compiled for {}",
                                  kernel_.declarations().inputs[i].name, name_of(x.dtype), name_of(want)),
                      "name its dtype in CompileOptions::input_dtypes, or convert it");
  }
  return {};
}

std::unique_ptr<CompiledKernel::Worker> CompiledKernel::take_worker() const {
  {
    const std::lock_guard guard(lock_);
    if (!idle_.empty()) {
      std::unique_ptr<Worker> worker = std::move(idle_.back());
      idle_.pop_back();
      return worker;
    }
  }
  return std::make_unique<Worker>(*this);
}

void CompiledKernel::give_back(std::unique_ptr<Worker> worker) const {
  const std::lock_guard guard(lock_);
  idle_.push_back(std::move(worker));
}

Result<void> CompiledKernel::run(const ir::Module& checked, const Problem& problem,
                                 const plan::TilePlan& plan, unsigned threads) const {
  const std::int64_t rows = plan.grid().rows(), slices = problem.batch * problem.heads;
  std::vector<std::unique_ptr<Worker>> workers;
  const auto most =
      static_cast<unsigned>(std::min<std::int64_t>(threads, std::max<std::int64_t>(1, rows * slices)));
  for (unsigned i = 0; i < most; ++i) {
    workers.push_back(take_worker());
    workers.back()->start(checked, problem, plan);
  }
  // Rows from the last on: under a causal mask these have the most to do.
  host::parallel_for(rows * slices, most, [&](std::int64_t n, unsigned thread) {
    const std::int64_t slice = n / rows;
    workers[thread]->task(slice / problem.heads, slice % problem.heads, rows - 1 - n % rows);
  });
  bool contaminated = false;
  for (std::unique_ptr<Worker>& worker : workers) {
    contaminated = contaminated || worker->contaminated;
    give_back(std::move(worker));
  }
  if (!contaminated) return {};
  return unexpected(ErrorKind::internal,
                    "LLVM does not compile the code for rows that NaN or Inf must be kept out of",
                    "this is a mistake of ours; the interpreter runs the spec meanwhile");
}

}  // namespace vicinal::cpu
