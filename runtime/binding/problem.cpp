#include "runtime/binding/problem.h"

#include "compiler/ir/text.h"
#include "compiler/support/int128.h"
#include "runtime/binding/errors.h"
#include "runtime/binding/tensor_view.h"
#include "runtime/binding/values.h"

namespace vicinal::runtime {
namespace {

class Binder {
 public:
  Binder(const BindingRules& rules, const RunArguments& arguments)
      : rules_(rules),
        module_(rules.module),
        arguments_(arguments),
        rank_(std::max<std::size_t>(1, module_.axes.size())) {}

  Result<Problem> run() {
    p_.head_dim = rules_.head_dim;
    p_.value_dim = rules_.value_dim;
    VICINAL_TRY_VOID(queries());
    VICINAL_TRY_VOID(keys());
    VICINAL_TRY_VOID(outputs());
    VICINAL_TRY_VOID(context());
    VICINAL_TRY_VOID(grid());
    VICINAL_TRY_VOID(bind_values(rules_, arguments_, p_));
    return std::move(p_);
  }

 private:
  // Tensors.

  Result<void> expect(const std::string& name, std::string_view what, std::int64_t have, std::int64_t want,
                      std::string_view like) const {
    if (have == want) return {};
    return wrong("`{}` has {} {}, and {} says {}", name, have, what, like, want);
  }

  Result<void> queries() {
    const std::vector<std::int64_t> one = {arguments_.q.shape.size() > 2 ? arguments_.q.shape[2] : 0};
    VICINAL_TRY(const TensorView q,
                view_tensor("q", arguments_.q, true, rank_, rank_ == 1 ? one : arguments_.grid));
    p_.q = q.strided;
    p_.batch = q.batch;
    p_.heads = q.heads;
    q_local_ = q.tokens;
    VICINAL_TRY_VOID(expect_dtype("q", arguments_.q));
    return expect("q", "channels", q.dim, p_.head_dim, "the kernel's head_dim");
  }

  Result<void> expect_dtype(std::string_view name, const Tensor& t) const {
    if (t.dtype == rules_.dtype) return {};
    return unexpected(ErrorKind::spec,
                      fmt::format("`{}` is {}, and the kernel was compiled for {}", name, name_of(t.dtype),
                                  name_of(rules_.dtype)),
                      "compile for the tensors' dtype, or convert them");
  }

  Result<void> keys() {
    const std::vector<std::int64_t> one = {arguments_.k.shape.size() > 2 ? arguments_.k.shape[2] : 0};
    VICINAL_TRY(const TensorView k,
                view_tensor("k", arguments_.k, true, rank_, rank_ == 1 ? one : arguments_.grid));
    VICINAL_TRY(const TensorView v,
                view_tensor("v", arguments_.v, true, rank_, rank_ == 1 ? one : arguments_.grid));
    p_.k = k.strided;
    p_.v = v.strided;
    p_.kv_heads = k.heads;
    k_local_ = k.tokens;
    VICINAL_TRY_VOID(expect("k", "batches", k.batch, p_.batch, "q"));
    VICINAL_TRY_VOID(expect("k", "channels", k.dim, p_.head_dim, "the kernel's head_dim"));
    VICINAL_TRY_VOID(expect("v", "batches", v.batch, p_.batch, "q"));
    VICINAL_TRY_VOID(expect("v", "heads", v.heads, k.heads, "k"));
    VICINAL_TRY_VOID(expect("v", "channels", v.dim, p_.value_dim, "the kernel's value_dim"));
    for (std::size_t i = 0; i < rank_; ++i)
      VICINAL_TRY_VOID(expect("v", "keys along an axis", v.tokens[i], k.tokens[i], "k"));
    if (p_.kv_heads == 0 ? p_.heads != 0 : p_.heads % p_.kv_heads != 0)
      return wrong("{} query heads cannot share {} key heads evenly: heads % kv_heads must be 0", p_.heads,
                   p_.kv_heads);
    for (const Tensor* t : {&arguments_.k, &arguments_.v})
      if (t->dtype != arguments_.q.dtype)
        return wrong("q is {} and {} is {}: q, k and v must have one dtype", name_of(arguments_.q.dtype),
                     t == &arguments_.k ? "k" : "v", name_of(t->dtype));
    return {};
  }

