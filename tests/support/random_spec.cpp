#include "tests/support/random_spec.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tests/support/random_expression.h"

namespace vicinal::testing {
namespace {

using namespace random;

class Generator : ExpressionGenerator {
 public:
  Generator(unsigned seed, bool tame) : ExpressionGenerator(seed, tame) {}

  RandomSpec run() {
    const std::string functions = declare_functions();
    const std::string declarations = declare_block();
    // Both blocks have the same mask; the second one leaves out all else that is computed.
    const std::string lets = declare_lets(),
                      scale =
                          chance(4) ? "" : assign("scale", tame_ ? bounded(launch(), 2) : real(launch(), 2)),
                      normalize = choose_normalize();
    const std::string mask = chance(5) ? "" : assign("mask", boolean(pair(false), depth_));
    std::string rest = scale + normalize;
    if (softmax_ && chance(3)) rest += assign("sink", tame_ ? bounded(launch(), 2) : real(launch(), 2));
    if (chance(4)) rest += "  query = l2norm\n";
    if (chance(4)) rest += "  key = l2norm\n";
    if (!chance(5)) rest += assign("score", score());
    if (chance(3)) rest += assign("output", output());
    const auto block = [&](const std::string& more) {
      return fmt::format("{}attention {} {{\n{}{}{}{}}}\n", functions, block_name_, declarations, lets, mask,
                         more);
    };
    return {block(rest), block("")};
  }

 private:
  // Roots.
  std::string score() {
    const Scope s = pair(true);
    return tame_ ? bounded(s, depth_) : real(s, depth_);
  }
  std::string output() {
    Scope s;
    s.query = true;
    s.out = true;
    s.lse = softmax_;
    if (!tame_) return real(s, 3);
    Scope other = s;
    other.out = other.lse = false;
    return softmax_ && chance(2)
               ? "out * sigmoid(lse)"
               : fmt::format("out * {} + {}", operand(bounded(other, 1)), operand(bounded(other, 1)));
  }

  // Declarations.
  std::string declare_functions() {
    std::string text;
    for (std::int64_t n = below(4); n > 0; --n) {
      Function f{introduce(), {}, static_cast<Type>(below(3)), chance(3)};
      Scope s;
      s.function = true;
      s.transcendental = f.transcendental;
      std::vector<std::string> parameters;
      for (std::int64_t p = 1 + below(3); p > 0; --p) {
        const Type type = chance(2) ? Type::integer : static_cast<Type>(below(3));
        const std::string name = fmt::format("x{}", ++names_);
        f.parameters.push_back(type);
        s.locals.emplace_back(name, type);
        parameters.push_back(fmt::format("{}: {}", name, name_of(type)));
      }
      text += fmt::format("fn {}({}){} = {}\n", f.name, fmt::join(parameters, ", "),
                          chance(2) && f.result != Type::real ? "" : fmt::format(" -> {}", name_of(f.result)),
                          any(s, f.result, 2));
      functions_.push_back(f);
    }
    if (chance(2)) {
      functions_.push_back({introduce(), {Type::integer, Type::integer}, Type::boolean, false});
      wrapper_ = introduce();
      text += fmt::format("fn {}(i: int, j: int) -> bool = {}\n", functions_.back().name,
                          word({"j <= i", "i - j < 5", "(i ^ j) & 1 == 0", "i // 3 == j // 3"}));
      text += fmt::format("fn {}(f: fn(int, int) -> bool, i: int, j: int) -> bool = {}\n", wrapper_,
                          word({"f(i, j)", "f(j, i) or i == j", "not f(i, j + 1)", "f(i, i) and f(i, j)"}));
    }
    if (chance(2)) {
      reader_ = introduce();
      text += fmt::format("fn {}(t: int[_], i: int) -> int = t[{}]\n", reader_,
                          word({"i & 3", "i", "max(i, 0)", "t[0]"}));
    }
    return text;
  }

