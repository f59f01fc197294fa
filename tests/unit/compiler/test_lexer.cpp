#include <doctest/doctest.h>

#include "compiler/syntax/lexer.h"

namespace vicinal {
namespace {

using syntax::TokenKind;

struct Lexed {
  diagnostics::Sink sink;
  source::SourceMap sources;
  std::vector<syntax::Token> tokens;
};

Lexed lex(std::string text) {
  Lexed result;
  result.sources.add("test", std::move(text));
  result.tokens = syntax::lex(result.sources, 0, result.sink);
  return result;
}

TEST_CASE("every token is read back from its spelling") {
  for (auto k = TokenKind::kw_attention; k <= TokenKind::shift_right;
       k = static_cast<TokenKind>(static_cast<int>(k) + 1)) {
    const Lexed lexed = lex(std::string(syntax::spelling(k)));
    CAPTURE(std::string(syntax::spelling(k)));
    REQUIRE(lexed.tokens.size() == 2);
    CHECK(lexed.tokens[0].kind == k);
    CHECK(lexed.tokens[1].kind == TokenKind::end_of_file);
    CHECK(!lexed.sink.has_errors());
  }
}

TEST_CASE("numbers have the values they are written with") {
  const auto integer = [](std::string text) { return lex(std::move(text)).tokens[0].integer; };
  CHECK(integer("0") == 0);
  CHECK(integer("2147483647") == 2147483647);
  CHECK(integer("0x7fffffff") == 2147483647);
  CHECK(static_cast<std::int32_t>(integer("0xffffffff")) == -1);
  CHECK(lex("1.5e3").tokens[0].real == 1500);
  CHECK(lex(".25").tokens[0].real == 0.25);
  for (const char* bad : {"2147483649", "0x100000000", "1.5f", "12px", "0x", "0xg"}) {
    CAPTURE(bad);
    CHECK(lex(bad).sink.error_count() == 1);
  }
}

TEST_CASE("a range is not a float") {
  const Lexed lexed = lex("0..4");
  REQUIRE(lexed.tokens.size() == 4);
  CHECK(lexed.tokens[1].kind == TokenKind::dot_dot);
}

TEST_CASE("lines, carriage returns, comments and a byte order mark") {
  const Lexed lexed =
      lex("\xef\xbb\xbf"
          "a # b\r\n  c\td");
  REQUIRE(lexed.tokens.size() == 4);
  CHECK(lexed.tokens[0].range.begin == 3);
  CHECK(lexed.tokens[1].after_newline);
  CHECK(!lexed.tokens[2].after_newline);
  CHECK(!lexed.sink.has_errors());
}

TEST_CASE("any byte ends in the end of the file") {
  for (int c = 0; c < 256; ++c) {
    const Lexed lexed = lex(std::string(3, static_cast<char>(c)));
    CHECK(lexed.tokens.back().kind == TokenKind::end_of_file);
  }
}

}  // namespace
}  // namespace vicinal
