#include "runtime/cpu/llvm/kernel.h"

#include <limits>

#include "runtime/cpu/llvm/elementary.h"
#include "runtime/cpu/llvm/elements.h"
#include "runtime/cpu/llvm/products.h"
#include "runtime/cpu/llvm/softmax.h"

namespace vicinal::cpu {

using ir::NodeId;
using ir::Root;

KernelLayout::KernelLayout(const emit::CpuKernel& kernel, const Blocking& blocking)
    : block(blocking),
      places{kernel.declarations().axes.size()},
      head_dim(kernel.options.head_dim),
      value_dim(kernel.options.value_dim),
      channels(round_up(value_dim, kLanes)) {
  const auto take = [&](std::int64_t floats) {
    const std::int64_t at = size;
    size += round_up(floats, kLanes);
    return at;
  };
  const std::int64_t q = block.tile_q, k = round_up(block.tile_k, 4) + block.qk_keys;
  queries = take(head_dim * q);
  scores = take(k * q + kLanes);
  output = take((q + block.pv_queries) * channels);
  maximum = take(q);
  sum = take(q);
  rescale = take(q + block.pv_queries);
  tile_maximum = take(q);
  limits = take(2 * q / block.unit);
  inverse = take(q);
  lse = take(q);
  norms = take(block.tile_k);
  keys = take(block.tile_k * head_dim);
  values = take(block.tile_k * channels);
}

namespace {

class KernelEmitter {
 public:
  KernelEmitter(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel)
      : e_(e), layout_(layout), kernel_(kernel), softmax_(kernel.normalize == ir::Normalize::softmax) {}

  void run() {
    begin();
    visit();
    end();
  }

 private:
  Value* query_member(std::size_t byte, llvm::Type* type) { return member(e_, query_tile_, byte, type); }
  Value* workspace(std::int64_t offset) {
    return e_.at(e_.f32, query_member(offsetof(QueryTile, workspace), e_.ptr), offset);
  }
  Value* workspace(std::int64_t offset, Value* element) { return e_.at(e_.f32, workspace(offset), element); }
  Value* rounded(Value* count, std::int64_t step) {
    return e_.b.CreateMul(e_.b.CreateSDiv(e_.b.CreateAdd(count, e_.index(step - 1)), e_.index(step)),
                          e_.index(step));
  }
  // body(first) for sixteen queries at a time, up to the count in steps of `step`.
  void each_group(std::int64_t step, const std::function<void(Value*)>& body) {
    Value* const count = rounded(query_member(offsetof(QueryTile, count), e_.i64), step);
    e_.loop(e_.index(0), count, kLanes, {}, [&](Value* query, const Values&) {
      body(query);
      return Values{};
    });
  }
  const passes::ScoreForm& form() const { return kernel_.grid.form; }

  void begin() {
    const std::int64_t tile_q = layout_.block.tile_q;
    llvm::Function* const pack = emit_pack_queries(e_, layout_, kernel_.options.dtype);
    query_tile_ = e_.function(kBeginSymbol, e_.b.getVoidTy(), {e_.ptr}, true)->getArg(0);
    const NodeId shift = kernel_.has_sink ? form().shift : NodeId{};
    const NodeId roots[] = {form().factor, shift};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);

