// The keys that a unit of queries sees.
#include <limits>

#include "runtime/cpu/llvm/stage.h"

namespace vicinal::cpu {

using ir::NodeId;

void Stage::find_limits() {
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
    const Values ends =
        e_.loop(e_.index(0), e_.index(layout_.block.unit), kLanes,
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

std::pair<Value*, Value*> Stage::limits_of(Expressions& expressions, Value* query) {
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

}  // namespace vicinal::cpu
