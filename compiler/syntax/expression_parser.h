// The lower half of the parser: tokens, and expressions by precedence (a Pratt parser). parser.cpp builds
// items and statements on it; nothing else includes this.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <tuple>

#include "compiler/syntax/lexer.h"
#include "compiler/syntax/parser.h"

namespace vicinal::syntax {

using ast::ExprId;
using diagnostics::Kind;
using source::Range;
using T = TokenKind;

// Binding powers of the binary operators, Python's: `&` binds tighter than `==`, `not` looser than `in`.
enum Power {
  kNone,
  kConditional,
  kOr,
  kAnd,
  kNot,
  kCompare,
  kBitOr,
  kBitXor,
  kBitAnd,
  kShift,
  kSum,
  kProduct,
  kSign,
  kPower
};

inline Power power_of(T kind) {
  switch (kind) {
    case T::kw_if: return kConditional;
    case T::kw_or: return kOr;
    case T::kw_and: return kAnd;
    case T::equal:
    case T::not_equal:
    case T::less:
    case T::less_equal:
    case T::greater:
    case T::greater_equal: return kCompare;
    case T::pipe: return kBitOr;
    case T::caret: return kBitXor;
    case T::ampersand: return kBitAnd;
    case T::shift_left:
    case T::shift_right: return kShift;
    case T::plus:
    case T::minus: return kSum;
    case T::star:
    case T::slash:
    case T::slash_slash:
    case T::percent: return kProduct;
    case T::star_star: return kPower;
    default: return kNone;
  }
}

// Thrown inside the parser only, to leave a statement that makes no sense; caught where the next one starts.
struct Abandon {};

inline constexpr int kMaxHeight = 2 * kMaxNesting;

class ExpressionParser {
 protected:
  ExpressionParser(const source::SourceMap& sources, std::uint32_t file, diagnostics::Sink& sink)
      : sources_(sources), sink_(sink), tokens_(lex(sources, file, sink)) {}

  // Tokens.
  const Token& token() const { return tokens_[at_]; }
  const Token& previous() const { return tokens_[at_ - 1]; }
  bool is(T kind) const { return token().kind == kind; }
  // Whether the next token goes on with the statement: newlines are free inside brackets.
  bool same_line() const { return brackets_ > 0 || !token().after_newline; }
  bool is_here(T kind) const { return is(kind) && same_line(); }
  const Token& take() { return tokens_[is(T::end_of_file) ? at_ : at_++]; }
  bool accept(T kind) { return is(kind) ? take(), true : false; }
  bool accept_here(T kind) { return is_here(kind) ? take(), true : false; }
  bool is_word(std::string_view word) const { return is(T::name) && sources_.text(token().range) == word; }
  std::string text(const Token& t) const { return std::string(sources_.text(t.range)); }
  std::string found() const {
    return is(T::end_of_file) ? std::string(spelling(T::end_of_file)) : fmt::format("`{}`", text(token()));
  }
  // Where something is missing: right after what stands before, not at the next line's first word.
  Range missing_here() const {
    if (at_ > 0 && (token().after_newline || is(T::end_of_file)))
      return {previous().range.file, previous().range.end, previous().range.end};
    return token().range;
  }

  diagnostics::Diagnostic& report_expected(std::string_view what) {
    const bool line_end = at_ > 0 && token().after_newline;
    return sink_.report(Kind::expected, missing_here(), what, line_end ? "the end of the line" : found());
  }
  // For what begins a line: there the caret belongs, not at the line before.
  diagnostics::Diagnostic& report_beginning(std::string_view what) {
    return sink_.report(Kind::expected, is(T::end_of_file) ? missing_here() : token().range, what, found());
  }
  // Bytes that are no token, reported already, stand before the next one: what follows is their consequence.
  bool after_invalid() const {
    std::string_view between = sources_.text({token().range.file, previous().range.end, token().range.begin});
    between = between.substr(0, between.find_first_of("#\n"));
    return between.find_first_not_of(" \t\r") != std::string_view::npos;
  }
  [[noreturn]] void fail(std::string_view what) {
    report_expected(what);
    throw Abandon{};
  }
  const Token& expect(T kind) {
    if (is(kind) && same_line()) return take();
    fail(kind <= T::string ? std::string(spelling(kind)) : fmt::format("`{}`", spelling(kind)));
  }
  ast::Identifier expect_name(std::string_view what) {
    if (!is(T::name) || !same_line()) {
      auto& d = report_expected(what);
      if (token().kind >= T::kw_attention && token().kind <= T::kw_false && same_line())
        d.with_help(fmt::format("`{}` is a word of the language; choose another name", text(token())));
      throw Abandon{};
    }
    const Token& t = take();
    return {text(t), t.range};
  }
  void expect_close(T kind, const Token& open) {
    if (accept_here(kind)) return;
    auto& d = report_expected(fmt::format("`{}`", spelling(kind))).label(open.range, "to close this");
    if (is_here(T::assign)) d.with_help("arguments are given by their place, not by name");
    throw Abandon{};
  }

