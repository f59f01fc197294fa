#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/unit/compiler/compile_text.h"

namespace vicinal {
namespace {

// The tree of an expression, as ast::dump prints it.
std::string tree(const std::string& expression) {
  diagnostics::Sink sink;
  const auto program =
      syntax::load_program("t", "t", "attention a {\n  let x = " + expression + "\n}", nullptr, sink);
  CHECK_MESSAGE(!sink.has_errors(), expression);
  const std::string dump = ast::dump(program.files[0]);
  const std::string before = "  let x ";
  const std::size_t at = dump.find(before);
  return at == std::string::npos ? dump
                                 : dump.substr(at + before.size(), dump.size() - at - before.size() - 1);
}

// Python's table of precedence, loosest first, written down a second time.
struct Level {
  std::vector<std::string> ops;
};
const std::vector<Level> kLevels = {
    {{"or"}},       {{"and"}},    {{"<", "=="}},           {{"|"}}, {{"^"}}, {{"&"}},
    {{"<<", ">>"}}, {{"+", "-"}}, {{"*", "/", "//", "%"}}, {{"**"}}};

TEST_CASE("of two operators the tighter one binds, and equals group as Python groups them") {
  for (std::size_t i = 0; i < kLevels.size(); ++i)
    for (std::size_t j = 0; j < kLevels.size(); ++j)
      for (const std::string& first : kLevels[i].ops)
        for (const std::string& second : kLevels[j].ops) {
          const std::string left = fmt::format("({} ({} a b) c)", second, first),
                            right = fmt::format("({} a ({} b c))", first, second);
          std::string expected = i > j || (i == j && first != "**") ? left : right;
          const bool chain = i == j && i == 2;
          if (chain)
            expected = fmt::format("(a {} b {} c)", first, second);
          else if (i == 2 || j == 2)
            continue;  // comparisons print another way; the cases below have them
          CHECK(tree(fmt::format("a {} b {} c", first, second)) == expected);
        }
}

TEST_CASE("comparisons, not, signs and choices among the rest") {
  CHECK(tree("a == b & c") == "(a == (& b c))");
  CHECK(tree("a < b and c") == "(and (a < b) c)");
  CHECK(tree("not a == b") == "(not (a == b))");
  CHECK(tree("not a and b") == "(and (not a) b)");
  CHECK(tree("-a ** b") == "(- (** a b))");
  CHECK(tree("a ** -b") == "(** a (- b))");
  CHECK(tree("-a * b") == "(* (- a) b)");
  CHECK(tree("~a + b") == "(+ (~ a) b)");
  CHECK(tree("a if b else c if d else e") == "(if b a (if d c e))");
  CHECK(tree("a or b if c and d else e") == "(if (and c d) (or a b) e)");
  CHECK(tree("f(a)[b].c") == "(. (index (call f a) b) c)");
  CHECK(tree("sum(i in 0..n: x[i, :])") == "(sum i 0 n (index x i :))");
}

TEST_CASE("newlines are free in brackets and end statements elsewhere") {
  CHECK(tree("(a\n +\n b)") == "(+ a b)");
  CHECK(tree("f(a,\n b\n)") == "(call f a b)");
  CHECK(testing::compile_block("let x = q\n  + k\n score = score + x").names() == "expected");
}

TEST_CASE("after a mistake the next statements and blocks are read") {
  const auto compiled = testing::compile_text(
      "attention a {\n  let x = (q + \n  mask = k <= zip\n}\nfn f( = 1\nattention b {\n  score = zap\n}\n");
  CHECK(compiled.messages().find("`zip`") != std::string::npos);
  CHECK(compiled.messages().find("`zap`") != std::string::npos);
  CHECK(compiled.program.files[0].attentions.size() == 2);
}

TEST_CASE("no text of tokens makes the parser stand still") {
  const char* const pieces[] = {"attention", "a",     "{",   "}",       "(",    ")",     "[",      "]",
                                "fn",        "=",     "\n",  "if",      "else", ":",     ",",      "..",
                                "-",         "not",   "sum", "in",      "1",    "\"s\"", "import", "axis",
                                "param",     "input", "let", "context", "->",   "."};
  std::uint32_t state = 1;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (int i = 0; i < 24; ++i) {
      state = state * 1664525u + 1013904223u;
      text += std::string(pieces[(state >> 16) % std::size(pieces)]) + " ";
    }
    testing::compile_text(text);
    testing::compile_block(text);
  }
}

TEST_CASE("long chains and deep brackets end in an error, not in a stack overflow") {
  std::string chain = "score = score", deep = "score = ", nots = "mask = ", types = "fn f(x: ";
  for (int i = 0; i < 20000; ++i) chain += " + 1", deep += "(", nots += "not ", types += "fn(";
  for (const std::string& text : {chain, deep, nots}) {
    const auto compiled = testing::compile_block(text);
    CHECK(compiled.names() == "nesting-too-deep");
  }
  CHECK(testing::compile_text(types).names() == "nesting-too-deep");
}

}  // namespace
}  // namespace vicinal