    Value* scale = e_.number(e_.f32, 1);
    if (is_plain_product(kernel_) && form().factor.valid()) scale = expressions.emit(form().factor, nullptr);
    if (kernel_.has_limits()) find_limits();
    Value* const one = e_.number(e_.f32, 1);
    const std::int64_t at_once = layout_.block.unit;
    e_.b.CreateCall(
        pack, {query_member(offsetof(QueryTile, q), e_.ptr), query_member(offsetof(QueryTile, q_dim), e_.i64),
               query_member(offsetof(QueryTile, q_row), e_.ptr), workspace(layout_.queries),
               kernel_.query_l2norm ? one : scale,
               rounded(query_member(offsetof(QueryTile, count), e_.i64), at_once)});
    const Expressions::Mark mark = expressions.mark();
    each_group(at_once, [&](Value* query) {
      if (kernel_.query_l2norm) normalize(workspace(layout_.queries, query), scale);
      llvm::Type* const type = e_.vector(e_.f32);
      Value* maximum = e_.infinity(type, true);
      Value* sum = e_.number(type, 0);
      if (kernel_.has_sink) {
        const Expressions::Symbols symbols = query_vectors(e_, layout_, query_tile_, query);
        Value* x = sink(expressions);
        if (shift.valid())
          x = e_.b.CreateFSub(e_.as_vector(x), e_.as_vector(expressions.emit(shift, symbols)));
        maximum = e_.as_vector(x);
        sum =
            e_.b.CreateSelect(e_.b.CreateFCmpOEQ(maximum, e_.infinity(type, true)), sum, e_.number(type, 1));
        expressions.forget(mark);
      }
      e_.store(maximum, workspace(layout_.maximum, query));
      e_.store(sum, workspace(layout_.sum, query));
      e_.store(e_.number(type, 1), workspace(layout_.rescale, query));
    });
    Value* const zero = e_.number(e_.vector(e_.f32), 0);
    e_.loop(e_.index(0), e_.index((tile_q + layout_.block.pv_queries) * layout_.channels), kLanes, {},
            [&](Value* i, const Values&) {
              e_.store(zero, workspace(layout_.output, i));
              return Values{};
            });
    e_.b.CreateRetVoid();
  }

  Value* sink(Expressions& expressions) {
    return expressions.uniform(kernel_.uniforms.size(), ir::Type::real);
  }

  // Of every unit the keys that its queries see, as the mask's limits or the window have it.
  void find_limits() {
    std::vector<NodeId> roots = kernel_.limits.conditions;
    for (const auto* sums : {&kernel_.limits.begins, &kernel_.limits.ends})
      for (const analysis::RowSum& sum : *sums)
        for (const analysis::RowSum::Term& term : sum.terms) roots.push_back(term.value);
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);
    const Expressions::Mark mark = expressions.mark();
    Value* const count = query_member(offsetof(QueryTile, count), e_.i64);
    constexpr std::int32_t kLeast = std::numeric_limits<std::int32_t>::min(),
                           kMost = std::numeric_limits<std::int32_t>::max();
    e_.loop(e_.index(0), count, layout_.block.unit, {}, [&](Value* unit, const Values&) {
      const Values ends = e_.loop(
          e_.index(0), e_.index(layout_.block.unit), kLanes,
          {e_.whole(e_.i32, kMost), e_.whole(e_.i32, kLeast)}, [&](Value* group, const Values& so_far) {
            const auto [begin, end] = limits_of(expressions, e_.b.CreateAdd(unit, group));
            expressions.forget(mark);
            return Values{least(so_far[0], e_.b.CreateIntMinReduce(begin, true)),
                          most(so_far[1], e_.b.CreateIntMaxReduce(end, true))};
          });
      e_.store(ends[0], limit_of(unit, 0));
      e_.store(ends[1], limit_of(unit, 1));
      return Values{};
    });
  }

