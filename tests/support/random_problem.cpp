#include "tests/support/random_problem.h"

#include <algorithm>

#include "compiler/ir/evaluate.h"
#include "runtime/kernel_impl.h"

namespace vicinal::testing {
namespace {

using ir::SymbolKind;

class Builder {
 public:
  Builder(const Kernel& kernel, std::mt19937& random, const ProblemLimits& limits)
      : options_(kernel.impl().options),
        module_(kernel.impl().variant.checked.module),
        random_(random),
        limits_(limits) {}

  Problem run(bool plain) {
    ProblemShape s;
    s.batch = 1 + below(2);
    s.kv_heads = 1 + below(2);
    s.heads = s.kv_heads * (1 + below(limits_.heads / 2));
    s.head_dim = options_.head_dim;
    s.value_dim = options_.value_dim;
    s.dtype = options_.dtype;
    s.lse = module_.normalize == ir::Normalize::softmax;
    s.layout = static_cast<Layout>(below(3));
    if (module_.context) s.context = 1 + below(7);
    s.queries.clear();
    for (const ir::Axis& axis : module_.axes) s.queries.push_back(length(axis));
    s.keys = s.queries;
    if (module_.axes.empty()) {
      s.queries = s.keys = {1 + below(limits_.tokens)};
      // Queries and keys of different numbers suit some variants and not others.
      if (!plain && below(2) == 0) s.keys = {s.queries[0] + below(limits_.tokens)};
    }
    if (limits_.shape) s = *limits_.shape;
    Problem p = make_problem(s, static_cast<unsigned>(random_()));
    shape_ = s;
    extents_.clear();
    for (std::size_t i = 0; i < module_.extents.size(); ++i) extents_.push_back(2 + below(6));
    for (const ir::Input& input : module_.inputs) p.inputs[input.name] = captured(input);
    return p;
  }

 private:
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1)));
  }

  std::int64_t value(ir::NodeId node) const {
    const auto lookup = [&](const ir::Symbol& s) -> std::optional<ir::Value> {
      const auto product = [](const Index& extents) {
        std::int64_t n = 1;
        for (std::int64_t e : extents) n *= e;
        return n;
      };
      const auto number = [](std::int64_t n) { return ir::int_value(static_cast<std::int32_t>(n)); };
      switch (s.kind) {
        case SymbolKind::batch: return number(shape_.batch);
        case SymbolKind::heads: return number(shape_.heads);
        case SymbolKind::kv_heads: return number(shape_.kv_heads);
        case SymbolKind::tokens: return number(product(shape_.queries));
        case SymbolKind::keys: return number(product(shape_.keys));
        case SymbolKind::context: return number(std::max<std::int64_t>(shape_.context, 0));
        case SymbolKind::head_dim: return number(shape_.head_dim);
        case SymbolKind::axis_length: return number(shape_.queries[s.index]);
        case SymbolKind::named_extent: return number(extents_[s.index]);
        case SymbolKind::param: return module_.params[s.index].value;
        default: return std::nullopt;
      }
    };
    return ir::evaluate(module_, node, lookup).value().i;
  }

  std::int64_t length(const ir::Axis& axis) {
    const std::int64_t window = axis.window.valid() ? value(axis.window) : 1,
                       dilation = axis.dilation.valid() ? value(axis.dilation) : 1;
    const std::int64_t room = module_.axes.size() == 1 ? limits_.tokens : module_.axes.size() == 2 ? 6 : 3;
    return window * dilation + below(room);
  }

  HostTensor captured(const ir::Input& input) {
    const auto given = options_.input_dtypes.find(input.name);
    const DType dtype =
        given != options_.input_dtypes.end() ? given->second : emit::default_input_dtype(input.type);
    Index shape;
    for (ir::NodeId dim : input.dims) shape.push_back(value(dim));
    // Whole numbers around the sizes at hand: as indices, most of them hit.
    const std::int64_t low = dtype == DType::u8 || dtype == DType::u16 ? 0 : -2;
    return HostTensor(dtype, shape)
        .fill_random(random_,
                     input.type == ir::Type::boolean ? 0
                     : input.type == ir::Type::real  ? -1
                                                     : static_cast<double>(low),
                     input.type == ir::Type::boolean ? 2
                     : input.type == ir::Type::real  ? 1
                                                     : static_cast<double>(3 + below(limits_.tokens)));
  }

  const CompileOptions& options_;
  const ir::Module& module_;
  std::mt19937& random_;
  const ProblemLimits& limits_;
  ProblemShape shape_;
  std::vector<std::int64_t> extents_;
};

}  // namespace

std::optional<Problem> random_problem(const Kernel& kernel, std::mt19937& random, const ProblemLimits& limits,
                                      std::string* why) {
  Builder builder(kernel, random, limits);
  // Some variants take one draw in fifty: a page table, say, that must reach all keys.
  for (int attempt = 0; attempt < 400; ++attempt) {
    Problem problem = builder.run(attempt >= 20);
    const Result<runtime::Problem> bound = kernel.impl().bind(problem.arguments());
    if (bound) return problem;
    if (why != nullptr) *why = bound.error().message;
  }
  return std::nullopt;
}

std::map<std::string, DType> random_input_dtypes(const Spec& spec, std::mt19937& random) {
  static constexpr DType floats[] = {DType::f32, DType::f16, DType::bf16, DType::f64},
                         ints[] = {DType::i32, DType::i64, DType::i16, DType::i8, DType::u8, DType::u16};
  std::map<std::string, DType> dtypes;
  for (const ir::Input& input : spec.impl().variant.checked.module.inputs)
    dtypes[input.name] = input.type == ir::Type::boolean ? DType::boolean
                         : input.type == ir::Type::real  ? floats[random() % 4]
                                                         : ints[random() % 6];
  return dtypes;
}

plan::TileShape random_tile_shape(std::size_t rank, std::mt19937& random) {
  plan::TileShape shape;
  for (std::size_t i = 0; i < rank; ++i) {
    const unsigned most = rank == 1 ? 17 : 5;
    shape.q.push_back(1 + static_cast<int>(random() % most));
    shape.k.push_back(1 + static_cast<int>(random() % most));
  }
  return shape;
}

}  // namespace vicinal::testing
