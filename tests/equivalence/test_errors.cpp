// What the public API says of bad input: an Error of the right kind whose words name what to change.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <functional>
#include <limits>

#include "tests/support/plain_attention.h"

namespace vicinal::testing {
namespace {

std::string block(const std::string& statements) {
  return "attention t {\n" + statements + "\n}\n";
}

// One change of a problem that would run.
struct Refused {
  std::string what;
  std::string spec;
  std::function<void(RunArguments&)> change;
  ErrorKind kind;
  std::vector<std::string> words;  // all of them stand in the message or the help
};

ProblemShape grid(const Index& extents) {
  ProblemShape s;
  s.queries = s.keys = extents;
  return s;
}

void check_words(const Error& error, ErrorKind kind, const std::vector<std::string>& words) {
  const std::string said = error.message + "\n" + error.help;
  CAPTURE(said);
  CHECK(error.kind == kind);
  for (const std::string& word : words) {
    CAPTURE(word);
    CHECK(said.find(word) != std::string::npos);
  }
}

// The unchanged problem runs, the changed one is refused, by supports() as by run().
void check_refused(const Refused& r, const Problem& problem) {
  CAPTURE(r.what);
  const Kernel kernel = compile_for_interpreter(r.spec, problem.shape);
  RunArguments arguments = problem.arguments();
  const Result<void> before = kernel.run(arguments);
  CHECK_MESSAGE(before.has_value(), (before ? "" : before.error().message));
  r.change(arguments);
  const Result<void> result = kernel.run(arguments);
  REQUIRE_FALSE(result.has_value());
  check_words(result.error(), r.kind, r.words);
  const Result<Support> support = kernel.supports(arguments);
  REQUIRE_FALSE(support.has_value());
  CHECK(support.error().message == result.error().message);
}

constexpr ErrorKind kSpec = ErrorKind::spec, kUsage = ErrorKind::usage;

}  // namespace

TEST_CASE("errors: tensors") {
  const Refused rows[] = {
      {"rank of q",
       block(""),
       [](RunArguments& a) { a.q.shape.pop_back(), a.q.strides.pop_back(); },
       kSpec,
       {"`q`", "[batch, heads, tokens, dim]"}},
      {"rank of out",
       block(""),
       [](RunArguments& a) { a.out.shape = {2}, a.out.strides = {1}; },
       kSpec,
       {"`out`", "[batch, heads, tokens, dim]"}},
      {"rank of lse",
       block(""),
       [](RunArguments& a) { a.lse = a.out; },
       kSpec,
       {"`lse`", "[batch, heads, tokens]"}},
      {"batch of k",
       block(""),
       [](RunArguments& a) { a.k.shape[0] = 1; },
       kSpec,
       {"`k`", "batches", "1", "2"}},
      {"batch of v", block(""), [](RunArguments& a) { a.v.shape[0] = 1; }, kSpec, {"`v`", "batches"}},
      {"batch of out", block(""), [](RunArguments& a) { a.out.shape[0] = 1; }, kSpec, {"`out`", "batches"}},
      {"heads of v", block(""), [](RunArguments& a) { a.v.shape[1] = 1; }, kSpec, {"`v`", "heads"}},
      {"heads of out", block(""), [](RunArguments& a) { a.out.shape[1] = 3; }, kSpec, {"`out`", "heads"}},
      {"heads of lse", block(""), [](RunArguments& a) { a.lse->shape[1] = 3; }, kSpec, {"`lse`", "heads"}},
      {"heads that do not divide",
       block(""),
       [](RunArguments& a) { a.q.shape[1] = a.out.shape[1] = a.lse->shape[1] = 3; },
       kSpec,
       {"3", "2", "heads % kv_heads"}},
      {"no key heads",
       block(""),
       [](RunArguments& a) { a.k.shape[1] = a.v.shape[1] = 0; },
       kSpec,
       {"heads % kv_heads"}},
      {"keys of v",
       block(""),
       [](RunArguments& a) { a.v.shape[2] = 12; },
       kSpec,
       {"`v`", "keys", "12", "13"}},
      {"tokens of out",
       block(""),
       [](RunArguments& a) { a.out.shape[2] = 12; },
       kSpec,
       {"`out`", "tokens", "12", "13"}},
      {"tokens of lse", block(""), [](RunArguments& a) { a.lse->shape[2] = 12; }, kSpec, {"`lse`", "tokens"}},
      {"channels of q",
       block(""),
       [](RunArguments& a) { a.q.shape[3] = 7; },
       kSpec,
       {"`q`", "7", "head_dim"}},
      {"channels of k", block(""), [](RunArguments& a) { a.k.shape[3] = 4; }, kSpec, {"`k`", "head_dim"}},
      {"channels of v", block(""), [](RunArguments& a) { a.v.shape[3] = 4; }, kSpec, {"`v`", "value_dim"}},
      {"channels of out",
       block(""),
       [](RunArguments& a) { a.out.shape[3] = 4; },
       kSpec,
       {"`out`", "value_dim"}},
      {"dtype of k",
       block(""),
       [](RunArguments& a) { a.k.dtype = DType::f32; },
       kSpec,
       {"k is f32", "one dtype"}},
      {"dtype of q, k and v",
       block(""),
       [](RunArguments& a) { a.q.dtype = a.k.dtype = a.v.dtype = DType::f32; },
       kSpec,
       {"`q`", "f32", "compiled for f64"}},
      {"dtype of out",
       block(""),
       [](RunArguments& a) { a.out.dtype = DType::i64; },
       kSpec,
       {"`out`", "i64", "compiled for f64"}},
      {"dtype of lse",
       block(""),
       [](RunArguments& a) { a.lse->dtype = DType::f64; },
       kSpec,
       {"`lse`", "f32"}},
      {"strides of q",
       block(""),
       [](RunArguments& a) { a.q.strides.pop_back(); },
       kSpec,
       {"`q`", "3 strides for 4"}},
      {"strides of lse",
       block(""),
       [](RunArguments& a) { a.lse->strides.push_back(1); },
       kSpec,
       {"`lse`", "strides"}},
      {"no data in k", block(""), [](RunArguments& a) { a.k.data = nullptr; }, kSpec, {"`k`", "no data"}},
      {"no data in out",
       block(""),
       [](RunArguments& a) { a.out.data = nullptr; },
       kSpec,
       {"`out`", "no data"}},
      {"no data in lse",
       block(""),
       [](RunArguments& a) { a.lse->data = nullptr; },
       kSpec,
       {"`lse`", "no data"}},
      {"a negative extent", block(""), [](RunArguments& a) { a.k.shape[2] = -1; }, kSpec, {"`k`", "extent"}},
      {"too many tokens",
       block(""),
       [](RunArguments& a) { a.k.shape[2] = a.v.shape[2] = std::int64_t{1} << 31; },
       kSpec,
       {"`k`", "2^31"}},
      {"elements beyond 64 bits",
       block(""),
       [](RunArguments& a) {
         a.q.shape = {2'000'000'000, 2'000'000'000, 2'000'000'000, 8};
       },
       kSpec,
       {"`q`", "too many elements"}},
      {"an lse without softmax",
       block("normalize = sigmoid"),
       [](RunArguments& a) {
         a.lse = Tensor{a.out.data, DType::f32, {2, 4, 13}, {}};
       },
       kSpec,
       {"lse", "sigmoid", "leave lse out"}},
      {"context without the statement",
       block(""),
       [](RunArguments& a) { a.context_k = a.k, a.context_v = a.v; },
       kSpec,
       {"context", "add the statement"}},
      {"half a context",
       block("context"),
       [](RunArguments& a) { a.context_k = a.k; },
       kSpec,
       {"context_k", "context_v"}},
      {"rank of the context",
       block("context"),
       [](RunArguments& a) {
         a.context_k = a.context_v = Tensor{a.k.data, DType::f64, {2}, {}};
       },
       kSpec,
       {"context_k", "[batch, kv_heads, context, dim]"}},
      {"heads of the context",
       block("context"),
       [](RunArguments& a) { a.context_k = a.context_v = a.q; },
       kSpec,
       {"context_k", "heads"}},
      {"length of the context",
       block("context"),
       [](RunArguments& a) { a.context_k = a.k, a.context_v = a.v, a.context_v->shape[2] = 5; },
       kSpec,
       {"context_v", "keys"}},
      {"dtype of the context",
       block("context"),
       [](RunArguments& a) { a.context_k = a.k, a.context_v = a.v, a.context_v->dtype = DType::f16; },
       kSpec,
       {"context_v", "f16"}},
  };
  for (const Refused& r : rows) {
    ProblemShape s;
    s.lse = r.spec.find("sigmoid") == std::string::npos;
    check_refused(r, make_problem(s));
  }
}

TEST_CASE("errors: grids, windows and shards") {
  const std::string axes = block("axis y { window = 3, dilation = 2 }\naxis x { window = 4 }");
  const Refused rows[] = {
      {"window does not fit",
       axes,
       [](RunArguments& a) {
         for (Tensor* t : {&a.q, &a.k, &a.v, &a.out, &*a.lse}) t->shape[2] = 5;
       },
       kSpec,
       {"axis `y`", "3", "2", "6", "5"}},
      {"keys of another grid",
       axes,
       [](RunArguments& a) { a.k.shape[2] = a.v.shape[2] = 6; },
       kSpec,
       {"grid"}},
      {"tokens in one dimension, no grid",
       axes,
       [](RunArguments& a) {
         a.q.shape = {2, 4, 56, 8}, a.q.strides.clear();
       },
       kSpec,
       {"`q`", "give the grid"}},
      {"tokens in one dimension, another grid",
       axes,
       [](RunArguments& a) {
         a.q.shape = {2, 4, 55, 8}, a.q.strides.clear(), a.grid = {7, 8};
       },
       kSpec,
       {"`q`", "55", "[7, 8]"}},
      {"rank of the grid", axes, [](RunArguments& a) { a.grid = {56}; }, kSpec, {"grid", "axes"}},
      {"a grid smaller than the tensors",
       axes,
       [](RunArguments& a) {
         a.grid = {6, 8};
       },
       kSpec,
       {"`q`", "7", "6"}},
      {"an origin out of the grid",
       axes,
       [](RunArguments& a) {
         a.grid = {8, 8}, a.q_origin = {2, 0}, a.k_origin = {0, 0};
       },
       kSpec,
       {"`q`", "from 2"}},
      {"a negative origin",
       axes,
       [](RunArguments& a) {
         a.grid = {9, 9}, a.q_origin = {-1, 0}, a.k_origin = {0, 0};
       },
       kSpec,
       {"`q`", "-1"}},
      {"rank of an origin", axes, [](RunArguments& a) { a.q_origin = {0}; }, kSpec, {"q_origin"}},
      {"keys of a part, without their origin",
       axes,
       [](RunArguments& a) {
         a.grid = {9, 8}, a.q_origin = {0, 0};
       },
       kSpec,
       {"k_origin"}},
      {"a key grid beside axes",
       axes,
       [](RunArguments& a) {
         a.key_grid = {9, 9};
       },
       kSpec,
       {"key_grid"}},
      {"a grid beyond 2^31",
       axes,
       [](RunArguments& a) {
         a.grid = {100'000, 100'000}, a.q_origin = a.k_origin = {0, 0};
       },
       kSpec,
       {"2^31"}},
      {"a grid beyond 2^64",
       axes,
       [](RunArguments& a) {
         a.grid = {std::int64_t{1} << 40, std::int64_t{1} << 40}, a.q_origin = a.k_origin = {0, 0};
       },
       kSpec,
       {"2^31"}},
  };
  for (const Refused& r : rows) check_refused(r, make_problem(grid({7, 8})));

  const auto dynamic = [](std::int64_t window, std::int64_t stride) {
    ProblemShape s = grid({12});
    CompileOptions options;
    options.dynamic = {"w", "s"};
    Problem p = make_problem(s);
    p.dynamic = {{"w", window}, {"s", stride}};
    return compile_for_interpreter(
               block("param w: int = 4\nparam s: int = 2\naxis x { window = w, stride = s }"), s, options)
        .run(p.arguments());
  };
  CHECK(dynamic(12, 12).has_value());
  for (const auto& [window, stride, word] : {std::tuple{13, 1, "fit"},
                                             {0, 1, "at least 1"},
                                             {-3, 1, "at least 1"},
                                             {4, 5, "stride"},
                                             {4, 0, "stride"}}) {
    const Result<void> result = dynamic(window, stride);
    REQUIRE_FALSE(result.has_value());
    check_words(result.error(), kSpec, {"axis `x`", word});
  }
}

TEST_CASE("errors: inputs") {
  const std::string spec = block(
      "input bias: float[heads, n + 1]\ninput length: int[batch]\ninput flag: bool\n"
      "score = score + bias[h, min(k, n)]\nmask = k < length[b] or flag");
  Problem good = make_problem({});
  std::mt19937 random(1);
  good.inputs["bias"] = HostTensor(DType::f32, {4, 6}).fill_random(random);
  good.inputs["length"] = HostTensor(DType::i32, {2}).fill(9.0);
  good.inputs["flag"] = HostTensor(DType::boolean, {}).fill(0.0);
  const Refused rows[] = {
      {"missing",
       spec,
       [](RunArguments& a) { a.inputs.erase("bias"); },
       kSpec,
       {"`bias`", "missing", "float", "2"}},
      {"unknown", spec, [](RunArguments& a) { a.inputs["slope"] = a.inputs["bias"]; }, kUsage, {"`slope`"}},
      {"type",
       spec,
       [](RunArguments& a) { a.inputs["length"].dtype = DType::f32; },
       kSpec,
       {"`length`", "f32", "int"}},
      {"float from ints",
       spec,
       [](RunArguments& a) { a.inputs["bias"].dtype = DType::i32; },
       kSpec,
       {"`bias`", "i32", "float"}},
      {"bool from ints",
       spec,
       [](RunArguments& a) { a.inputs["flag"].dtype = DType::i32; },
       kSpec,
       {"`flag`", "i32", "bool"}},
      {"rank",
       spec,
       [](RunArguments& a) { a.inputs["bias"].shape = {24}, a.inputs["bias"].strides = {1}; },
       kSpec,
       {"`bias`", "1", "2"}},
      {"extent",
       spec,
       [](RunArguments& a) { a.inputs["bias"].shape[0] = 3; },
       kSpec,
       {"`bias`", "dimension 0", "4"}},
      {"an extent below its constant",
       spec,
       [](RunArguments& a) { a.inputs["bias"].shape[1] = 0; },
       kSpec,
       {"`bias`", "dimension 1", "at least 1"}},
      {"strides",
       spec,
       [](RunArguments& a) { a.inputs["bias"].strides = {1}; },
       kSpec,
       {"`bias`", "strides"}},
      {"no data",
       spec,
       [](RunArguments& a) { a.inputs["length"].data = nullptr; },
       kSpec,
       {"`length`", "no data"}},
      {"a param that is not dynamic",
       spec,
       [](RunArguments& a) { a.dynamic["gain"] = 1.0; },
       kUsage,
       {"`gain`"}},
  };
  for (const Refused& r : rows) check_refused(r, good);

  // Never read, but what `n` is comes from its shape.
  Problem extent = make_problem({});
  extent.inputs["table"] = HostTensor(DType::f32, {3, 5}).fill(0.0);
  check_refused({"an extent without its input",
                 block("input table: float[3, n]\nscore = score + n"),
                 [](RunArguments& a) { a.inputs.clear(); },
                 kSpec,
                 {"`table`", "missing", "`n`"}},
                extent);
}

TEST_CASE("errors: relations between extents are checked at launch") {
  ProblemShape s;
  s.queries = {9}, s.keys = {9};
  Problem p = make_problem(s);
  p.inputs["doc"] = HostTensor(DType::i32, {2, 9}).fill(0.0);
  const auto more_keys = [](RunArguments& a) {
    a.k.shape[2] = a.v.shape[2] = 8;
    a.q.shape[2] = a.out.shape[2] = a.lse->shape[2] = 9;
  };
  check_refused({"doc[b, k], keys > tokens",
                 block("input doc: int[batch, tokens]\nmask = doc[b, k] == doc[b, q]"),
                 [&](RunArguments& a) {
                   a.q.shape[2] = a.out.shape[2] = a.lse->shape[2] = 8;
                   a.inputs["doc"].shape[1] = 8, a.inputs["doc"].strides.clear();
                 },
                 kSpec,
                 {"`doc`", "tokens - keys"}},
                p);
  // The other way round is legal.
  RunArguments fewer = p.arguments();
  more_keys(fewer);
  CHECK(compile_for_interpreter(block("input doc: int[batch, tokens]\nmask = doc[b, k] == doc[b, q]"), s)
            .run(fewer)
            .has_value());

  p.inputs.clear();
  p.inputs["bias"] = HostTensor(DType::f32, {17}).fill(0.0);
  check_refused({"a bias that is too small",
                 block("input bias: float[n]\nscore = score + bias[q - k + keys - 1]"),
                 [](RunArguments& a) { a.inputs["bias"].shape[0] = 16; },
                 kSpec,
                 {"`bias`", "n"}},
                p);
  p.inputs.clear();
  p.inputs["x"] = HostTensor(DType::f32, {9, 4}).fill(0.0);
  p.inputs["y"] = HostTensor(DType::f32, {9, 4}).fill(0.0);
  check_refused(
      {"a dot of two lengths",
       block("input x: float[tokens, m]\ninput y: float[keys, n]\nscore = score + dot(x[q, :], y[k, :])"),
       [](RunArguments& a) { a.inputs["y"].shape[1] = 3; },
       kSpec,
       {"`x`", "`y`", "equal"}},
      p);
}

TEST_CASE("errors: compiling") {
  const auto refused = [](const std::string& text, const std::function<void(CompileOptions&)>& change,
                          ErrorKind kind, const std::vector<std::string>& words) {
    CAPTURE(text);
    CompileOptions options;
    options.backend = Backend::interpreter;
    options.head_dim = 8;
    const Spec spec = Spec::from_string(text).value();
    CHECK(compile(spec, options).has_value());
    change(options);
    const Result<Kernel> kernel = compile(spec, options);
    REQUIRE_FALSE(kernel.has_value());
    check_words(kernel.error(), kind, words);
  };
  const std::string spec = block(
      "param window: int = 4\nparam gain: float = 1.0\nparam on: bool = true\ninput x: float\naxis t { "
      "window = window, dilation = window }\nscore = score * gain * x if on else 0.0");
  refused(spec, [](CompileOptions& o) { o.head_dim = 7; }, kSpec, {"head_dim", "7", "multiple of 8"});
  refused(spec, [](CompileOptions& o) { o.head_dim = 0; }, kSpec, {"head_dim"});
  refused(spec, [](CompileOptions& o) { o.head_dim = 264; }, kSpec, {"head_dim", "256"});
  refused(spec, [](CompileOptions& o) { o.value_dim = 12; }, kSpec, {"value_dim", "12"});
  refused(spec, [](CompileOptions& o) { o.dtype = DType::i32; }, kSpec, {"i32"});
  refused(spec, [](CompileOptions& o) { o.params["windw"] = std::int64_t{3}; }, kUsage,
          {"`windw`", "`window`"});
  refused(spec, [](CompileOptions& o) { o.dynamic = {"gian"}; }, kUsage, {"`gian`", "`gain`"});
  refused(spec, [](CompileOptions& o) { o.params["window"] = 2.5; }, kUsage, {"`window`", "int", "float"});
  refused(spec, [](CompileOptions& o) { o.params["window"] = true; }, kUsage, {"`window`", "int", "bool"});
  refused(spec, [](CompileOptions& o) { o.params["on"] = std::int64_t{1}; }, kUsage, {"`on`", "bool"});
  refused(spec, [](CompileOptions& o) { o.params["window"] = std::int64_t{1} << 40; }, kUsage,
          {"`window`", "32 bits"});
  refused(spec, [](CompileOptions& o) { o.input_dtypes["y"] = DType::f32; }, kUsage, {"`y`"});
  refused(spec, [](CompileOptions& o) { o.params["window"] = std::int64_t{0}; }, kSpec,
          {"window", "at least 1"});
  refused(spec, [](CompileOptions& o) { o.dynamic = {"window"}; }, kSpec, {"dilation"});
  CHECK_FALSE(Spec::from_string("").has_value());
  CHECK(Spec::from_string("fn f(x: int) -> int = x").error().message.find("attention") != std::string::npos);
  CHECK(Spec::from_string("attention a {}\nattention b {}").error().kind == kUsage);
  Spec::Options options;
  options.block = "c";
  check_words(Spec::from_string("attention a {}\nattention b {}", options).error(), kUsage, {"`c`", "a, b"});
  check_words(Spec::from_file("/nowhere/at/all.attn").error(), kUsage,
              {"/nowhere/at/all.attn", "no such file"});
  check_words(Spec::from_string("import \"x.attn\"\nattention a {}").error(), kSpec, {"x.attn"});
}

}  // namespace vicinal::testing
