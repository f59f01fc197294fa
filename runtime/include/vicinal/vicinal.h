// Vicinal: attention variants written as text, compiled at run time, run on an NVIDIA GPU or on the CPU.
//
//   auto spec   = vicinal::Spec::from_file("specs/alibi.attn").value();
//   auto kernel = vicinal::compile(spec, {.dtype = vicinal::bf16, .head_dim = 128}).value();
//   kernel.run({.q = q, .k = k, .v = v, .out = out, .inputs = {{"slopes", slopes}}}, stream).value();
//
// Every call returns a Result: test it, or call value(), which throws vicinal::Error. Objects are cheap to
// copy (they share what they hold) and may be used from several threads at a time. Nothing here throws by
// itself.
#pragma once

#include <vicinal/dtype.h>
#include <vicinal/result.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#if defined(__GNUC__)
#define VICINAL_API __attribute__((visibility("default")))
#else
#define VICINAL_API
#endif

namespace vicinal {

// "0.1.0"
VICINAL_API std::string_view version();

// The value of a `param`.
using ParamValue = std::variant<bool, std::int64_t, double>;

// Memory of the caller's and how it is laid out. Data are in the memory of the backend that runs: device
// memory for CUDA, host memory for the CPU. Strides count elements; empty strides mean C order.
//
// q [batch, heads, tokens, head_dim], k [batch, kv_heads, keys, head_dim], v [batch, kv_heads, keys,
// value_dim], out [batch, heads, tokens, value_dim], lse [batch, heads, tokens] (f32), context_k and
// context_v as k and v with `context` in place of keys. A variant with axes may give each axis a dimension of
// its own in place of tokens: q [batch, heads, t, y, x, head_dim]; a heads-last tensor is the same shape with
// other strides.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape = {};
  std::vector<std::int64_t> strides = {};
};

enum class Backend { automatic, interpreter, cpu, cuda };
VICINAL_API std::string_view name_of(Backend backend);

// A message about a spec: an error, a warning or a remark, already worded.
struct Message {
  std::string level, name, text;
  std::string file;
  std::uint32_t line = 0, column = 0;
};

// A parsed and checked spec: one `attention` block.
class VICINAL_API Spec {
 public:
  struct Options {
    std::string block = {};                      // which block of several; empty: the only one
    std::vector<std::string> import_paths = {};  // folders, beside the spec's own, that imports may lead to
    // For a spec from a string: gives the text of an import, or says why not.
    std::function<Result<std::string>(const std::string& path)> resolver = {};
  };

  // Errors (kind spec): the message is all diagnostics as text.
  static Result<Spec> from_file(const std::string& path, const Options& options);
  static Result<Spec> from_file(const std::string& path) { return from_file(path, {}); }
  static Result<Spec> from_string(std::string_view text, const Options& options);
  static Result<Spec> from_string(std::string_view text) { return from_string(text, {}); }

  const std::string& name() const;
  const std::vector<Message>& messages() const;  // warnings
  std::vector<std::string> axes() const;
  std::vector<std::string> params() const;
  std::vector<std::string> inputs() const;
  bool has_context() const;

  struct Impl;
  explicit Spec(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }
  const std::shared_ptr<const Impl>& shared() const { return impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

struct CompileOptions {
  Backend backend = Backend::automatic;
  DType dtype = DType::bf16;  // of q, k, v and out: f16, bf16, f32; f64 on the interpreter
  std::int64_t head_dim = 128;
  std::int64_t value_dim = 0;                      // 0: head_dim
  std::map<std::string, ParamValue> params = {};   // baked into the kernel
  std::set<std::string> dynamic = {};              // given at every run instead
  std::map<std::string, DType> input_dtypes = {};  // default: f32, i32, bool by the input's type
  // Of products of f32 tensors.
  Precision precision = Precision::ieee;
  // "hopper", "mma", "portable" or "reference"; empty: the fastest that takes the variant.
  std::string kernel = {};
  int tile_q = 0, tile_k = 0;  // 0: chosen
  // Of that kernel, by its number among those that tuning tries; -1: chosen.
  int schedule = -1;
  int device = 0;
  // On a device: compile the kernels of backward() and jvp() too.
  bool gradients = false;
  // The same arguments give gradients of the same bits. Otherwise those of q may be summed in any order,
  // which is faster.
  bool deterministic = true;
  // The processor that code for the CPU may be run on, by LLVM's name for it, such as "x86-64-v3"; empty:
  // this machine's, with all that it has.
  std::string cpu_target = {};
};

// Memory of the caller's, aligned to 256 bytes, that a run may overwrite; used until its work is done.
struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
};

struct RunArguments {
  Tensor q = {}, k = {}, v = {}, out = {};
  std::optional<Tensor> lse = {};
  std::optional<Tensor> context_k = {}, context_v = {};
  std::map<std::string, Tensor> inputs = {};
  std::map<std::string, ParamValue> dynamic = {};

