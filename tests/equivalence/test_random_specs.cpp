// Random valid specs through the whole compiler: accepted, printed and read back, optimized without a change
// of meaning, and emitted as text that is ours alone.
//
// What "without a change of meaning" is held to: under exact evaluation (fp32, an operation at a time, as
// masks are computed everywhere) every root has the same bits before and after the passes, since folding
// evaluates exactly and every rule is exact. Under wide evaluation (scores in double) folding may round a
// constant to fp32 that double would have kept; where no folded constant does that, scores and outputs have
// the same bits too.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstdlib>

#include "compiler/ir/text.h"
#include "compiler/support/match.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/engine.h"
#include "runtime/kernel_impl.h"
#include "tests/support/emitted_text.h"
#include "tests/support/random_problem.h"
#include "tests/support/random_spec.h"

namespace vicinal::testing {
namespace {

unsigned count_from_environment(const char* name, unsigned otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}
bool same_value(ir::Type type, ir::Value a, ir::Value b) {
  return type == ir::Type::real ? same_bits(a.f, b.f) : type == ir::Type::integer ? a.i == b.i : a.b == b.b;
}

// A module's nodes at one made-up place: symbols and elements of inputs are random, and the same for equal
// names and indices, so that two modules of one spec can be compared.
class Sample {
 public:
  explicit Sample(unsigned seed) : seed_(seed) {}

  std::vector<ir::Value> exact(const ir::Module& module) const {
    std::vector<ir::Value> values;
    for (const ir::Node& node : module.nodes()) {
      std::vector<ir::Value> operands;
      for (ir::NodeId id : node.operands) operands.push_back(values[id.value]);
      values.push_back(support::match(
          node.what, [](const ir::Constant& c) { return ir::value_of(c); },
          [&](const ir::Symbol& s) { return symbol(module, s, node.type); },
          [&](const ir::Apply& a) { return ir::info(a.op).exact(operands.data()); },
          [&](const ir::Load& l) { return element(node.type, hash(l.input, operands)); },
          [&](const ir::Dot& d) { return element(node.type, hash(d.first * 1000 + d.second, operands)); }));
    }
    return values;
  }

 private:
  ir::Value symbol(const ir::Module& module, const ir::Symbol& s, ir::Type type) const {
    if (s.kind == ir::SymbolKind::param && !module.params[s.index].dynamic)
      return module.params[s.index].value;
    const std::uint64_t h = mix(seed_ * 977 + static_cast<std::uint64_t>(s.kind) * 64 + s.index);
    // Extents and positions are small and not negative.
    return type == ir::Type::integer ? ir::int_value(static_cast<std::int32_t>(h % 50)) : element(type, h);
  }
  static ir::Value element(ir::Type type, std::uint64_t h) {
    if (type == ir::Type::integer)
      return ir::int_value(static_cast<std::int32_t>(h % 16 == 0 ? h >> 32 : h >> 8 & 31) -
                           static_cast<std::int32_t>(h % 16 == 0 ? 0 : 8));
    if (type == ir::Type::boolean) return ir::bool_value((h & 256) != 0);
    if (h % 32 == 0)
      return ir::real_value(std::bit_cast<float>(static_cast<std::uint32_t>(h >> 32)));  // anything at all
    return ir::real_value(static_cast<float>(static_cast<double>(static_cast<std::int64_t>(h)) * 0x1p-62));
  }
  std::uint64_t hash(std::uint32_t input, const std::vector<ir::Value>& indices) const {
    std::uint64_t h = mix(seed_ + input);
    for (ir::Value v : indices) h = mix(h ^ static_cast<std::uint32_t>(v.i));
    return h;
  }
  static std::uint64_t mix(std::uint64_t x) {
    x = (x + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 29) * 0x94d049bb133111ebu;
    return x ^ x >> 32;
  }