  std::string declare_block() {
    std::string text;
    block_name_ = introduce();
    for (std::int64_t n = below(4); n > 0; --n) {
      const Type type = static_cast<Type>(below(3));
      const std::string name = introduce(), value = type == Type::integer ? fmt::to_string(1 + below(4))
                                                    : type == Type::real  ? literal_real()
                                                                          : word({"true", "false"});
      const bool learnable = type == Type::real && chance(4);
      text +=
          fmt::format("  param {}: {} = {}{}\n", name, name_of(type), value, learnable ? " learnable" : "");
      params_.emplace_back(name, type);
      if (type == Type::integer) constants_.push_back(name);
    }
    for (std::int64_t n = chance(2) ? 1 + below(3) : 0; n > 0; --n) text += axis();
    if (axes_.empty() && chance(4)) text += fmt::format("  align = {}\n", word({"start", "end"}));
    if (chance(4)) context_ = true, text += "  context\n";
    for (std::int64_t n = below(4); n > 0; --n) text += input();
    if (chance(4)) {
      const std::string x = introduce(), y = introduce();
      text +=
          fmt::format("  input {}: float[batch, heads, tokens, 4]\n  input {}: float[kv_heads, keys, 4]{}\n",
                      x, y, chance(2) ? " learnable" : "");
      dots_.push_back(fmt::format("dot({}[b, h, q.index, :], {}[kv_h, k, :])", x, y));
    }
    return text;
  }

  std::string axis() {
    const std::string name = fmt::format("{}", introduce());
    std::vector<std::string> properties;
    const std::int64_t window = 1 + below(4);
    const bool by_param = !constants_.empty() && chance(3);
    if (!chance(5)) {
      properties.push_back(by_param ? fmt::format("window = {} + {}", pick(constants_), window)
                                    : fmt::format("window = {}", window));
      if (chance(3)) properties.push_back(fmt::format("stride = {}", 1 + below(window)));
    }
    if (chance(3)) properties.push_back(fmt::format("dilation = {}", 1 + below(3)));
    if (chance(3)) properties.push_back("causal");
    axes_.push_back(name);
    return properties.empty() ? fmt::format("  axis {}\n", name)
                              : fmt::format("  axis {} {{ {} }}\n", name, fmt::join(properties, ", "));
  }

  std::string input() {
    Input input{introduce(), static_cast<Type>(below(3)), {}};
    for (std::int64_t rank = below(6); rank > 0; --rank) {
      std::vector<std::string> dims = {"batch", "heads", "kv_heads", "tokens", "keys", "3", "2 * 2"};
      for (const std::string& a : axes_) dims.push_back("len(" + a + ")");
      for (const std::string& c : constants_) dims.push_back(c), dims.push_back(c + " + 2");
      for (const std::string& e : extents_) dims.push_back(e);
      if (chance(4)) {
        extents_.push_back(introduce());
        dims = {extents_.back() + word({"", " + 1"})};
      }
      input.dims.push_back(pick(dims));
    }
    inputs_.push_back(input);
    const std::string dims = input.dims.empty() ? "" : fmt::format("[{}]", fmt::join(input.dims, ", "));
    return fmt::format("  input {}: {}{}{}\n", input.name, name_of(input.type), dims,
                       input.type == Type::real && chance(4) ? " learnable" : "");
  }

  std::string declare_lets() {
    std::string text;
    for (std::int64_t n = below(4); n > 0; --n) {
      Scope s = chance(3) ? launch() : pair(false);
      if (chance(4)) s.key = false;
      // What needs a guard is allowed in a let that only guarded places use.
      if (s.key && chance(2)) s.grid_key = s.known_key = true;
      if (s.key && chance(2)) s.known_key = true;
      if (!s.key) s.grid_key = s.known_key = false;
      const Type type = static_cast<Type>(below(3));
      const std::string name = introduce();
      text += fmt::format("  let {} = {}\n", name, any(s, type, 2));
      lets_.push_back({name, type, s});
    }
    return text;
  }

  std::string choose_normalize() {
    if (!chance(4)) return "";
    softmax_ = false;
    return fmt::format("  normalize = {}\n", word({"sigmoid", "none"}));
  }
  // Brackets, so that a long expression may go on over lines.
  static std::string assign(std::string_view target, const std::string& value) {
    return fmt::format("  {} = ({})\n", target, value);
  }

  std::string block_name_;
};

}  // namespace

RandomSpec random_spec(unsigned seed, bool tame) {
  return Generator(seed, tame).run();
}

}  // namespace vicinal::testing
