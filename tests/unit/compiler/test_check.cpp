// Limits, guards of k.context and types. What each mistake's message looks like is in
// tests/golden/diagnostics.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "compiler/check/builtins.h"
#include "compiler/support/text.h"
#include "tests/unit/compiler/compile_text.h"

namespace vicinal {
namespace {

using testing::compile_block;
using testing::compile_text;

TEST_CASE("a read that context keys do not have must be guarded") {
  const std::string head = "axis t { window = 4 }\ncontext\ninput x: float[tokens]\n";
  for (const char* good : {"score = score if k.context else score + k.t",
                           "mask = k.context or k.t <= q.t",
                           "mask = not k.context and k.t <= q.t",
                           "score = score + (x[k] if not k.context else 0)",
                           "let d = q.t - k.t\nscore = score + (0 if k.context else d)",
                           "mask = k.context or q.t > 2 and k.t > 1",
                           "mask = not (k.context or k.t > 3)",
                           "score = score + (0 if k.context or q > 3 else k.t)",
                           "mask = k < 3",
                           "score = score + x[q]",
                           "mask = (q > 1 and not k.context) and k.t > 1",
                           "score = score + (x[k] if k.context else 0)",
                           "let v = x[k]\nscore = score + (v if k.context else 0)",
                           "let v = x[k]\nscore = score + (v if not k.context else 0)",
                           "let v = x[k]\nlet w = v + 1\nmask = k.context and w > 0",
                           "let v = x[k]\nlet w = v if k.context else 0\nscore = score + w",
                           "score = (k.t if not k.context else 1) if k.context else score",
                           "let c = k.context\nmask = c or k.t <= q.t",
                           "let grid = not k.context\nmask = grid and k.t > 1",
                           "let c = k.context or q > 3\nscore = score + (0 if c else k.t)"}) {
    const auto compiled = compile_block(head + good + "\nlet unused_sink = x[q]");
    CAPTURE(good);
    CHECK(compiled.names().find("unguarded") == std::string::npos);
    CHECK(!compiled.sink.has_errors());
  }
  for (const char* bad : {"score = score + k.t", "mask = k.context and k.t <= q.t", "score = score + x[k]",
                          "score = score + x[k // 2]", "let d = k.t\nscore = score + d",
                          "mask = q > 3 or k.t > 1", "score = score + (k.t if k.context else 0)",
                          "mask = (k.context or q > 1) and k.t > 1", "score = score + x[k + 1 - 1]",
                          "let v = x[k]\nscore = score + v", "let d = k.t\nmask = k.context and d > 0",
                          "let v = x[k]\nscore = score + (v if k.context else 0) + v",
                          "let c = k.context and q > 3\nmask = c or k.t > 1",
                          "let d = x[k] + k.t\nscore = score + (d if k.context else 0)"}) {
    const auto compiled = compile_block(head + bad);
    CAPTURE(bad);
    CHECK(compiled.names().find("unguarded-context") != std::string::npos);
  }
}

TEST_CASE("types of operators") {
  const auto type = [](const std::string& expression) {
    const auto compiled = compile_block("let x = " + expression + "\nscore = score + float(x)");
    if (compiled.variants.empty()) return compiled.names();
    for (const char* wanted : {"int", "float", "bool"})
      if (compile_text(fmt::format("fn f(x: {0}) -> {0} = x\nfn g(q: int, k: int, score: float) -> {0} = "
                                   "{1}\nattention a {{\n}}\n",
                                   wanted, expression))
              .sink.error_count() == 0)
        return std::string(wanted);
    return std::string("none");
  };
  CHECK(type("q + k") == "int");
  CHECK(type("q / k") == "float");
  CHECK(type("q // k") == "int");
  CHECK(type("1.0 // 2") == "float");
  CHECK(type("q ** 2") == "float");
  CHECK(type("q < k") == "bool");
  CHECK(type("q if q < k else 1.0") == "float");
  CHECK(type("min(q, 1.0)") == "float");
  CHECK(type("min(q, 1, k)") == "int");
  CHECK(type("floor(q / 2)") == "float");
  CHECK(type("int(score)") == "int");
  CHECK(type("sign(q)") == "int");
  CHECK(type("sum(i in 0..3: i)") == "int");
  CHECK(type("any(i in 0..3: q == i)") == "bool");
  CHECK(type("q + (q < k)") == "bool-arithmetic");
  CHECK(type("q == (q < k)") == "type-mismatch");
  CHECK(type("1.5 << 2") == "type-mismatch");
}

TEST_CASE("limits end in one error") {
  SUBCASE("bytes") {
    std::string text = "attention a {\n}\n#";
    text.resize(syntax::kMaxSourceBytes + 1, 'x');
    CHECK(compile_text(text).names() == "source-too-large");
    text.resize(syntax::kMaxSourceBytes);
    CHECK(compile_text(text).names().empty());
  }
  SUBCASE("nodes") {
    std::string text;
    for (int i = 0; i < 4200; ++i) text += fmt::format("let x{} = q + {}\n", i, i);
    CHECK(compile_block(text).names() == "too-large");
  }
  SUBCASE("unrolled nodes") {
    CHECK(compile_block("score = sum(i in 0..15000: score * i)").names().empty());
    CHECK(compile_block("score = sum(i in 0..200000: score * i)").names() == "too-large");
    CHECK(compile_block("score = score + sum(i in 0..60000: sum(j in i..i + 1: 0))").names() == "too-large");
    CHECK(compile_block("score = score + sum(i in 0..2147483647: 0)").names() == "too-large");
  }
  SUBCASE("declarations") {
    std::string text, sum = "score = score";
    for (int i = 0; i < 256; ++i)
      text += fmt::format("param p{}: float = 1.0\n", i),
          sum += fmt::format("{}p{}", i % 64 == 0 ? "\nlet s" + std::to_string(i) + " = " : " + ", i);
    CHECK(compile_block(text + sum).names().find("too-large") == std::string::npos);
    CHECK(compile_block(text + "input one_more: float").names().find("too-large") != std::string::npos);
  }
  SUBCASE("functions that double") {
    std::string text = "fn f0(x: float) -> float = x + 1.0\n";
    for (int i = 1; i < 64; ++i)
      text += fmt::format("fn f{0}(x: float) -> float = f{1}(x) * f{1}(x + {0})\n", i, i - 1);
    CHECK(compile_text(text + "attention a {\n  score = f63(score)\n}\n").names() == "too-large");
  }
  SUBCASE("functions inside functions") {
    std::string text = "fn f0(x: float) -> float = x\n", backwards;
    for (int i = 1; i < 10000; ++i) text += fmt::format("fn f{}(x: float) -> float = f{}(x)\n", i, i - 1);
    for (int i = 9999; i > 0; --i) backwards += fmt::format("fn f{}(x: float) -> float = f{}(x)\n", i, i - 1);
    CHECK(compile_text(text + "attention a {\n  score = f9999(score)\n}\n").sink.has_errors());
    CHECK(compile_text(backwards + "fn f0(x: float) -> float = x\nattention a {\n  score = f9999(score)\n}\n")
              .sink.has_errors());
    CHECK(compile_text(text + "attention a {\n  score = f20(score)\n}\n").sink.has_errors());
  }
  SUBCASE("recursion") {
    CHECK(compile_text("fn f(x: int) -> int = g(x)\nfn g(x: int) -> int = f(x)\nattention a {\n}\n")
              .names()
              .find("recursion") == 0);
    CHECK(compile_text("fn f(g: fn(int) -> int, x: int) -> int = g(x)\nfn h(x: int) -> int = f(h, "
                       "x)\nattention a {\n}\n")
              .names()
              .find("recursion") == 0);
  }
}

TEST_CASE("a function is checked though nobody calls it, and once") {
  CHECK(compile_text("fn f(x: int) -> int = x + y\nattention a {\n mask = f(q) > 0\n}\nattention b {\n mask "
                     "= f(k) > 0\n}\n")
            .names() == "unknown-name");
}

TEST_CASE("params take the caller's values, and dynamic ones stay open") {
  check::Bindings bindings;
  bindings.values["n"] = ir::int_value(5);
  const std::string text = "param n: int = 3\nmask = q - k < n";
  CHECK(compile_block(text, bindings).variants.at(0).optimized.params[0].value.i == 5);
  bindings.dynamic.insert("n");
  CHECK(compile_block(text, bindings).module().params[0].dynamic);
  CHECK(compile_block("param n: int = 3\naxis t { window = n, stride = n }", bindings).names().empty());
  CHECK(compile_block("param n: int = 3\naxis t { window = 9, dilation = n }", bindings).names() ==
        "not-constant");
}

TEST_CASE("the reference lists every builtin and every word") {
  const std::string text =
      support::read_file(std::string(VICINAL_SOURCE_DIR) + "/specs/LANGUAGE.md").value_or("");
  const auto listed = [&](std::string_view name) {
    CAPTURE(std::string(name));
    CHECK(text.find("`" + std::string(name) + "`") != std::string::npos);
  };
  for (const check::Builtin& builtin : check::builtins()) listed(builtin.name);
  for (std::string_view name : {"int", "float", "bool", "len", "dot", "sum", "any", "clamp", "inf", "pi"})
    listed(name);
  for (const ir::SymbolInfo& symbol : ir::all_symbols())
    if (symbol.name.find('.') == std::string_view::npos) listed(symbol.name);
}

TEST_CASE("the blocks that the reference shows in full compile") {
  const std::string text =
      support::read_file(std::string(VICINAL_SOURCE_DIR) + "/specs/LANGUAGE.md").value_or("");
  int blocks = 0;
  for (std::size_t at = text.find("\n```\n"); at != std::string::npos;) {
    const std::size_t end = text.find("\n```\n", at + 5);
    if (end == std::string::npos) break;
    const std::string block = text.substr(at + 5, end - at - 4);
    if (block.find("\nattention ") != std::string::npos && block.find("file      =") == std::string::npos) {
      const auto compiled = compile_text(block);
      CHECK_MESSAGE(!compiled.sink.has_errors(), compiled.messages());
      ++blocks;
    }
    at = text.find("\n```\n", end + 5);
  }
  CHECK(blocks >= 2);
}

}  // namespace
}  // namespace vicinal