  // Expressions.
  // A chain such as a + b + c + ... nests as deep as it is long, though the parser only loops: the height of
  // every tree is bounded here, so that no later step runs out of stack.
  template <class What>
  ExprId make(Range range, What what, std::initializer_list<ExprId> children = {},
              std::span<const ExprId> more = {}) {
    int height = 1;
    for (std::span<const ExprId> list : {std::span<const ExprId>(children), more})
      for (ExprId child : list) height = std::max(height, heights_[child.value] + 1);
    if (height > kMaxHeight) too_deep(range, kMaxHeight);
    file_.exprs.push_back({range, std::move(what)});
    heights_.push_back(height);
    return ExprId{static_cast<std::uint32_t>(file_.exprs.size() - 1)};
  }
  [[noreturn]] void too_deep(Range at, int limit = kMaxNesting) {
    sink_.report(Kind::nesting_too_deep, at, limit).with_help("split the expression with `let` or `fn`");
    throw Abandon{};
  }
  Range range(ExprId id) const { return file_.exprs[id.value].range; }

  ExprId expression_after(std::string_view op) {
    if (!same_line()) {
      if (after_invalid()) throw Abandon{};
      sink_.report(Kind::expected, missing_here(), "an expression", "the end of the line")
          .with_help(
              fmt::format("put the expression on the line of its `{}`, or wrap it in parentheses", op));
      throw Abandon{};
    }
    return expression();
  }

  ExprId expression(Power minimum = kConditional) {
    if (++depth_ > kMaxNesting) too_deep(token().range);
    ExprId left = prefix();
    while (same_line()) {
      const Power power = power_of(token().kind);
      if (power == kNone || power < minimum) break;
      left = infix(left, power);
    }
    --depth_;
    return left;
  }

  // The right operand of an operator: on its line, unless brackets are open.
  ExprId operand(Power minimum) {
    if (!same_line()) {
      if (after_invalid()) throw Abandon{};
      sink_.report(Kind::expected, missing_here(), "an expression", "the end of the line")
          .with_help("to go on with an expression on the next line, wrap it in parentheses");
      throw Abandon{};
    }
    return expression(minimum);
  }

  ExprId infix(ExprId left, Power power) {
    const Token op = take();
    if (power == kConditional) {
      const ExprId condition = operand(kOr);
      if (!is_here(T::kw_else)) {
        report_expected("`else`")
            .label(op.range, "for this `if`")
            .with_help("write a choice as `a if condition else b`");
        throw Abandon{};
      }
      take();
      const ExprId otherwise = operand(kConditional);
      return make(source::join(range(left), range(otherwise)), ast::Conditional{condition, left, otherwise},
                  {condition, left, otherwise});
    }
    if (power == kCompare) {
      ast::Comparison c{{left, operand(kBitOr)}, {op.kind}, {op.range}};
      while (same_line() && power_of(token().kind) == kCompare) {
        c.ops.push_back(token().kind);
        c.op_ranges.push_back(take().range);
        c.operands.push_back(operand(kBitOr));
      }
      const Range whole = source::join(range(left), range(c.operands.back()));
      const std::vector<ExprId> operands = c.operands;
      return make(whole, std::move(c), {}, operands);
    }
    // `**` groups to the right and lets a sign stand after it; the rest group to the left.
    const ExprId right = power == kPower ? operand(kSign) : operand(static_cast<Power>(power + 1));
    return make(source::join(range(left), range(right)), ast::Binary{op.kind, left, right, op.range},
                {left, right});
  }

