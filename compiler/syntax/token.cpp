#include "compiler/syntax/token.h"

#include <fmt/format.h>

namespace vicinal::syntax {

std::string_view spelling(TokenKind kind) {
  static constexpr std::string_view spellings[] = {
#define VICINAL_TOKEN(id, spelling) spelling,
#include "compiler/syntax/tokens.def"
  };
  return spellings[static_cast<std::size_t>(kind)];
}

std::string dump(const std::vector<Token>& tokens, const source::SourceMap& sources) {
  std::string out;
  for (const Token& token : tokens) {
    const source::Position at = sources.position(token.range.file, token.range.begin);
    const bool fixed = token.kind > TokenKind::string;
    fmt::format_to(
        std::back_inserter(out), "{}:{} {}{}\n", at.line, at.column, token.after_newline ? "newline " : "",
        fixed ? fmt::format("`{}`", spelling(token.kind))
        : token.kind == TokenKind::end_of_file
            ? std::string("end")
            : fmt::format("{} `{}`", spelling(token.kind).substr(spelling(token.kind).find(' ') + 1),
                          sources.text(token.range)));
  }
  return out;
}

}  // namespace vicinal::syntax
