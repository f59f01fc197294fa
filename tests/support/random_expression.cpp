#include "tests/support/random_expression.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace vicinal::testing::random {
namespace {

Scope with(Scope s, std::string local, Type type) {
  s.locals.emplace_back(std::move(local), type);
  return s;
}

// Where an index stands, a key's number is only used if it is known what it counts.
Scope for_index(Scope s) {
  if (!s.known_key) s.key = false;
  s.score = s.out = s.lse = false;
  return s;
}

bool sees(const Scope& s, const Scope& let) {
  return (!let.query || s.query) && (!let.key || s.key) && (!let.score || s.score) &&
         (!let.transcendental || s.transcendental || !(let.query || let.key)) &&
         (!let.grid_key || s.grid_key) && (!let.known_key || s.known_key);
}

Scope exact_only(Scope s) {
  s.score = s.transcendental = s.out = s.lse = false;
  return s;
}

Scope whole_only(Scope s) {
  s = exact_only(s);
  s.whole = true;
  return s;
}

Scope exact_if_bool(Scope s, Type p) {
  return p == Type::real ? s : exact_only(s);
}

std::string paren(const std::string& text) {
  return text.find(' ') == std::string::npos ? text : "(" + text + ")";
}

}  // namespace

std::string operand(const std::string& text) {
  const bool simple = text.find_first_of(" -~+") == std::string::npos;
  return simple ? text : "(" + text + ")";
}

std::string ExpressionGenerator::fresh() {
  static constexpr const char* pool[] = {
      "asm",       "threadIdx",   "vicinal", "Variant", "class", "goto",     "operator", "printf",
      "Arguments", "static_cast", "x0",      "p0",      "a",     "v1",       "extern",   "while",
      "struct",    "float4",      "return",  "int64",   "main",  "template", "auto",     "__shared__",
      "blockIdx",  "nullptr",     "u8",      "Query",   "Key",   "const",    "void",     "namespace"};
  const std::string base = pool[below(std::size(pool))];
  return fmt::format("{}_{}", base, ++names_);
}

std::string ExpressionGenerator::introduce() {
  const std::string name = fresh();
  const std::string bare = name.substr(0, name.rfind('_'));
  if (!chance(2)) return name;  // sometimes the bare word itself, once for each
  for (const std::string& used : bare_)
    if (used == bare) return name;
  bare_.push_back(bare);
  return bare;
}

Scope ExpressionGenerator::pair(bool with_score) const {
  Scope s;
  s.query = s.key = true;
  s.score = s.transcendental = with_score;
  s.grid_key = s.known_key = !context_;
  return s;
}

// Leaves.

std::string ExpressionGenerator::literal_int() {
  return chance(6) ? word({"2147483647", "0x7f", "65536", "100", "-2147483648"}) : fmt::to_string(below(9));
}

std::string ExpressionGenerator::literal_real() {
  return chance(8) && !tame_ ? word({"1e30", "inf", "pi", "1e-30", "0.0"})
                             : fmt::format("{:.3f}", static_cast<double>(below(4000)) / 1000 - 1);
}

std::string ExpressionGenerator::leaf(const Scope& s, Type type) {
  std::vector<std::string> names;
  for (const auto& [local, t] : s.locals)
    if (t == type) names.push_back(local), names.push_back(local);
  if (!s.function) {
    for (const auto& [param, t] : params_)
      if (t == type) names.push_back(param);
    for (const Let& let : lets_)
      if (!s.whole && let.type == type && sees(s, let.scope)) names.push_back(let.name);
    for (const Input& input : inputs_)
      if (input.type == type && nesting_ < 2) names.push_back("");  // stands for a load; see below
    if (type == Type::integer) integer_names(s, names);
    if (type == Type::boolean && s.key && context_ && !s.grid_key) names.push_back("k.context");
  }
  if (type == Type::real && s.score) names.insert(names.end(), 3, "score");
  if (type == Type::real && s.out) names.push_back("out");
  if (type == Type::real && s.lse) names.push_back("lse");
  if (names.empty() || chance(5))
    return type == Type::integer ? literal_int()
           : type == Type::real  ? literal_real()
                                 : word({"true", "false"});
  const std::string name = pick(names);
  return name.empty() ? load(s, type) : name;
}