  // Of sixteen queries.
  std::pair<Value*, Value*> limits_of(Expressions& expressions, Value* query) {
    if (!kernel_.declarations().axes.empty()) {
      Value* const begin = query_place(e_, layout_, query_tile_, layout_.places.window_begin(0), query);
      Value* const size = query_place(e_, layout_, query_tile_, layout_.places.window_size(0), query);
      return {begin, e_.b.CreateAdd(begin, size)};
    }
    const Expressions::Symbols symbols = query_vectors(e_, layout_, query_tile_, query);
    llvm::Type* const wide = e_.vector(e_.i64);
    Value* begin = e_.whole(wide, 0);
    Value* end = e_.whole(wide, std::numeric_limits<std::int32_t>::max());
    const auto value = [&](const analysis::RowSum& sum) {
      Value* total = e_.whole(wide, sum.constant);
      for (const analysis::RowSum::Term& term : sum.terms) {
        Value* const x = e_.b.CreateSExt(e_.as_vector(expressions.emit(term.value, symbols)), wide);
        total = term.minus ? e_.b.CreateSub(total, x) : e_.b.CreateAdd(total, x);
      }
      return total;
    };
    for (const analysis::RowSum& sum : kernel_.limits.begins) begin = most(begin, value(sum));
    for (const analysis::RowSum& sum : kernel_.limits.ends) end = least(end, value(sum));
    begin = least(begin, e_.whole(wide, std::numeric_limits<std::int32_t>::max()));
    end = most(end, e_.whole(wide, 0));
    for (const NodeId condition : kernel_.limits.conditions)
      end = e_.b.CreateSelect(e_.as_vector(expressions.emit(condition, symbols)), end, e_.whole(wide, 0));
    const auto narrow = [&](Value* x) { return e_.b.CreateTrunc(x, e_.vector(e_.i32)); };
    return {narrow(begin), narrow(end)};
  }

  // Sixteen packed queries, divided by their norms.
  void normalize(Value* queries, Value* scale) {
    llvm::Type* const type = e_.vector(e_.f32);
    const auto address = [&](Value* channel) {
      return e_.at(e_.f32, queries, e_.b.CreateMul(channel, e_.index(layout_.block.tile_q)));
    };
    const Values squares = e_.loop(e_.index(0), e_.index(layout_.head_dim), 1, {e_.number(type, 0)},
                                   [&](Value* channel, const Values& sum) {
                                     Value* const x = e_.load(type, address(channel));
                                     return Values{e_.fma(x, x, sum[0])};
                                   });
    Value* const norm = e_.larger(e_.number(type, 1e-12), e_.unary(llvm::Intrinsic::sqrt, squares[0]));
    Value* const by = e_.b.CreateFDiv(e_.splat(scale), norm);
    e_.loop(e_.index(0), e_.index(layout_.head_dim), 1, {}, [&](Value* channel, const Values&) {
      e_.store(e_.b.CreateFMul(e_.load(type, address(channel)), by), address(channel));
      return Values{};
    });
  }

