// Tokens of a spec.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/source/source_map.h"

namespace vicinal::syntax {

enum class TokenKind : std::uint8_t {
#define VICINAL_TOKEN(id, spelling) id,
#include "compiler/syntax/tokens.def"
};

// As it is written; for classes of tokens such as names, what to call them.
std::string_view spelling(TokenKind kind);

struct Token {
  TokenKind kind;
  bool after_newline;  // a line ended since the token before; statements end there
  source::Range range;
  // Integer: its value, at most 2^32. Float: its value as the nearest double.
  std::uint64_t integer = 0;
  double real = 0;
};

std::string dump(const std::vector<Token>& tokens, const source::SourceMap& sources);

}  // namespace vicinal::syntax