  // Extents of the whole grid, an element per axis (one for a sequence: its tokens). Empty: the tensors hold
  // all of it. A shard gives the grid and where its queries and keys start; tensors then are local,
  // everything else global.
  std::vector<std::int64_t> grid = {};
  std::vector<std::int64_t> key_grid =
      {};  // of a sequence whose keys differ in number; empty: from k, or the grid
  std::vector<std::int64_t> q_origin = {}, k_origin = {};

  // Device memory for what a run makes before it computes. With as much as supports() asks for, a mask that
  // reads inputs is planned on the device at every run, from what they hold by then.
  Workspace workspace = {};
};

// A tensor for each thing that a result is differentiated with respect to: gradients that backward() writes,
// or tangents that jvp() reads. Those that are left out are not computed, or are zero. Shapes are those of
// the run's tensors, strides and float dtypes any; a param's has no dimensions. Only what the spec declares
// `learnable` stands in `inputs` and `params`.
struct Differentials {
  std::optional<Tensor> q = {}, k = {}, v = {};
  std::optional<Tensor> context_k = {}, context_v = {};
  std::map<std::string, Tensor> inputs = {}, params = {};
};
// The same for what a run computes.
struct OutputDifferentials {
  std::optional<Tensor> out = {}, lse = {};
};

// Opaque CUstream_st*; null is the default stream. Ignored by CPU backends.
using Stream = void*;

// What a problem will run on, before it runs.
struct Support {
  bool supported = false;
  Backend backend = Backend::automatic;
  std::string path;                 // "cuda/hopper", "cuda/mma", "cuda/portable", "cpu/jit", "interpreter"
  std::string reason;               // why this path, or why not
  std::size_t workspace_bytes = 0;  // device memory that a run plans its tiles in, if it is given
  // Where backward() computes gradients, "cuda/hopper", "cuda/portable", "cpu/jit" or "interpreter", and why
  // there; empty where it cannot. On the CPU asking for it compiles the code.
  std::string gradient_path, gradient_reason;
  std::size_t gradient_workspace_bytes = 0;  // device memory that backward() needs
};

// Where a kernel came from.
struct CompileInfo {
  Backend backend = Backend::automatic;
  std::string path;         // "cuda/hopper", "cuda/mma", "cuda/portable", "cpu/jit", "interpreter"
  std::string path_reason;  // its schedule, or why it is not a faster one
  std::string gradient_path, gradient_path_reason;  // of CompileOptions::gradients
  std::string origin;       // "memory", "disk", "compiled", "none" (nothing to compile)
  std::string miss_reason;  // why the cache did not have it
  std::string key;          // of the cache; empty where nothing is compiled
  std::string arch;         // "sm_90a"
  double front_end_ms = 0;  // check and passes
  double compile_ms = 0;    // emission, NVRTC or the cache's answer, module load
  int registers = 0, local_bytes = 0, shared_bytes = 0;
};

// Which tiles a kernel visits for one set of extents: what its mask leaves out is skipped, where it keeps
// everything it is not asked. Belongs to the kernel that made it; on a device it owns memory there, so that
// it has to live until the work that uses it is done, and as long as a graph that captured it.
class VICINAL_API Plan {
 public:
  // Whether contents of inputs went into it. Then it is the caller's promise that they are the same at every
  // run.
  bool depends_on_data() const;
  std::size_t bytes() const;  // that it takes; 0 where a formula says it all