  Result<void> outputs() {
    VICINAL_TRY(const TensorView out, view_tensor("out", arguments_.out, true, rank_, q_local_));
    p_.out = out.strided;
    VICINAL_TRY_VOID(same_rows("out", out));
    VICINAL_TRY_VOID(expect_dtype("out", arguments_.out));
    VICINAL_TRY_VOID(expect("out", "channels", out.dim, p_.value_dim, "the kernel's value_dim"));
    p_.lse.axis.resize(rank_);
    if (!arguments_.lse) return {};
    if (module_.normalize != ir::Normalize::softmax)
      return unexpected(
          ErrorKind::spec,
          fmt::format("there is no lse: the variant has `normalize = {}`", ir::name_of(module_.normalize)),
          "leave lse out");
    VICINAL_TRY(const TensorView lse, view_tensor("lse", *arguments_.lse, false, rank_, q_local_));
    p_.lse = lse.strided;
    if (arguments_.lse->dtype != DType::f32)
      return wrong("`lse` is {}, and must be f32", name_of(arguments_.lse->dtype));
    return same_rows("lse", lse);
  }

  Result<void> same_rows(const std::string& name, const TensorView& v) const {
    VICINAL_TRY_VOID(expect(name, "batches", v.batch, p_.batch, "q"));
    VICINAL_TRY_VOID(expect(name, "heads", v.heads, p_.heads, "q"));
    for (std::size_t i = 0; i < rank_; ++i)
      VICINAL_TRY_VOID(expect(name, "tokens along an axis", v.tokens[i], q_local_[i], "q"));
    return {};
  }

  Result<void> context() {
    p_.context_k.axis.resize(1);
    p_.context_v.axis.resize(1);
    if (arguments_.context_k.has_value() != arguments_.context_v.has_value())
      return wrong("context_k and context_v go together");
    if (!arguments_.context_k) return {};
    if (!module_.context)
      return unexpected(ErrorKind::spec, "the variant has no context keys",
                        "add the statement `context` to its block");
    for (const auto& [name, tensor, target, dim] :
         {std::tuple("context_k", &*arguments_.context_k, &p_.context_k, p_.head_dim),
          std::tuple("context_v", &*arguments_.context_v, &p_.context_v, p_.value_dim)}) {
      VICINAL_TRY(const std::vector<std::int64_t> strides, checked_strides(name, *tensor));
      if (tensor->shape.size() != 4)
        return wrong("`{}` has shape {}: it must be [batch, kv_heads, context, dim]", name,
                     shape_text(tensor->shape));
      VICINAL_TRY_VOID(expect(name, "batches", tensor->shape[0], p_.batch, "q"));
      VICINAL_TRY_VOID(expect(name, "heads", tensor->shape[1], p_.kv_heads, "k"));
      VICINAL_TRY_VOID(expect(name, "channels", tensor->shape[3], dim, "the kernel"));
      VICINAL_TRY_VOID(expect(name, "keys", tensor->shape[2], arguments_.context_k->shape[2], "context_k"));
      if (tensor->dtype != arguments_.q.dtype)
        return wrong("q is {} and {} is {}: they must have one dtype", name_of(arguments_.q.dtype), name,
                     name_of(tensor->dtype));
      *target = {tensor->data, tensor->dtype, strides[0], strides[1], strides[3], {strides[2]}};
    }
    p_.context = arguments_.context_k->shape[2];
    return {};
  }

