#include "runtime/binding/differentials.h"

#include "runtime/binding/errors.h"
#include "runtime/binding/tensor_view.h"

namespace vicinal::runtime {
namespace {

std::vector<std::int64_t> local_extents(const std::vector<GridAxis>& axes) {
  std::vector<std::int64_t> extents;
  for (const GridAxis& a : axes) extents.push_back(a.local);
  return extents;
}

Result<void> expect_floats(const std::string& name, DType dtype) {
  if (is_floating(dtype)) return {};
  return wrong("`{}` is {}, and must be f16, bf16, f32 or f64", name, name_of(dtype));
}

// Of a tensor with the batches, heads, tokens and channels of another one.
struct Wanted {
  std::int64_t batch, heads, dim;  // dim 0: it has none
  std::vector<std::int64_t> tokens;
};
Result<Strided> bind_one(const std::string& name, const Tensor& tensor, const Wanted& wanted) {
  VICINAL_TRY_VOID(expect_floats(name, tensor.dtype));
  VICINAL_TRY(const TensorView view,
              view_tensor(name, tensor, wanted.dim != 0, wanted.tokens.size(), wanted.tokens));
  std::vector<std::int64_t> shape = {wanted.batch, wanted.heads};
  shape.insert(shape.end(), wanted.tokens.begin(), wanted.tokens.end());
  if (wanted.dim != 0) shape.push_back(wanted.dim);
  if (view.batch != wanted.batch || view.heads != wanted.heads || view.dim != wanted.dim ||
      view.tokens != wanted.tokens)
    return wrong("`{}` has shape {}, and must have {}", name, shape_text(tensor.shape), shape_text(shape));
  return view.strided;
}

template <class Declared>
std::optional<std::size_t> find_learnable(const std::vector<Declared>& declared, const std::string& name) {
  for (std::size_t i = 0; i < declared.size(); ++i)
    if (declared[i].name == name) return i;
  return std::nullopt;
}

class Binder {
 public:
  Binder(const ir::Module& module, const Problem& problem, const Differentials& given, std::string_view noun)
      : module_(module), p_(problem), given_(given), noun_(noun) {}

  Result<BoundDifferentials> run() {
    const auto queries = local_extents(p_.q_axis), keys = local_extents(p_.k_axis);
    const std::vector<std::int64_t> context = {p_.context};
    if (!module_.context && (given_.context_k || given_.context_v))
      return unexpected(ErrorKind::spec, "the variant has no context keys",
                        "add the statement `context` to its block");
    VICINAL_TRY_VOID(tensor("q", given_.q, bound_.q, {p_.batch, p_.heads, p_.head_dim, queries}));
    VICINAL_TRY_VOID(tensor("k", given_.k, bound_.k, {p_.batch, p_.kv_heads, p_.head_dim, keys}));
    VICINAL_TRY_VOID(tensor("v", given_.v, bound_.v, {p_.batch, p_.kv_heads, p_.value_dim, keys}));
    VICINAL_TRY_VOID(tensor("context_k", given_.context_k, bound_.context_k,
                            {p_.batch, p_.kv_heads, p_.head_dim, context}));
    VICINAL_TRY_VOID(tensor("context_v", given_.context_v, bound_.context_v,
                            {p_.batch, p_.kv_heads, p_.value_dim, context}));
    bound_.inputs.resize(module_.inputs.size());
    bound_.params.resize(module_.params.size());
    for (const auto& [name, given] : given_.inputs) VICINAL_TRY_VOID(input(name, given));
    for (const auto& [name, given] : given_.params) VICINAL_TRY_VOID(param(name, given));
    return std::move(bound_);
  }

 private:
  std::string called(const std::string& name) const { return fmt::format("{} of {}", noun_, name); }

  Result<void> tensor(const std::string& name, const std::optional<Tensor>& given, Strided& target,
                      const Wanted& wanted) const {
    if (!given) return {};
    VICINAL_TRY(target, bind_one(called(name), *given, wanted));
    return {};
  }

  Unexpected not_learnable(std::string_view kind, const std::string& name) const {
    return unexpected(ErrorKind::spec,
                      fmt::format("{} `{}` has no {}: it is not learnable", kind, name, noun_),
                      fmt::format("end its declaration with `learnable`"));
  }

  Result<void> input(const std::string& name, const Tensor& given) {
    const auto i = find_learnable(module_.inputs, name);
    if (!i) return unexpected(ErrorKind::usage, fmt::format("the variant has no input `{}`", name));
    if (!module_.inputs[*i].learnable) return not_learnable("input", name);
    const CapturedInput& bound = p_.inputs[*i];
    if (bound.extents.size() != module_.inputs[*i].dims.size())
      return unexpected(ErrorKind::spec, fmt::format("input `{}` is missing", name),
                        fmt::format("its {} is asked for: pass it", noun_));
    return captured(name, given, bound.extents, bound_.inputs[*i]);
  }

  Result<void> param(const std::string& name, const Tensor& given) {
    const auto i = find_learnable(module_.params, name);
    if (!i) return unexpected(ErrorKind::usage, fmt::format("the variant has no param `{}`", name));
    if (!module_.params[*i].learnable) return not_learnable("param", name);
    return captured(name, given, {}, bound_.params[*i]);
  }

  Result<void> captured(const std::string& name, const Tensor& given, const std::vector<std::int64_t>& shape,
                        BoundDifferentials::Captured& target) const {
    VICINAL_TRY_VOID(expect_floats(called(name), given.dtype));
    VICINAL_TRY(target.strides, checked_strides(called(name), given));
    if (given.shape != shape)
      return wrong("`{}` has shape {}, and must have {}", called(name), shape_text(given.shape),
                   shape_text(shape));
    target.data = given.data;
    target.dtype = given.dtype;
    return {};
  }

  const ir::Module& module_;
  const Problem& p_;
  const Differentials& given_;
  const std::string_view noun_;
  BoundDifferentials bound_;
};

}  // namespace

Result<BoundDifferentials> bind_differentials(const ir::Module& module, const Problem& problem,
                                              const Differentials& differentials, std::string_view noun) {
  return Binder(module, problem, differentials, noun).run();
}

Result<BoundOutputDifferentials> bind_output_differentials(const ir::Module& module, const Problem& p,
                                                           const OutputDifferentials& differentials,
                                                           std::string_view noun, bool needed) {
  BoundOutputDifferentials bound;
  const std::vector<std::int64_t> queries = local_extents(p.q_axis);
  if (needed && !differentials.out)
    return unexpected(ErrorKind::spec, fmt::format("the {} of out is missing", noun),
                      "pass it: it has the shape of out");
  if (differentials.out) {
    VICINAL_TRY(bound.out, bind_one(fmt::format("{} of out", noun), *differentials.out,
                                    {p.batch, p.heads, p.value_dim, queries}));
  }
  if (!differentials.lse) return bound;
  if (module.normalize != ir::Normalize::softmax)
    return unexpected(
        ErrorKind::spec,
        fmt::format("there is no lse: the variant has `normalize = {}`", ir::name_of(module.normalize)),
        fmt::format("leave the {} of lse out", noun));
  VICINAL_TRY(bound.lse,
              bind_one(fmt::format("{} of lse", noun), *differentials.lse, {p.batch, p.heads, 0, queries}));
  return bound;
}

}  // namespace vicinal::runtime