void ExpressionGenerator::integer_names(const Scope& s, std::vector<std::string>& names) const {
  for (const char* n : {"b", "h", "kv_h", "batch", "heads", "kv_heads", "tokens", "keys", "head_dim"})
    names.emplace_back(n);
  for (const std::string& e : extents_) names.push_back(e);
  if (context_) names.emplace_back("context");
  for (const std::string& a : axes_) names.push_back("len(" + a + ")");
  for (int weight = 0; weight < 3; ++weight) {
    if (s.query) names.insert(names.end(), {"q", "q.index"});
    if (s.key) names.insert(names.end(), {"k", "k"});
    for (const std::string& a : axes_) {
      if (s.query) names.push_back("q." + a);
      if (s.key && s.grid_key) names.push_back("k." + a);
    }
  }
}

// Captured inputs.

std::string ExpressionGenerator::load(const Scope& s, Type type) {
  std::vector<Input> fitting;
  for (const Input& input : inputs_)
    if (input.type == type) fitting.push_back(input);
  const Input input = pick(fitting);
  if (input.dims.empty()) return input.name;
  return fmt::format("{}[{}]", input.name, fmt::join(indices(s, input.dims), ", "));
}

std::vector<std::string> ExpressionGenerator::indices(const Scope& outer,
                                                      const std::vector<std::string>& dims) {
  const Scope s = for_index(outer);
  std::vector<std::string> list;
  ++nesting_;
  for (const std::string& dim : dims) list.push_back(index(s, dim));
  --nesting_;
  return list;
}

std::string ExpressionGenerator::index(const Scope& s, const std::string& dim) {
  if (dim == "batch") return "b";
  if (dim == "heads") return "h";
  if (dim == "kv_heads") return "kv_h";
  if (dim == "tokens" && s.query && !chance(5)) return "q.index";
  if (dim == "keys" && s.key && !chance(5)) return "k";
  if (dim.starts_with("len(")) {
    const std::string axis = dim.substr(4, dim.size() - 5);
    if (s.key && s.grid_key && chance(2)) return "k." + axis;
    if (s.query) return "q." + axis;
  }
  const std::string any = integer(s, 1);
  if (chance(4)) return fmt::format("({}) % {}", any, paren(dim));
  // Into the dimension by the language's own clamping, where the compiler cannot tell.
  if (chance(4) && s.query) return fmt::format("({}) * q - b", any);
  return fmt::format("clamp({}, 0, {} - 1)", any, dim);
}

// Expressions.

std::string ExpressionGenerator::integer(const Scope& s, int depth) {
  if (depth <= 0) return leaf(s, Type::integer);
  const auto x = [&] { return integer(s, depth - 1); };
  switch (below(15)) {
    case 0:
      return fmt::format("{} {} {} {} {}", operand(x()), word({"+", "-", "*", "//", "%"}), operand(x()),
                         word({"+", "-", "*", "//", "%"}), operand(x()));
    case 1:
      return fmt::format("{} {} {} {} {}", operand(x()), word({"&", "|", "^", "<<", ">>"}), operand(x()),
                         word({"&", "|", "^", "+", "-"}), operand(x()));
    case 2: return fmt::format("{}{}", word({"-", "~", "+"}), operand(x()));
    case 3: return fmt::format("{}({})", word({"abs", "sign", "int"}), x());
    case 4: return fmt::format("{}({}, {}{})", word({"min", "max"}), x(), x(), chance(3) ? ", " + x() : "");
    case 5: return fmt::format("clamp({}, {}, {})", x(), x(), x());
    case 6: return choice(s, Type::integer, depth);
    case 7: return fmt::format("int({})", boolean(s, depth - 1));
    case 8: return s.whole ? x() : fmt::format("int({})", exact_real(s, depth - 1));
    case 9: return reduction(s, "sum", Type::integer, depth);
    case 10: return call(s, Type::integer, depth);
    default: return fmt::format("{} {} {}", operand(x()), word({"+", "-", "*", "//", "%"}), operand(x()));
  }
}