  // The whole grid, and where the tensors lie in it.
  Result<void> grid() {
    const bool sequence = module_.axes.empty();
    const std::vector<std::int64_t> whole = arguments_.grid.empty() ? q_local_ : arguments_.grid;
    std::vector<std::int64_t> key_whole = !arguments_.key_grid.empty()  ? arguments_.key_grid
                                          : !sequence                   ? whole
                                          : arguments_.k_origin.empty() ? k_local_
                                                                        : whole;
    if (!sequence && !arguments_.key_grid.empty() && arguments_.key_grid != whole)
      return wrong("with axes, queries and keys share one grid: leave key_grid out");
    VICINAL_TRY_VOID(place("q", whole, q_local_, arguments_.q_origin, p_.q_axis));
    VICINAL_TRY_VOID(place("k", key_whole, k_local_, arguments_.k_origin, p_.k_axis));
    if (!sequence && arguments_.k_origin.empty() && k_local_ != whole)
      return wrong(
          "keys cover {} of the grid {}: with axes, queries and keys share the grid (a shard gives k_origin)",
          shape_text(k_local_), shape_text(whole));
    VICINAL_TRY(p_.tokens, count("tokens", p_.q_axis));
    VICINAL_TRY(p_.keys, count("keys", p_.k_axis));
    return {};
  }

  Result<void> place(std::string_view name, const std::vector<std::int64_t>& whole,
                     const std::vector<std::int64_t>& local, const std::vector<std::int64_t>& origin,
                     std::vector<GridAxis>& axes) const {
    if (whole.size() != rank_) return wrong("the grid has {} extents for {} axes", whole.size(), rank_);
    if (!origin.empty() && origin.size() != rank_)
      return wrong("{}_origin has {} elements for {} axes", name, origin.size(), rank_);
    for (std::size_t i = 0; i < rank_; ++i) {
      const std::int64_t at = origin.empty() ? 0 : origin[i];
      if (at < 0 || local[i] > whole[i] || at > whole[i] - local[i])
        return wrong("`{}` holds {} tokens from {} on along axis {}, and the grid has {}", name, local[i], at,
                     i, whole[i]);
      axes.push_back({whole[i], local[i], at});
    }
    return {};
  }

  Result<std::int64_t> count(std::string_view what, const std::vector<GridAxis>& axes) const {
    support::int128 product = 1;
    for (const GridAxis& a : axes) product *= a.extent;
    if (product >= kMaxTokens) return wrong("the grid has 2^31 {} or more", what);
    return static_cast<std::int64_t>(product);
  }

  const BindingRules& rules_;
  const ir::Module& module_;
  const RunArguments& arguments_;
  const std::size_t rank_;
  std::vector<std::int64_t> q_local_, k_local_;
  Problem p_;
};

std::int64_t product(const std::vector<GridAxis>& axes) {
  std::int64_t n = 1;
  for (const GridAxis& a : axes) n *= a.local;
  return n;
}

}  // namespace

std::int64_t Problem::local_queries() const {
  return product(q_axis);
}
std::int64_t Problem::local_keys() const {
  return product(k_axis);
}

Result<Problem> bind(const BindingRules& rules, const RunArguments& arguments) {
  return Binder(rules, arguments).run();
}

std::optional<ir::Value> launch_value(const Problem& p, const ir::Symbol& s) {
  using ir::SymbolKind;
  const auto integer = [](std::int64_t x) { return ir::int_value(static_cast<std::int32_t>(x)); };
  switch (s.kind) {
    case SymbolKind::batch: return integer(p.batch);
    case SymbolKind::heads: return integer(p.heads);
    case SymbolKind::kv_heads: return integer(p.kv_heads);
    case SymbolKind::tokens: return integer(p.tokens);
    case SymbolKind::keys: return integer(p.keys);
    case SymbolKind::context: return integer(p.context);
    case SymbolKind::head_dim: return integer(p.head_dim);
    case SymbolKind::axis_length: return integer(p.q_axis[s.index].extent);
    case SymbolKind::named_extent: return integer(p.extents[s.index]);
    case SymbolKind::param: return p.params[s.index];
    default: return std::nullopt;
  }
}

}  // namespace vicinal::runtime