  void visit() {
    const emit::CpuKernelOptions& o = kernel_.options;
    llvm::Function* const pack_keys =
        emit_pack_rows(e_, "pack_keys", o.dtype, layout_.head_dim, layout_.head_dim);
    const bool alike = layout_.head_dim == layout_.value_dim && layout_.channels == layout_.value_dim;
    llvm::Function* const inverse_norms = kernel_.key_l2norm ? emit_inverse_norms(e_, layout_) : nullptr;
    llvm::Function* const pack_values =
        alike ? pack_keys : emit_pack_rows(e_, "pack_values", o.dtype, layout_.value_dim, layout_.channels);
    llvm::Function* const score_block = emit_score_block(e_, layout_);
    llvm::Function* const add_values =
        o.exact ? emit_exact_values(e_, layout_) : emit_value_block(e_, layout_);
    llvm::Function* const weights = softmax_ ? emit_weights(e_, layout_, o.exact) : nullptr;
    std::vector<std::pair<KeyTileKind, llvm::Function*>> scores;
    const auto add = [&](KeyTileKind kind) {
      scores.emplace_back(kind, emit_scores(e_, layout_, kernel_, kind));
    };
    add(kFullTile);
    if (kernel_.grid.has_mask || kernel_.windowed()) add(kPartialTile);
    if (kernel_.context) {
      add(kFullContext);
      if (kernel_.context->has_mask) add(kPartialContext);
    }

    llvm::Function* const f = e_.function(kVisitSymbol, e_.b.getVoidTy(), {e_.ptr, e_.ptr}, true);
    query_tile_ = f->getArg(0);
    Value* const key_tile = f->getArg(1);
    const auto key_member = [&](std::size_t byte, llvm::Type* type) {
      return member(e_, key_tile, byte, type);
    };
    Value* const keys = key_member(offsetof(KeyTile, count), e_.i64);
    Value* const direct = key_member(offsetof(KeyTile, direct), e_.i64);
    Value* const queries = query_member(offsetof(QueryTile, count), e_.i64);

    // Where rows are read: from the tensor, or packed first.
    const auto rows = [&](int bit, std::size_t data, std::size_t dim, std::size_t row, std::size_t step,
                          llvm::Function* pack, std::int64_t to, std::int64_t width) {
      Value* const in_place = e_.b.CreateICmpNE(e_.b.CreateAnd(direct, e_.index(bit)), e_.index(0));
      Value* const tensor = key_member(data, e_.ptr);
      Value* const packed = workspace(to);
      e_.when(e_.b.CreateNot(in_place), [&] {
        e_.b.CreateCall(pack, {tensor, key_member(dim, e_.i64), key_member(row, e_.ptr), packed, keys});
      });
      return std::pair(e_.b.CreateSelect(in_place, tensor, packed),
                       e_.b.CreateSelect(in_place, key_member(step, e_.i64), e_.index(width)));
    };
    const auto [k, k_step] = rows(1, offsetof(KeyTile, k), offsetof(KeyTile, k_dim), offsetof(KeyTile, k_row),
                                  offsetof(KeyTile, k_step), pack_keys, layout_.keys, layout_.head_dim);
    const auto [v, v_step] = rows(2, offsetof(KeyTile, v), offsetof(KeyTile, v_dim), offsetof(KeyTile, v_row),
                                  offsetof(KeyTile, v_step), pack_values, layout_.values, layout_.channels);

    if (kernel_.key_l2norm) e_.b.CreateCall(inverse_norms, {k, workspace(layout_.norms), keys});

    Value* const kind = key_member(offsetof(KeyTile, kind), e_.i64);
    e_.loop(e_.index(0), queries, layout_.block.unit, {}, [&](Value* unit, const Values&) {
      const auto [first, count] = keys_of_unit(key_tile, unit, kind, keys);
      e_.when(e_.b.CreateICmpSGT(count, e_.index(0)), [&, first = first, count = count] {
        Value* const from = e_.at(e_.f32, k, e_.b.CreateMul(first, k_step));
        score_blocks(score_block, unit, from, k_step, count);
        Value* const end = least(e_.b.CreateAdd(unit, e_.index(layout_.block.unit)), queries);
        e_.loop(unit, end, kLanes, {}, [&](Value* query, const Values&) {
          choose(kind, scores, {query_tile_, key_tile, query, first, count});
          if (softmax_) e_.b.CreateCall(weights, {query_tile_, query, count});
          return Values{};
        });
        Value* const values = e_.at(e_.f32, v, e_.b.CreateMul(first, v_step));
        if (o.exact)
          e_.b.CreateCall(add_values,
                          {workspace(layout_.scores, unit), values, v_step,
                           workspace(layout_.output, e_.b.CreateMul(unit, e_.index(layout_.channels))),
                           workspace(layout_.rescale, unit), count, e_.b.CreateSub(end, unit)});
        else
          value_blocks(add_values, key_tile, values, v_step, count, unit, end);
      });
      return Values{};
    });
    e_.b.CreateRetVoid();
  }