std::string ExpressionGenerator::boolean(const Scope& s, int depth) {
  if (depth <= 0)
    return chance(2) ? leaf(s, Type::boolean)
                     : fmt::format("{} {} {}", operand(leaf(s, Type::integer)),
                                   word({"<", "<=", "==", "!=", ">", ">="}), operand(leaf(s, Type::integer)));
  const auto x = [&] { return operand(boolean(s, depth - 1)); };
  const auto comparison = [&](auto of) {
    std::string text = operand(of());
    for (std::int64_t i = chance(4) ? 2 : 1; i > 0; --i)
      text += fmt::format(" {} {}", word({"<", "<=", "==", "!=", ">", ">="}), operand(of()));
    return text;
  };
  switch (below(12)) {
    case 0: return fmt::format("not {}", x());
    case 1: return fmt::format("{} {} {}", x(), word({"==", "!="}), x());
    case 2: return choice(s, Type::boolean, depth);
    case 3: return s.whole ? x() : comparison([&] { return exact_real(s, depth - 1); });
    case 4: return reduction(s, "any", Type::boolean, depth);
    case 5: return call(s, Type::boolean, depth);
    case 6: return fmt::format("bool({})", integer(s, depth - 1));
    case 7: return s.whole ? x() : fmt::format("isnan({})", exact_real(s, depth - 1));
    case 8:
    case 9: return comparison([&] { return integer(s, depth - 1); });
    default: return fmt::format("{} {} {}", x(), word({"and", "or"}), x());
  }
}

std::string ExpressionGenerator::exact_real(Scope s, int depth) {
  s.transcendental = s.score = s.out = s.lse = false;
  return real(s, depth);
}

std::string ExpressionGenerator::real(const Scope& s, int depth) {
  if (depth <= 0) return leaf(s, Type::real);
  const auto x = [&] { return real(s, depth - 1); };
  switch (below(s.transcendental ? 14 : 10)) {
    case 0: return fmt::format("{} / {}", operand(integer(s, depth - 1)), operand(integer(s, depth - 1)));
    case 1:
      return fmt::format("{}({})", word({"abs", "sign", "floor", "ceil", "round", "sqrt", "relu", "float"}),
                         x());
    case 2:
      return fmt::format("{}({}, {})", word({"min", "max"}), x(), chance(2) ? x() : integer(s, depth - 1));
    case 3: return choice(s, Type::real, depth);
    case 4: return fmt::format("-{}", operand(x()));
    case 5: return fmt::format("{} ** {}", operand(x()), word({"2", "3"}));
    case 6: return reduction(s, "sum", Type::real, depth);
    case 7:
      return dots_.empty() || !s.query || !s.key || !s.known_key || s.function ? call(s, Type::real, depth)
                                                                               : pick(dots_);
    case 8:
    case 9:
      return fmt::format("{} {} {}", operand(x()), word({"+", "-", "*", "/", "//", "%"}),
                         operand(chance(3) ? integer(s, depth - 1) : x()));
    case 10: return fmt::format("{} ** {}", operand(x()), operand(x()));
    default:
      return fmt::format("{}({})",
                         word({"exp", "exp2", "log", "log2", "rsqrt", "tanh", "tanh_approx", "sigmoid", "sin",
                               "cos", "tan", "erf", "gelu", "silu"}),
                         x());
  }
}