  unsigned seed_;
};

// Whether every operation on constants of a module gives in double what it gives in fp32.
bool constants_are_exact(const ir::Module& module) {
  std::vector<std::optional<ir::Value>> values;
  for (const ir::Node& node : module.nodes()) {
    std::optional<ir::Value> value;
    if (const auto* c = std::get_if<ir::Constant>(&node.what)) value = ir::value_of(*c);
    const auto* s = std::get_if<ir::Symbol>(&node.what);
    if (s != nullptr && s->kind == ir::SymbolKind::param && !module.params[s->index].dynamic)
      value = module.params[s->index].value;
    if (const auto* a = std::get_if<ir::Apply>(&node.what)) {
      std::vector<ir::Value> operands;
      for (ir::NodeId id : node.operands)
        if (values[id.value]) operands.push_back(*values[id.value]);
      if (operands.size() == node.operands.size()) {
        value = ir::info(a->op).exact(operands.data());
        if (!same_value(node.type, *value, ir::info(a->op).wide(operands.data()))) return false;
      }
    }
    values.push_back(value);
  }
  return true;
}

// The same where the passes bring new constants together.
bool folds_exactly(const ir::Module& checked) {
  bool exact = constants_are_exact(checked);
  passes::run_pipeline(checked, [&](const passes::PassReport&, const ir::Module& module) {
    exact = exact && constants_are_exact(module);
  });
  return exact;
}

void check_printing(const ir::Module& module) {
  const std::string text = ir::print(module);
  const Result<ir::Module> again = ir::parse(text);
  REQUIRE_MESSAGE(again.has_value(), (again ? "" : again.error().message));
  CHECK(ir::print(*again) == text);
}

// What a pair comes to: its score, -inf where it is not kept. A pass may move -inf from a score to the mask.
ir::Value pair_score(const ir::Module& module, const std::vector<ir::Value>& values) {
  const auto root = [&](ir::Root r, ir::Value otherwise) {
    return module.root(r).valid() ? values[module.root(r).value] : otherwise;
  };
  if (!root(ir::Root::mask, ir::bool_value(true)).b) return ir::real_value(-INFINITY);
  return root(ir::Root::score, ir::real_value(1));
}

void check_passes_exactly(const driver::Variant& variant, unsigned seed) {
  const ir::Module &checked = variant.checked.module, &optimized = variant.optimized;
  for (unsigned i = 0; i < 12; ++i) {
    const Sample sample(seed * 12 + i);
    const std::vector<ir::Value> before = sample.exact(checked), after = sample.exact(optimized);
    CHECK(same_value(ir::Type::real, pair_score(checked, before), pair_score(optimized, after)));
    for (const ir::Root r : {ir::Root::scale, ir::Root::sink, ir::Root::output}) {
      const ir::NodeId a = checked.root(r), b = optimized.root(r);
      REQUIRE(a.valid() == b.valid());
      if (!a.valid()) continue;
      CAPTURE(std::string(ir::name_of(r)));
      CHECK(same_value(checked[a].type, before[a.value], after[b.value]));
    }
  }
}

// The interpreter on the module before and after the passes; returns whether scores could be compared.
bool check_interpreter(const Kernel& kernel, const Problem& problem) {
  const driver::Variant& variant = kernel.impl().variant;
  const runtime::Problem bound = kernel.impl().bind(problem.arguments()).value();
  const cpu::Interpreter before(variant.checked.module, bound), after(variant.optimized, bound);
  const bool scores = folds_exactly(variant.checked.module);
  for (std::int64_t n = 0; n < bound.rows(); n += 1 + bound.rows() / 8) {
    const std::int64_t queries = bound.local_queries();
    const cpu::Row row{n / queries / bound.heads, n / queries % bound.heads, n % queries};
    const std::vector<double> x = before.scores(row), y = after.scores(row);
    REQUIRE(x.size() == y.size());
    // A score of -inf may have become a mask; nothing else about the mask changes.
    const std::vector<bool> kept = before.kept(row), kept_after = after.kept(row);
    for (std::size_t i = 0; i < kept.size(); ++i)
      CHECK((kept[i] == kept_after[i] || (kept[i] && x[i] == -INFINITY && y[i] == -INFINITY)));
    if (!scores) continue;
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(same_bits(x[i], y[i]));
    const cpu::RowResult a = before.row(row), b = after.row(row);
    CHECK(a.kept == b.kept);
    for (std::size_t i = 0; i < a.out.size(); ++i) CHECK(same_bits(a.out[i], b.out[i]));
  }
  return scores;
}

}  // namespace

TEST_CASE("random specs") {
  const unsigned count = count_from_environment("VICINAL_RANDOM_SPECS", 2000),
                 first = count_from_environment("VICINAL_RANDOM_SEED", 1);
  unsigned compared = 0, accepted = 0, without_problem = 0;
  for (unsigned seed = first; seed < first + count; ++seed) {
    CAPTURE(seed);
    const RandomSpec random_text = random_spec(seed, seed % 4 == 0);
    CAPTURE(random_text.text);
    const Result<Spec> spec = Spec::from_string(random_text.text),
                       mask_only = Spec::from_string(random_text.mask_only);
    CHECK_MESSAGE(spec.has_value(), (spec ? "" : spec.error().message));
    CHECK_MESSAGE(mask_only.has_value(), (mask_only ? "" : mask_only.error().message));
    if (!spec || !mask_only) continue;
    ++accepted;
    std::mt19937 random(seed);
    CompileOptions options;
    options.backend = Backend::interpreter;
    options.dtype = DType::f64;
    options.head_dim = 8;
    options.input_dtypes = random_input_dtypes(*spec, random);
    const Result<Kernel> kernel = compile(*spec, options);
    REQUIRE_MESSAGE(kernel.has_value(), (kernel ? "" : kernel.error().message));
    const driver::Variant& variant = kernel->impl().variant;
    check_printing(variant.checked.module);
    check_printing(variant.optimized);
    check_passes_exactly(variant, seed);
    for (const auto kind : {emit::KernelKind::portable, emit::KernelKind::reference}) {
      emit::KernelOptions how;
      how.kind = kind;
      const emit::KernelSource source = emit::emit_cuda(variant.specialized, how);
      const auto forbidden = forbidden_in(source.text, source.entry);
      CHECK_MESSAGE(!forbidden, forbidden.value_or(""));
    }
    const std::optional<Problem> problem = random_problem(*kernel, random, {.tokens = 12});
    if (problem)
      compared += check_interpreter(*kernel, *problem);
    else
      ++without_problem;
  }
  MESSAGE(accepted, " of ", count, " specs accepted; scores compared to the bit for ", compared,
          "; no problem found for ", without_problem);
  CHECK(compared * 3 > count);
  CHECK(without_problem * 20 < count);
}

TEST_CASE("random specs: a sample compiles through NVRTC") {
  const Result<runtime::Engine*> engine = runtime::Engine::process();
  REQUIRE(engine.has_value());
  const Result<cuda::NvrtcCompiler> compiler = (*engine)->nvrtc();
  if (!compiler) {
    MESSAGE("skipped: ", compiler.error().message);
    return;
  }
  for (unsigned seed = 1; seed <= 12; ++seed) {
    CAPTURE(seed);
    const std::string text = random_spec(seed * 101, false).text;
    CAPTURE(text);
    const Spec spec = Spec::from_string(text).value();
    emit::KernelOptions how;
    how.kind = emit::KernelKind::reference;  // the expressions are the same, and it compiles sooner
    how.dtype = DType::bf16;
    const emit::KernelSource source = emit::emit_cuda(spec.impl().variant.specialized, how);
    cuda::CompileRequest request;
    request.source = source.text;
    request.entry = source.entry;
    request.arch = "sm_90a";
    request.headers = (*engine)->headers().value();
    const Result<cuda::Compiled> compiled = compiler->compile(request);
    CHECK_MESSAGE(compiled.has_value(), (compiled ? "" : compiled.error().message + compiled.error().help));
  }
}

}  // namespace vicinal::testing
