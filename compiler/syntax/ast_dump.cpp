#include <fmt/format.h>

#include "compiler/support/match.h"
#include "compiler/syntax/ast.h"

namespace vicinal::ast {
namespace {

class Dumper {
 public:
  explicit Dumper(const File& file) : file_(file) {}

  std::string run() {
    for (const Import& i : file_.imports) line("import \"{}\"", i.path);
    for (const Function& f : file_.functions) {
      std::string parameters;
      for (const Parameter& p : f.parameters) parameters += fmt::format(" {}:{}", p.name.text, type(p.type));
      line("fn {}{}{} {}", f.name.text, parameters, f.result ? " -> " + type(*f.result) : "", expr(f.body));
    }
    for (const Attention& a : file_.attentions) {
      line("attention {}", a.name.text);
      for (const Statement& s : a.statements) line("  {}", statement(s));
    }
    return std::move(out_);
  }

 private:
  template <class... Args>
  void line(const char* format, const Args&... arguments) {
    fmt::format_to(std::back_inserter(out_), fmt::runtime(format), arguments...);
    out_ += '\n';
  }

  static std::string type(const TypeExpr& t) {
    if (t.base == "fn") {
      std::string parameters;
      for (const TypeExpr& p : t.parameters) parameters += (parameters.empty() ? "" : ", ") + type(p);
      return fmt::format("fn({}) -> {}", parameters, type(t.result.front()));
    }
    std::string dims;
    for (int i = 0; i < t.rank.value_or(0); ++i) dims += i == 0 ? "_" : ", _";
    return t.rank ? fmt::format("{}[{}]", t.base, dims) : t.base;
  }

  std::string statement(const Statement& s) const {
    return support::match(
        s.what,
        [&](const Axis& a) {
          std::string out = "axis " + a.name.text;
          for (const Property& p : a.properties)
            out += p.value.valid() ? fmt::format(" ({} {})", p.name.text, expr(p.value)) : " " + p.name.text;
          return out;
        },
        [](const Context&) { return std::string("context"); },
        [&](const Param& p) {
          return fmt::format("param {} {} {}{}", p.name.text, p.type, expr(p.value),
                             p.learnable ? " learnable" : "");
        },
        [&](const Input& i) {
          return fmt::format("input {} {}{}{}", i.name.text, i.type, list(i.dims),
                             i.learnable ? " learnable" : "");
        },
        [&](const Let& l) { return fmt::format("let {} {}", l.name.text, expr(l.value)); },
        [&](const Assign& a) { return fmt::format("{} = {}", a.target.text, expr(a.value)); });
  }

  std::string list(const std::vector<ExprId>& exprs) const {
    std::string out;
    for (ExprId e : exprs) out += " " + expr(e);
    return out;
  }

  std::string expr(ExprId id) const {
    return support::match(
        file_[id].what,  //
        [](const Name& n) { return n.text; }, [](const Integer& i) { return fmt::format("{}", i.value); },
        [](const Real& r) { return fmt::format("{:#}", r.value); },
        [](const Boolean& b) { return std::string(b.value ? "true" : "false"); },
        [&](const Field& f) { return fmt::format("(. {} {})", expr(f.base), f.field.text); },
        [&](const Unary& u) { return fmt::format("({} {})", syntax::spelling(u.op), expr(u.operand)); },
        [&](const Binary& b) {
          return fmt::format("({} {} {})", syntax::spelling(b.op), expr(b.left), expr(b.right));
        },
        [&](const Comparison& c) {
          std::string out = "(" + expr(c.operands[0]);
          for (std::size_t i = 0; i < c.ops.size(); ++i)
            out += fmt::format(" {} {}", syntax::spelling(c.ops[i]), expr(c.operands[i + 1]));
          return out + ")";
        },
        [&](const Conditional& c) {
          return fmt::format("(if {} {} {})", expr(c.condition), expr(c.then), expr(c.otherwise));
        },
        [&](const Call& c) { return fmt::format("(call {}{})", expr(c.callee), list(c.arguments)); },
        [&](const Index& i) { return fmt::format("(index {}{})", expr(i.base), list(i.indices)); },
        [](const Slice&) { return std::string(":"); },
        [&](const Reduction& r) {
          return fmt::format("({} {} {} {} {})", r.any ? "any" : "sum", r.variable.text, expr(r.begin),
                             expr(r.end), expr(r.body));
        },
        [](const Invalid&) { return std::string("<invalid>"); });
  }

  const File& file_;
  std::string out_;
};

}  // namespace

std::string dump(const File& file) {
  return Dumper(file).run();
}

}  // namespace vicinal::ast
