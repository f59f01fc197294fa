// Checks expressions and builds their nodes. The blocks' statements are in check.cpp.
#pragma once

#include <map>
#include <set>

#include "compiler/check/check.h"

namespace vicinal::check {

using ast::ExprId;
using ir::NodeId;
using source::Range;

// What an expression means while it is checked.
struct Term {
  enum class Kind { invalid, scalar, tensor, slice, function };
  Kind kind = Kind::invalid;
  NodeId node;                                  // scalar
  std::uint32_t input = 0;                      // tensor, slice
  std::vector<NodeId> indices;                  // slice: all but the last
  std::optional<syntax::FunctionRef> function;  // function; none: a parameter of a function checked by itself
  const ast::TypeExpr* signature = nullptr;     // of such a parameter
  // A read that means something only where k.context is known. `coordinate`: only where it is false; an
  // element at `k` is also the context's where it is true.
  struct Guarded {
    Range range;
    std::string what;
    bool coordinate;
  };
  std::vector<Guarded> guarded;  // of a `let`: its uses need the guard

  bool valid() const { return kind != Kind::invalid; }
  static Term scalar(NodeId node) {
    Term t;
    t.kind = Kind::scalar;
    t.node = node;
    return t;
  }
};

// The names in force: a block's, or the parameters of one function call.
struct Frame {
  std::uint32_t file = 0;
  bool block = false;           // sees the language's names
  bool declaring_dims = false;  // only extents and constants
  std::map<std::string, Term, std::less<>> names;
  std::set<std::string, std::less<>> used;
  const Frame* caller = nullptr;
  std::optional<syntax::FunctionRef> function;
};

class ExpressionChecker {
 public:
  ExpressionChecker(const syntax::Program& program, diagnostics::Sink& sink)
      : program_(program), sink_(sink) {}

 protected:
  // A scalar of any type, or of a wanted one; an invalid id when it is not one (already reported). `what`
  // begins the message.
  NodeId scalar(Frame& frame, ExprId expr);
  NodeId typed(Frame& frame, ExprId expr, ir::Type type, std::string_view what);
  Term check(Frame& frame, ExprId expr);
  // The value of an int that must be known now.
  std::optional<std::int32_t> constant_int(Frame& frame, ExprId expr, std::string_view what);
  std::optional<ir::Value> evaluate(NodeId node) const;

  NodeId convert(NodeId node, ir::Type type);
  ir::Type type(NodeId node) const { return building_.module[node].type; }
  void check_function_by_itself(syntax::FunctionRef ref);
  // The names that a misspelt one could have meant.
  void suggest(diagnostics::Diagnostic& d, const Frame& frame, std::string_view name, Range range,
               std::span<const std::string_view> more = {}) const;
  const ast::Expr& expr(const Frame& frame, ExprId id) const { return program_.files[frame.file][id]; }
  NodeId note(NodeId node, Range range);
  std::uint8_t variance_of(NodeId node);

  // What is known of k.context at the place being checked.
  enum class ContextKey { unknown, yes, no };

  // The module being built, and where in it the checker is. A function checked by itself has one of its own.
  struct Building {
    ir::Module module;
    std::vector<Range> origins;
    std::vector<std::uint8_t> variance;
    std::vector<bool> reads_key;  // of each node so far: whether it is made of `k`
    ContextKey context_key = ContextKey::unknown;
    std::vector<Term::Guarded>* let_reads = nullptr;  // set while a let is checked
    bool by_itself = false;                           // arguments are placeholders
    std::uint32_t placeholders = 0;
    bool unrolling = false;
    std::size_t unrolled_nodes = 0;
  };

  const syntax::Program& program_;
  diagnostics::Sink& sink_;
  Building building_;

 private:
  Term name(Frame& frame, const ast::Name& n, Range range);
  Term language_name(const Frame& frame, std::string_view name);
  void unknown_name(Frame& frame, std::string_view name, Range range);
  Term field(Frame& frame, const ast::Field& f, Range range);
  Term unary(Frame& frame, const ast::Unary& u, Range range);
  Term binary(Frame& frame, const ast::Binary& b, Range range);
  NodeId power(NodeId base, NodeId exponent);
  Term logical(Frame& frame, const ast::Binary& b, Range range);
  Term comparison(Frame& frame, const ast::Comparison& c, Range range);
  Term conditional(Frame& frame, const ast::Conditional& c, Range range);
  Term call(Frame& frame, const ast::Call& c, Range range);
  Term call_special(Frame& frame, std::string_view name, const ast::Call& c, Range range);
  Term call_builtin(Frame& frame, std::string_view name, const ast::Call& c, Range range);
  Term call_function(Frame& frame, const Term& callee, std::string_view name, const ast::Call& c,
                     Range range);
  Term argument(Frame& frame, ExprId id, const ast::TypeExpr& wanted, std::string_view parameter);
  Term placeholder(const ast::TypeExpr& type);
  Term index(Frame& frame, const ast::Index& i, Range range);
  Term reduction(Frame& frame, const ast::Reduction& r, Range range);
  Term dot(Frame& frame, const ast::Call& c, Range range);
  bool argument_count(std::string_view name, std::size_t wanted, bool at_least, const ast::Call& c,
                      Range range);
  void require_guard(Term::Guarded read);
  bool guard_holds(const Term::Guarded& read) const;
  bool reads_key_position(NodeId node);
  bool over_limits(Range range);

  // What a condition that holds, or fails, tells of k.context.
  ContextKey assume(NodeId condition, bool holds) const;
  // Checks with a fact added.
  template <class F>
  auto under(ContextKey fact, F f) {
    const ContextKey before = building_.context_key;
    if (fact != ContextKey::unknown) building_.context_key = fact;
    auto result = f();
    building_.context_key = before;
    return result;
  }

  std::map<syntax::FunctionRef, bool> sound_;  // functions checked by themselves so far
  std::size_t steps_ = 0;
  int depth_ = 0;
  bool limit_reported_ = false;
};

std::string describe(ir::Type type);
std::optional<ir::Type> scalar_type(std::string_view name);

}  // namespace vicinal::check
