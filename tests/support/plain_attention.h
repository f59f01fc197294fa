// Attention by plain loops, written from the language's definition: it shares no code with the compiler, the
// templates or the interpreter, which is what it is for.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "tests/support/host_tensor.h"

namespace vicinal::testing {

// One axis of a neighborhood. window 0: the whole dilation group.
struct PlainAxis {
  std::int64_t length = 0, window = 0, dilation = 1, stride = 1;
  bool causal = false;
};

// The tokens that token x sees along the axis, ascending.
std::vector<std::int64_t> seen_by(const PlainAxis& axis, std::int64_t x);

// A query and a key, by what the language calls them. A context key has no coordinates.
struct PlainPair {
  std::int64_t b = 0, h = 0, kv_h = 0;
  std::int64_t q = 0, q_index = 0, k = 0;
  bool context = false;
  Index q_at, k_at;
};

// What a spec means. Missing functions are the language's defaults.
struct PlainSpec {
  enum class Normalize { softmax, sigmoid, none };
  std::vector<PlainAxis> axes;  // lengths are filled in from the problem
  std::function<double(const PlainPair&, double)> score;
  std::function<bool(const PlainPair&)> mask;
  std::function<double(std::int64_t b, std::int64_t h)> scale, sink;
  std::function<double(const PlainPair&, double out, double lse)> output;
  Normalize normalize = Normalize::softmax;
  bool query_l2norm = false, key_l2norm = false, align_end = false;
};

// How the tensors lie in memory.
enum class Layout { bhnd, bnhd, padded, reversed };

struct ProblemShape {
  std::int64_t batch = 2, heads = 4, kv_heads = 2, head_dim = 8, value_dim = 8;
  Index queries = {13}, keys = {13};  // an extent per axis, one for a sequence
  std::int64_t context = -1;          // keys; negative: no context tensors
  DType dtype = DType::f64;
  Layout layout = Layout::bhnd;
  bool lse = true;
  // A shard: where it lies in the whole grid. Empty: it is the whole.
  Index grid = {}, key_grid = {}, q_origin = {}, k_origin = {};
};

// A problem with its memory. Tensors are [batch, heads, one dimension per axis, dim].
struct Problem {
  ProblemShape shape;
  HostTensor q, k, v, out, lse, context_k, context_v;
  std::map<std::string, HostTensor> inputs;
  std::map<std::string, ParamValue> dynamic;

  RunArguments arguments() const;
};

// Random values; the same for the same shape and seed.
Problem make_problem(const ProblemShape& shape, unsigned seed = 1);
// The document of every token; all are as long but the last.
HostTensor documents(std::int64_t tokens, std::int64_t length);
HostTensor make_tensor(const ProblemShape& shape, std::int64_t heads, const Index& tokens, std::int64_t dim);

struct PlainResult {
  std::vector<double> out, magnitude;  // in the order of Problem::out's indices; magnitude: sum of |terms|
  std::vector<double> lse;             // in the order of Problem::lse's; of softmax only
};
PlainResult plain_attention(const PlainSpec& spec, const Problem& problem);

// Compiles the text for the interpreter and runs it; throws the Error when something is refused.
void interpret(const std::string& spec, const Problem& problem, CompileOptions options = {});
Kernel compile_for_interpreter(const std::string& spec, const ProblemShape& shape,
                               CompileOptions options = {});

// Runs the text and compares every element of out and lse with the meaning: equal NaN and infinities, and
// otherwise at most one ulp of the stored type away (rounding may fall to either side of a tie), with 1e-12
// of the terms' magnitude for sums in another order.
void check_against_plain(const std::string& spec, const PlainSpec& meaning, const Problem& problem,
                         const CompileOptions& options = {});
void check_close(const Problem& problem, const PlainResult& wanted);

}  // namespace vicinal::testing
