// The syntax tree of one file: expressions in one vector, statements as written.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "compiler/support/ids.h"
#include "compiler/syntax/token.h"

namespace vicinal::ast {

using source::Range;
using syntax::TokenKind;
using ExprId = support::Id<struct ExprTag>;

struct Identifier {
  std::string text;
  Range range;
};

struct Name {
  std::string text;
};
struct Integer {
  std::uint64_t value;
};
struct Real {
  double value;
};
struct Boolean {
  bool value;
};
struct Field {
  ExprId base;
  Identifier field;
};  // q.t
struct Unary {
  TokenKind op;
  ExprId operand;
};  // - ~ + not
struct Binary {
  TokenKind op;
  ExprId left, right;
  Range op_range;
};
struct Comparison {  // a < b <= c
  std::vector<ExprId> operands;
  std::vector<TokenKind> ops;
  std::vector<Range> op_ranges;
};
struct Conditional {
  ExprId condition, then, otherwise;
};  // then if condition else otherwise
struct Call {
  ExprId callee;
  std::vector<ExprId> arguments;
};
struct Index {
  ExprId base;
  std::vector<ExprId> indices;
};
struct Slice {};    // the `:` in x[b, :]
struct Reduction {  // sum(i in a..b: expr), any(i in a..b: condition)
  bool any;
  Identifier variable;
  ExprId begin, end, body;
};
struct Invalid {};  // already reported

struct Expr {
  Range range;
  std::variant<Name, Integer, Real, Boolean, Field, Unary, Binary, Comparison, Conditional, Call, Index,
               Slice, Reduction, Invalid>
      what;
};

// int, float, bool; float[_, _]; fn(int, int) -> bool
struct TypeExpr {
  Range range;
  std::string base;
  std::optional<int> rank;           // of a tensor
  std::vector<TypeExpr> parameters;  // of a function
  std::vector<TypeExpr> result;      // of a function: one
};

struct Import {
  Range range;
  std::string path;
  Range path_range;
};

struct Parameter {
  Identifier name;
  TypeExpr type;
};
struct Function {
  Identifier name;
  std::vector<Parameter> parameters;
  std::optional<TypeExpr> result;
  ExprId body;
};

struct Property {
  Identifier name;
  ExprId value;
};  // value is none for a bare `causal`
struct Axis {
  Identifier name;
  std::vector<Property> properties;
};
struct Context {
  Range range;
};
struct Param {
  Identifier name;
  std::string type;
  Range type_range;
  ExprId value;
  bool learnable;
};
struct Input {
  Identifier name;
  std::string type;
  Range type_range;
  std::vector<ExprId> dims;
  bool learnable;
};
struct Let {
  Identifier name;
  ExprId value;
};
struct Assign {
  Identifier target;
  ExprId value;
};

struct Statement {
  Range range;
  std::variant<Axis, Context, Param, Input, Let, Assign> what;
};

struct Attention {
  Identifier name;
  std::vector<Statement> statements;
  Range range;
};

struct File {
  std::vector<Expr> exprs;
  std::vector<Import> imports;
  std::vector<Function> functions;
  std::vector<Attention> attentions;

  const Expr& operator[](ExprId id) const { return exprs[id.value]; }
};

// Parenthesised prefix form, a statement a line.
std::string dump(const File& file);

}  // namespace vicinal::ast