  ExprId prefix() {
    const Token& t = token();
    switch (t.kind) {
      case T::minus:
      case T::plus:
      case T::tilde: {
        const Token op = take();
        const ExprId inner = operand(kSign);
        return make(source::join(op.range, range(inner)), ast::Unary{op.kind, inner}, {inner});
      }
      case T::kw_not: {
        const Token op = take();
        const ExprId inner = operand(kNot);
        return make(source::join(op.range, range(inner)), ast::Unary{op.kind, inner}, {inner});
      }
      default: return postfix(primary());
    }
  }

  ExprId primary() {
    const Token t = token();
    switch (t.kind) {
      case T::integer: take(); return make(t.range, ast::Integer{t.integer});
      case T::real: take(); return make(t.range, ast::Real{t.real});
      case T::kw_true:
      case T::kw_false: take(); return make(t.range, ast::Boolean{t.kind == T::kw_true});
      case T::name:
        take();
        if (is_here(T::left_paren) && at_ + 2 < tokens_.size() && tokens_[at_ + 1].kind == T::name &&
            tokens_[at_ + 2].kind == T::kw_in)
          return reduction(t);
        return make(t.range, ast::Name{text(t)});
      case T::left_paren: {
        const Token& open = take();
        ++brackets_;
        const ExprId inner = expression();
        expect_close(T::right_paren, open);
        --brackets_;
        return inner;
      }
      default: {
        auto& d = report_expected("an expression");
        if (is(T::kw_if)) d.with_help("write a choice as `a if condition else b`");
        if (is(T::string))
          d.with_help(text(token()).find("inf") != std::string::npos
                          ? "infinity is written `inf`, without quotes"
                          : "a string is only the path of an import");
        throw Abandon{};
      }
    }
  }

  // sum(i in a..b: body)
  ExprId reduction(const Token& name) {
    const std::string word = text(name);
    if (word != "sum" && word != "any")
      sink_.report(Kind::unknown_name, name.range, word)
          .with_help("only `sum(i in a..b: ...)` and `any(i in a..b: ...)` run over a range");
    const Token& open = take();
    ++brackets_;
    ast::Reduction r;
    r.any = word == "any";
    r.variable = expect_name("a name");
    expect(T::kw_in);
    r.begin = expression();
    expect(T::dot_dot);
    r.end = expression();
    expect(T::colon);
    r.body = expression();
    expect_close(T::right_paren, open);
    --brackets_;
    return make(source::join(name.range, previous().range), r, {r.begin, r.end, r.body});
  }

  ExprId postfix(ExprId base) {
    while (same_line()) {
      if (accept(T::dot)) {
        const ast::Identifier field = expect_name("a name");
        base = make(source::join(range(base), field.range), ast::Field{base, field}, {base});
      } else if (is(T::left_paren)) {
        const Token& open = take();
        std::vector<ExprId> arguments = list(T::right_paren, open, false);
        base =
            make(source::join(range(base), previous().range), ast::Call{base, arguments}, {base}, arguments);
      } else if (is(T::left_bracket)) {
        const Token& open = take();
        std::vector<ExprId> indices = list(T::right_bracket, open, true);
        base = make(source::join(range(base), previous().range), ast::Index{base, indices}, {base}, indices);
      } else {
        break;
      }
    }
    return base;
  }

  std::vector<ExprId> list(T close, const Token& open, bool slices) {
    ++brackets_;
    std::vector<ExprId> elements;
    while (!is(close)) {
      if (slices && is(T::colon)) {
        const Range colon = take().range;
        elements.push_back(make(colon, ast::Slice{}));
      } else {
        elements.push_back(expression());
      }
      if (!accept(T::comma)) break;
    }
    expect_close(close, open);
    --brackets_;
    return elements;
  }
  const source::SourceMap& sources_;
  diagnostics::Sink& sink_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int brackets_ = 0;  // open ( and [ and an axis' {
  int depth_ = 0;
  ast::File file_;
  std::vector<int> heights_;  // of file_.exprs
};

}  // namespace vicinal::syntax