std::string ExpressionGenerator::bounded(const Scope& s, int depth) {
  const auto x = [&] { return bounded(s, depth - 1); };
  if (depth <= 0) {
    if (s.score && !chance(3)) return "score";
    if (chance(2)) return fmt::format("0.125 * clamp({}, -16, 16)", operand(integer(whole_only(s), 1)));
    return fmt::format("clamp({}, -2.0, 2.0)", leaf(whole_only(s), Type::real));
  }
  switch (below(8)) {
    case 0: return fmt::format("{:.2f} * {}", static_cast<double>(below(300)) / 100 - 1.5, operand(x()));
    case 1:
      return fmt::format("{}({})",
                         word({"tanh", "sigmoid", "sin", "cos", "erf", "abs", "relu", "silu", "gelu"}), x());
    case 2: return fmt::format("{}({}, {})", word({"min", "max"}), x(), x());
    case 3: return fmt::format("clamp({}, -1.5, 2.5)", x());
    case 4:
      return fmt::format("{} if {} else {}", operand(x()), operand(boolean(whole_only(s), 2)),
                         operand(chance(4) ? "-inf" : x()));
    case 5: return fmt::format("2.5 * tanh({} / 2.5)", operand(x()));
    default: return fmt::format("{} {} {}", operand(x()), word({"+", "-"}), operand(x()));
  }
}

std::string ExpressionGenerator::any(const Scope& s, Type type, int depth) {
  return type == Type::integer   ? integer(s, depth)
         : type == Type::boolean ? boolean(s, depth)
                                 : real(s, depth);
}

std::string ExpressionGenerator::choice(const Scope& s, Type type, int depth) {
  Scope guarded = s, of_context = s;
  guarded.grid_key = guarded.known_key = of_context.known_key = true;
  if (context_ && s.key && !s.grid_key && !s.function && chance(2))
    return fmt::format("{} if k.context else {}", operand(any(of_context, type, depth - 1)),
                       operand(any(guarded, type, depth - 1)));
  if (type == Type::boolean && context_ && s.key && !s.grid_key && !s.function && chance(2))
    return fmt::format("k.context or {}", operand(any(guarded, type, depth - 1)));
  return fmt::format("{} if {} else {}", operand(any(s, type, depth - 1)),
                     operand(boolean(exact_only(s), depth - 1)), operand(any(s, type, depth - 1)));
}

std::string ExpressionGenerator::reduction(const Scope& s, const char* kind, Type type, int depth) {
  const std::string i = fmt::format("i{}", ++names_);
  const std::int64_t from = below(4) - 2;
  std::string to = fmt::to_string(from + below(4));
  if (!constants_.empty() && !s.function && chance(3)) to = pick(constants_);
  return fmt::format("{}({} in {}..{}: {})", kind, i, from, to,
                     any(with(s, i, Type::integer), type, std::min(depth - 1, 1)));
}

std::string ExpressionGenerator::call(const Scope& s, Type type, int depth) {
  std::vector<Function> fitting;
  for (const Function& f : functions_)
    if (f.result == type && (!f.transcendental || s.transcendental)) fitting.push_back(f);
  if (fitting.empty() || s.function || s.whole) return leaf(s, type);
  const Function f = pick(fitting);
  std::vector<std::string> arguments;
  for (Type p : f.parameters)
    arguments.push_back(any(f.transcendental ? s : exact_if_bool(s, p), p, std::min(depth - 1, 1)));
  const std::string all = fmt::format("{}", fmt::join(arguments, ", "));
  if (!wrapper_.empty() && type == Type::boolean &&
      f.parameters == std::vector<Type>{Type::integer, Type::integer} && chance(2))
    return fmt::format("{}({}, {})", wrapper_, f.name, all);
  if (!reader_.empty() && type == Type::integer)
    for (const Input& input : inputs_)
      if (input.type == Type::integer && input.dims.size() == 1 && chance(2))
        return fmt::format("{}({}, {})", reader_, input.name, index(for_index(s), input.dims[0]));
  return fmt::format("{}({})", f.name, all);
}

}  // namespace vicinal::testing::random