  Value* least(Value* x, Value* y) { return e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, x, y); }
  Value* most(Value* x, Value* y) { return e_.b.CreateBinaryIntrinsic(llvm::Intrinsic::smax, x, y); }

  // Calls one of the functions, by the number that `kind` is.
  void choose(Value* kind, const std::vector<std::pair<KeyTileKind, llvm::Function*>>& functions,
              const Values& arguments) {
    llvm::Function* const f = e_.b.GetInsertBlock()->getParent();
    llvm::BasicBlock* const after = llvm::BasicBlock::Create(e_.b.getContext(), "chosen", f);
    llvm::BasicBlock* const other = llvm::BasicBlock::Create(e_.b.getContext(), "other", f);
    llvm::SwitchInst* const choice = e_.b.CreateSwitch(kind, other);
    for (const auto& [number, function] : functions) {
      llvm::BasicBlock* const block = llvm::BasicBlock::Create(e_.b.getContext(), "choice", f);
      choice->addCase(e_.b.getInt64(static_cast<std::uint64_t>(number)), block);
      e_.b.SetInsertPoint(block);
      e_.b.CreateCall(function, arguments);
      e_.b.CreateBr(after);
    }
    e_.b.SetInsertPoint(other);
    e_.b.CreateUnreachable();
    e_.b.SetInsertPoint(after);
  }

  // Those of the tile that some query of the unit sees: the first, and how many.
  std::pair<Value*, Value*> keys_of_unit(Value* key_tile, Value* unit, Value* kind, Value* keys) {
    Value* const none = e_.index(0);
    if (!kernel_.has_limits()) return {none, keys};
    const bool window = !kernel_.declarations().axes.empty();
    Value* const base =
        member(e_, key_tile, window ? offsetof(KeyTile, first_in_group) : offsetof(KeyTile, first), e_.i64);
    Value* const partial = e_.b.CreateICmpEQ(kind, e_.index(kPartialTile));
    const auto limit = [&](std::int64_t which, Value* otherwise) {
      Value* const inside =
          e_.b.CreateSub(e_.b.CreateSExt(e_.load(e_.i32, limit_of(unit, which)), e_.i64), base);
      return e_.b.CreateSelect(partial, least(most(inside, none), keys), otherwise);
    };
    Value* const first = limit(0, none);
    return {first, e_.b.CreateSub(limit(1, keys), first)};
  }
  Value* limit_of(Value* unit, std::int64_t which) {
    Value* const number = e_.b.CreateSDiv(unit, e_.index(layout_.block.unit));
    return e_.at(e_.i32, workspace(layout_.limits),
                 e_.b.CreateAdd(e_.b.CreateMul(number, e_.index(2)), e_.index(which)));
  }

  // Products of a unit, a block of queries after another; keys stream through.
  void score_blocks(llvm::Function* score_block, Value* unit, Value* k, Value* k_step, Value* keys) {
    const std::int64_t at_once = kLanes * layout_.block.qk_vectors;
    e_.loop(e_.index(0), e_.index(layout_.block.unit), at_once, {}, [&](Value* block, const Values&) {
      Value* const query = e_.b.CreateAdd(unit, block);
      Value* const to = workspace(layout_.scores, query);
      Value* const from = workspace(layout_.queries, query);
      e_.loop(e_.index(0), keys, layout_.block.qk_keys, {}, [&](Value* n, const Values&) {
        e_.b.CreateCall(score_block, {e_.at(e_.f32, k, e_.b.CreateMul(n, k_step)), k_step,
                                      e_.b.CreateSub(e_.b.CreateSub(keys, e_.index(1)), n), from,
                                      e_.at(e_.f32, to, e_.b.CreateMul(n, e_.index(layout_.block.tile_q)))});
        return Values{};
      });
      return Values{};
    });
  }

  // Blocks of queries; each fetches as many lines of the next tile as there are keys, first of its keys and
  // then of its values, so that the whole touches the next tile once.
  void value_blocks(llvm::Function* value_block, Value* key_tile, Value* v, Value* v_step, Value* keys,
                    Value* first, Value* end) {
    Value* const next_k = member(e_, key_tile, offsetof(KeyTile, next_k), e_.ptr);
    Value* const next_v = member(e_, key_tile, offsetof(KeyTile, next_v), e_.ptr);
    Value* const line = e_.b.CreateMul(keys, e_.index(64));
    Value* const k_bytes = e_.b.CreateMul(keys, e_.index(4 * layout_.head_dim));
    e_.loop(first, end, layout_.block.pv_queries, {}, [&](Value* query, const Values&) {
      Value* const number = e_.b.CreateSDiv(query, e_.index(layout_.block.pv_queries));
      Value* const offset = e_.b.CreateMul(number, line);
      Value* const of_keys = e_.b.CreateICmpSLT(offset, k_bytes);
      Value* const next = e_.b.CreateSelect(of_keys, e_.at(e_.i8, next_k, offset),
                                            e_.at(e_.i8, next_v, e_.b.CreateSub(offset, k_bytes)));
      e_.b.CreateCall(value_block,
                      {workspace(layout_.scores, query), v, v_step,
                       workspace(layout_.output, e_.b.CreateMul(query, e_.index(layout_.channels))),
                       workspace(layout_.rescale, query), keys, next});
      return Values{};
    });
  }

  void end() {
    llvm::Function* const f = e_.function(kEndSymbol, e_.i32, {e_.ptr}, true);
    query_tile_ = f->getArg(0);
    if (softmax_) finish_sums();
    const NodeId output = form().module.root(Root::output);
    const NodeId roots[] = {output};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);
    const DType dtype = kernel_.options.dtype;
    llvm::Type* const memory = memory_type(e_, dtype);
    llvm::Type* const type = e_.vector(e_.f32);
    Value* const out = query_member(offsetof(QueryTile, out), e_.ptr);
    Value* const out_dim = query_member(offsetof(QueryTile, out_dim), e_.i64);
    Value* const contiguous = e_.b.CreateICmpEQ(out_dim, e_.index(1));
    Value* const count = query_member(offsetof(QueryTile, count), e_.i64);
    Value* const zero = e_.number(type, 0);
    // x * 0 is 0 for finite x alone.
    const Values checked = e_.loop(e_.index(0), count, 1, {zero}, [&](Value* query, const Values& so_far) {
      Value* const inverse =
          softmax_ ? e_.load(e_.f32, workspace(layout_.inverse, query)) : e_.number(e_.f32, 1);
      Value* const lse = softmax_ ? e_.load(e_.f32, workspace(layout_.lse, query)) : e_.number(e_.f32, 0);
      Value* const row =
          e_.load(e_.i64, e_.at(e_.i64, query_member(offsetof(QueryTile, out_row), e_.ptr), query));
      Value* const from = workspace(layout_.output, e_.b.CreateMul(query, e_.index(layout_.channels)));
      const Expressions::Symbols of_query = query_scalars(e_, layout_, query_tile_, query);
      const auto channels = [&](Value* first, int width, Value* check) {
        Value* x = e_.load(type, e_.at(e_.f32, from, first));
        check = e_.fma(x, zero, check);
        x = e_.b.CreateFMul(x, e_.splat(inverse));
        if (output.valid()) {
          const Expressions::Mark mark = expressions.mark();
          x = e_.as_vector(expressions.emit(output, [&](const ir::Symbol& s) -> Value* {
            if (s.kind == ir::SymbolKind::out) return x;
            if (s.kind == ir::SymbolKind::lse) return lse;
            return of_query(s);
          }));
          expressions.forget(mark);
        }
        store_channels(to_memory(e_, dtype, x), memory, out, row, out_dim, contiguous, first, width);
        return check;
      };
      const std::int64_t whole = layout_.value_dim / kLanes * kLanes;
      Value* check = e_.loop_if_any(e_.index(0), e_.index(whole), kLanes, {so_far[0]},
                                    [&](Value* first, const Values& carried) {
                                      return Values{channels(first, kLanes, carried[0])};
                                    })[0];
      if (whole < layout_.value_dim)
        check = channels(e_.index(whole), static_cast<int>(layout_.value_dim - whole), check);
      if (softmax_) store_lse(query, lse);
      return Values{check};
    });
    Value* const finite = e_.b.CreateFCmpOEQ(checked[0], zero);
    e_.b.CreateRet(e_.b.CreateSExt(e_.b.CreateNot(e_.b.CreateAndReduce(finite)), e_.i32));
  }

  void store_channels(Value* x, llvm::Type* memory, Value* out, Value* row, Value* out_dim, Value* contiguous,
                      Value* first, int width) {
    e_.when(
        contiguous,
        [&] {
          Value* part = x;
          if (width < kLanes) {
            std::vector<int> lanes;
            for (int i = 0; i < width; ++i) lanes.push_back(i);
            part = e_.b.CreateShuffleVector(x, lanes);
          }
          e_.store(part, e_.at(memory, e_.at(memory, out, row), first));
        },
        [&] {
          e_.loop(e_.index(0), e_.index(width), 1, {}, [&](Value* i, const Values&) {
            Value* const channel = e_.b.CreateMul(out_dim, e_.b.CreateAdd(first, i));
            e_.store(e_.b.CreateExtractElement(x, i), e_.at(memory, out, e_.b.CreateAdd(row, channel)));
            return Values{};
          });
        });
  }

  void store_lse(Value* query, Value* lse) {
    Value* const to = query_member(offsetof(QueryTile, lse), e_.ptr);
    e_.when(e_.b.CreateICmpNE(to, llvm::ConstantPointerNull::get(e_.b.getPtrTy())), [&] {
      Value* const rows = query_member(offsetof(QueryTile, lse_row), e_.ptr);
      e_.store(lse, e_.at(e_.f32, to, e_.load(e_.i64, e_.at(e_.i64, rows, query))));
    });
  }

  // Of every query 1 / sum, 0 where nothing was kept, and the LSE with what the exponents left out.
  void finish_sums() {
    const NodeId roots[] = {form().shift};
    Expressions expressions(e_, kernel_, kernel_.grid, query_tile_, roots);
    const Expressions::Mark mark = expressions.mark();
    llvm::Type* const type = e_.vector(e_.f32);
    each_group(kLanes, [&](Value* query) {
      Value* const sum = e_.load(type, workspace(layout_.sum, query));
      Value* const zero = e_.number(type, 0);
      Value* const inverse =
          e_.b.CreateSelect(e_.b.CreateFCmpOEQ(sum, zero), zero, e_.b.CreateFDiv(e_.number(type, 1), sum));
      e_.store(inverse, workspace(layout_.inverse, query));
      Value* const maximum = e_.load(type, workspace(layout_.maximum, query));
      Value* lse = e_.b.CreateFAdd(maximum, log(e_, sum));
      if (form().shift.valid()) {
        const Expressions::Symbols symbols = query_vectors(e_, layout_, query_tile_, query);
        Value* const shift = e_.as_vector(expressions.emit(form().shift, symbols));
        lse = e_.b.CreateFAdd(lse, shift);
        if (kernel_.has_sink) {
          // Where the sink is all there is, the shift that was taken from it would leave its rounding.
          Value* const whole = e_.as_vector(sink(expressions));
          Value* const alone = e_.b.CreateAnd(e_.b.CreateFCmpOEQ(maximum, e_.b.CreateFSub(whole, shift)),
                                              e_.b.CreateFCmpOEQ(sum, e_.number(type, 1)));
          lse = e_.b.CreateSelect(alone, whole, lse);
        }
        expressions.forget(mark);
      }
      e_.store(lse, workspace(layout_.lse, query));
    });
  }

  Emitter& e_;
  const KernelLayout& layout_;
  const emit::CpuKernel& kernel_;
  const bool softmax_;
  Value* query_tile_ = nullptr;  // of the function at hand
};

}  // namespace

void emit_kernel(Emitter& e, const KernelLayout& layout, const emit::CpuKernel& kernel) {
  KernelEmitter(e, layout, kernel).run();
}

}  // namespace vicinal::cpu