  struct Impl;
  explicit Plan(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

class VICINAL_API Kernel {
 public:
  // Checks shapes, extents and windows; touches no tensor data. Errors are as run() would give them.
  Result<Support> supports(const RunArguments& arguments) const;

  // Enqueues on the stream and returns: nothing is compiled, allocated or synchronised, so it can be captured
  // in a CUDA graph. On the CPU it returns when the result is there. Tensors must stay alive until the work
  // is done.
  // On a device it visits every tile that the neighborhood reaches, unless prepare() was called for these
  // extents or the mask reads inputs and there is a workspace to plan in.
  // Errors (spec): a workspace that is too small.
  Result<void> run(const RunArguments& arguments, Stream stream = nullptr) const;

  // Plans the tiles for these extents. A mask that reads inputs is planned where they are: on a device by
  // work on the stream, which nobody waits for. The plan's memory is allocated here. A plan that does not
  // depend on data is made on the host and remembered: later runs with the same extents take it by
  // themselves.
  Result<Plan> prepare(const RunArguments& arguments, Stream stream = nullptr) const;
  // Errors (spec): a plan of another kernel, or for other extents; with VICINAL_CHECK_PLANS=on, which waits
  // for the stream, also one that the inputs no longer give.
  Result<void> run(const RunArguments& arguments, const Plan& plan, Stream stream = nullptr) const;

  // Reverse mode: from the gradients of out, and of lse if there is one, to those of everything in `wanted`,
  // which are written, not added to. specs/LANGUAGE.md says what they are at kinks. The same arguments give
  // the same bits, unless the kernel was compiled not to. On the host gradients may have any layout and float
  // dtype, and `arguments` need no out and no lse: without an lse both are computed again. With one,
  // generated code takes it and the out beside it for what run() wrote, unless there is an output expression.
  // What it is not generated for, as supports() says, the interpreter computes in double. On a device the
  // kernel has to be compiled with `gradients`; `arguments` hold the lse that run() wrote, its out where the
  // variant has no output expression, and a workspace of as many bytes as supports() says. There the
  // gradients of out, q, k, v and context have the kernel's dtype, those of lse, inputs and params are f32,
  // and those of inputs in C order. Enqueued as run() is; of a mask that reads no inputs it skips tiles if
  // prepare() was called for these extents. Errors (spec): a gradient of what is not learnable, a shape that
  // does not match, no gradient of out; (usage): a name that the variant does not have. Nothing has been
  // computed then.
  Result<void> backward(const RunArguments& arguments, const OutputDifferentials& given,
                        const Differentials& wanted, Stream stream = nullptr) const;
  // Forward mode: from tangents of everything in `given` to those of out and lse. `arguments` need no out, no
  // lse and no workspace. On a device as backward() says of kernel, dtypes, layouts and plans.
  Result<void> jvp(const RunArguments& arguments, const Differentials& given,
                   const OutputDifferentials& wanted, Stream stream = nullptr) const;

  const CompileInfo& info() const;
  const std::string& source() const;  // emitted text; empty for the interpreter

  struct Impl;
  explicit Kernel(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

// Checks the spec with these params, specialises, and compiles or finds a kernel. Extents are not needed: a
// new sequence length compiles nothing.
VICINAL_API Result<Kernel> compile(const Spec& spec, const CompileOptions& options);

// Joins partial results over disjoint sets of keys: out = sum_i out_i exp(lse_i - lse), lse = log sum_i
// exp(lse_i). Host memory; outs [batch, heads, tokens, dim], lses [batch, heads, tokens], any float dtypes.
// Where every lse is -inf the result is 0 and -inf. `lse` may be left out.
VICINAL_API Result<void> merge(const std::vector<Tensor>& outs, const std::vector<Tensor>& lses,
                               const Tensor& out, const std::optional<Tensor>& lse = std::nullopt);

// Counters of this process' kernel cache: name and value.
VICINAL_API std::vector<std::pair<std::string, std::uint64_t>> cache_counters();

}  // namespace vicinal
