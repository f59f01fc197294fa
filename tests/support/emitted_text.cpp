#include "tests/support/emitted_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <string_view>

#include "compiler/ir/ops.h"

namespace vicinal::testing {
namespace {

// Words of the frame that the emitter prints, of the operations' spellings, and of C++.
const std::set<std::string_view> kWords = {
    "Arguments", "AttentionVariant", "Axis", "Context", "ForwardArguments", "InputArgument", "Key",
    "Normalize", "Parameters", "Query", "VICINAL_DEVICE", "Variant", "__global__", "__grid_constant__",
    "__int_as_float", "__launch_bounds__", "a", "alignas", "align_end", "axis", "b", "batch", "bf16", "bool",
    "char", "clamp_index", "const", "constexpr", "context", "coordinate", "data", "dot", "double", "else",
    "emitted", "exact", "extent", "extern", "f16", "false", "float", "forward", "h", "has_context",
    "has_mask", "has_output", "has_score", "has_sink", "heads", "i", "if", "index", "int", "k", "kThreads",
    "key_l2norm", "keys", "kv_h", "kv_heads", "load_bool", "load_float", "load_int", "long", "lse", "mask",
    "namespace", "neighborhood", "none", "normalize", "offset", "out", "output", "parameters", "portable",
    "position", "q", "q_axis", "query_l2norm", "rank", "reference", "return", "scale", "score", "short",
    "sigmoid", "signed", "sink", "softmax", "static", "static_assert", "static_cast", "struct", "template",
    "tokens", "true", "unsigned", "using", "vicinal", "void",
    // vicinal:: and vicinal::exact:: functions, and CUDA's
    "abs", "add", "cos", "cosf", "ceilf", "div", "erf", "erff", "exp", "exp2", "exp2f", "expf", "fabsf",
    "floordiv", "floorf", "floormod", "fmaxf", "fminf", "log", "log2", "log2f", "logf", "max", "min", "mul",
    "neg", "pow", "powf", "rintf", "rsqrt", "rsqrtf", "shl", "shr", "sign", "sin", "sinf", "sqrt", "sqrtf",
    "sub", "tan", "tanf", "tanh", "tanh_approx", "tanhf", "to_int",
    // of the Hopper kernel
    "Column", "KeyLimits", "LaunchArguments", "Products", "Row", "Schedule", "WideLimits", "before", "column",
    "consumer_registers", "core", "dilated", "early_rescale", "factor", "from", "has_columns",
    "has_context_keeps", "has_gain", "has_score_columns", "simple_keeps", "gentle", "gain", "square", "fmaf",
    "has_core", "has_keeps", "has_limits", "has_shift", "has_slope", "holds", "hopper", "i64", "limits",
    "narrow", "only_if", "output_apart", "ping_pong", "producer_registers", "row", "shared_bytes", "shift",
    "skips", "slope", "stages", "tile_k", "tile_q",
    // of the tensor-core kernel
    "chunk", "holds_queries", "mma", "split", "warps",
    // of the backward kernels
    "Adding", "BackwardArguments", "DifferentiatedVariant", "In", "N", "Root", "Sites", "auto", "backward",
    "c", "captured", "channel", "channels", "context_score", "d_output_lse", "d_output_out", "d_score",
    "distance", "element", "head", "in_place", "ordered", "pair", "queries", "rows", "site", "sites", "sums",
    "tangents",
    // of planners
    "InputTable", "KeyBox", "Mask", "QueryBox", "Range", "RealRange", "Truth", "any_real", "computed", "fill",
    "kTableThreads", "keeps", "plan_rows", "planning", "point", "ranges", "read", "sizeof", "x", "y"};

// A rule of templates/vicinal/ranges.cuh: its operation's name with an underscore.
bool is_rule(std::string_view word) {
  return std::ranges::any_of(ir::all_ops(), [&](const ir::OpInfo& op) {
    std::string name(op.name);
    std::ranges::replace(name, '.', '_');
    return name == word;
  });
}

// The strings and comments of the frame.
const std::set<std::string_view> kStrings = {"\"vicinal/kernel.cuh\"",
                                             "\"vicinal/mma.cuh\"",
                                             "\"vicinal/hopper.cuh\"",
                                             "\"vicinal/planner.cuh\"",
                                             "\"vicinal/backward.cuh\"",
                                             "\"C\"",
                                             "\"the variant does not meet the contract of templates/\"",
                                             "\"the host launches 256 threads\"",
                                             "\"the host launches and allocates by these\""};

bool numbered(std::string_view word) {
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  const auto digits = std::ranges::find_if(word, is_digit);
  static const std::set<std::string_view> names = {"v", "p", "e", "x", "t", "gs", "gm", "cs", "cm", "keeps"};
  return digits != word.end() && names.contains(std::string_view(word.begin(), digits)) &&
         std::all_of(digits, word.end(), is_digit);
}

bool known_comment(std::string_view comment) {
  return comment.starts_with("// Emitted by vicinal. ") ||
         comment == "// What varies from launch to launch." || comment == "// namespace emitted" ||
         comment == "// 1 / sqrt(head dim)" || comment == "// fp32 products, from three of tf32";
}

}  // namespace

std::optional<std::string> forbidden_in(const std::string& text, const std::string& entry) {
  const std::string_view all = text;
  for (std::size_t at = 0; at < all.size();) {
    const char c = all[at];
    const auto until = [&](auto ends) {
      std::size_t end = at + 1;
      while (end < all.size() && !ends(all[end])) ++end;
      return all.substr(at, end - at);
    };
    const auto to_line_end = [&] { return until([](char x) { return x == '\n'; }); };
    std::string_view token = all.substr(at, 1);
    if (std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_') {
      token = until([](char x) { return std::isalnum(static_cast<unsigned char>(x)) == 0 && x != '_'; });
      if (!kWords.contains(token) && !numbered(token) && !is_rule(token) && token != entry &&
          token != entry + "_tables")
        return fmt::format("the identifier `{}`", token);
    } else if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
      token = until([](char x) {
        return std::isalnum(static_cast<unsigned char>(x)) == 0 && x != '.' && x != '+' && x != '-';
      });
      // A sign belongs to a number only after its exponent.
      for (std::size_t i = 1; i < token.size(); ++i)
        if ((token[i] == '+' || token[i] == '-') && token[i - 1] != 'p') token = token.substr(0, i);
    } else if (c == '"') {
      token = until([](char x) { return x == '"' || x == '\n'; });
      token = all.substr(at, token.size() + 1);
      if (!kStrings.contains(token)) return fmt::format("the string {}", token);
    } else if (c == '#') {
      token = to_line_end();
      const bool ours =
          token == "#include \"vicinal/kernel.cuh\"" || token == "#include \"vicinal/mma.cuh\"" ||
          token == "#include \"vicinal/hopper.cuh\"" || token == "#include \"vicinal/planner.cuh\"" ||
          token == "#include \"vicinal/backward.cuh\"";
      if (!ours) return fmt::format("the directive {}", token);
    } else if (all.substr(at, 2) == "//") {
      token = to_line_end();
      if (!known_comment(token)) return fmt::format("the comment {}", token);
    } else if (std::string_view(" \n(){}[]<>,;:.?=+-*/%&|^~!").find(c) == std::string_view::npos ||
               all.substr(at, 2) == "/*") {
      return fmt::format("the character {:#x}", static_cast<unsigned char>(c));
    }
    at += token.size();
  }
  return std::nullopt;
}

}  // namespace vicinal::testing
