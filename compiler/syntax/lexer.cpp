#include "compiler/syntax/lexer.h"

#include <algorithm>
#include <charconv>

namespace vicinal::syntax {
namespace {

using diagnostics::Kind;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_name(char c) {
  return is_name_start(c) || is_digit(c);
}

// What writers of C, C++ and JavaScript type, and what it is here.
struct Foreign {
  std::string_view written, meant;
};
constexpr Foreign kForeign[] = {{"&&", "and"},          {"||", "or"},          {"===", "=="},
                                {"!==", "!="},          {"<>", "!="},          {"\xe2\x89\xa4", "<="},
                                {"\xe2\x89\xa5", ">="}, {"\xe2\x89\xa0", "!="}};

class Lexer {
 public:
  Lexer(const source::SourceMap& sources, std::uint32_t file, diagnostics::Sink& sink)
      : text_(sources.text(file)), file_(file), sink_(sink) {}

  std::vector<Token> run() {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // a byte order mark
    while (skip_blank(), at_ < text_.size()) token();
    push(TokenKind::end_of_file, 0);
    return std::move(tokens_);
  }

 private:
  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  source::Range range(std::size_t begin, std::size_t end) const {
    return {file_, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)};
  }

  void skip_blank() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n')
        after_newline_ = true;
      else if (c == '#') {
        while (at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        return;
      }
    }
  }

  Token& push(TokenKind kind, std::size_t length) {
    tokens_.push_back({kind, after_newline_, range(at_, at_ + length)});
    after_newline_ = false;
    at_ += length;
    return tokens_.back();
  }

  void token() {
    const char c = peek();
    if (is_name_start(c)) return name();
    // `..5` is a range to 5, so a dot starts a number only where no dot stands before it.
    if (is_digit(c) || (c == '.' && is_digit(peek(1)))) return number();
    if (c == '"') return string();
    if (foreign()) return;
    if (punctuation()) return;
    invalid();
  }

  void name() {
    std::size_t length = 1;
    while (is_name(peek(length))) ++length;
    const std::string_view word = text_.substr(at_, length);
    for (auto k = TokenKind::kw_attention; k <= TokenKind::kw_false;
         k = static_cast<TokenKind>(static_cast<int>(k) + 1))
      if (word == spelling(k)) return void(push(k, length));
    push(TokenKind::name, length);
  }

  void number() {
    std::size_t length = 0;
    bool real = false;
    if (peek() == '0' && (peek(1) == 'x' || peek(1) == 'X')) return hexadecimal();
    while (is_digit(peek(length))) ++length;
    // A dot before another dot is the range operator: `0..4`.
    if (peek(length) == '.' && peek(length + 1) != '.') {
      real = true;
      do ++length;
      while (is_digit(peek(length)));
    }
    if (peek(length) == 'e' || peek(length) == 'E') {
      std::size_t exponent = length + 1;
      if (peek(exponent) == '+' || peek(exponent) == '-') ++exponent;
      if (is_digit(peek(exponent))) {
        real = true;
        length = exponent;
        while (is_digit(peek(length))) ++length;
      }
    }
    if (is_name(peek(length))) {
      const std::size_t good = length;
      while (is_name(peek(length))) ++length;
      sink_.report(Kind::invalid_number, range(at_, at_ + length), text_.substr(at_, length))
          .with_help(peek(good) == 'f' && length == good + 1 ? "numbers have no suffix: leave out the `f`"
                                                             : "put a space or an operator after the number");
    }
    const std::size_t begin = at_;
    Token& token = push(real ? TokenKind::real : TokenKind::integer, length);
    const char* const first = text_.data() + begin;
    if (real) {
      // Out of range leaves zero or infinity, as rounding would.
      if (std::from_chars(first, first + length, token.real).ec == std::errc::result_out_of_range)
        token.real = 0;
      return;
    }
    if (std::from_chars(first, first + length, token.integer).ec == std::errc::result_out_of_range ||
        token.integer > kMaxInteger)
      too_large(token);
  }

  void hexadecimal() {
    std::size_t length = 2;
    while (is_name(peek(length))) ++length;
    const char* const first = text_.data() + at_;
    Token& token = push(TokenKind::integer, length);
    const auto [end, error] = std::from_chars(first + 2, first + length, token.integer, 16);
    if (length == 2 || (end != first + length && error != std::errc::result_out_of_range))
      sink_.report(Kind::invalid_number, token.range, std::string_view(first, length))
          .with_help("hexadecimal integers are written like `0x1f`");
    else if (error == std::errc::result_out_of_range || token.integer > 0xffffffffu)
      too_large(token);
    else  // All 32 bits may be given; the value is their two's complement.
      token.integer = token.integer > kMaxInteger ? token.integer | 0xffffffff00000000u : token.integer;
  }

  void too_large(Token& token) {
    sink_
        .report(Kind::number_too_large, token.range,
                text_.substr(token.range.begin, token.range.end - token.range.begin))
        .with_help("integers are 32-bit, up to 2147483647; write a float with a dot, such as `3e9`");
    token.integer = 0;
  }

  void string() {
    std::size_t length = 1;
    while (peek(length) != '"') {
      if (at_ + length >= text_.size() || peek(length) == '\n') {
        sink_.report(Kind::unterminated_string, range(at_, at_ + length))
            .with_help("close it with `\"` on the same line");
        return void(push(TokenKind::string, length));
      }
      ++length;
    }
    push(TokenKind::string, length + 1);
  }

  bool foreign() {
    for (const Foreign& f : kForeign) {
      if (text_.substr(at_, f.written.size()) != f.written) continue;
      sink_.report(Kind::foreign_operator, range(at_, at_ + f.written.size()), f.written)
          .fix(range(at_, at_ + f.written.size()), std::string(f.meant));
      for (auto k = TokenKind::kw_and; k <= TokenKind::shift_right;
           k = static_cast<TokenKind>(static_cast<int>(k) + 1))
        if (spelling(k) == f.meant) push(k, f.written.size());
      return true;
    }
    if (peek() == '!' && peek(1) != '=') {
      sink_.report(Kind::foreign_operator, range(at_, at_ + 1), "!")
          .with_help("write `not`")
          .fix(range(at_, at_ + 1), "not ");
      push(TokenKind::kw_not, 1);
      return true;
    }
    return false;
  }

  bool punctuation() {
    for (std::size_t length : {std::size_t{2}, std::size_t{1}}) {
      const std::string_view here = text_.substr(at_, length);
      if (here.size() != length) continue;
      for (auto k = TokenKind::left_paren; k <= TokenKind::shift_right;
           k = static_cast<TokenKind>(static_cast<int>(k) + 1))
        if (here == spelling(k)) return push(k, length), true;
    }
    return false;
  }

  // A run of bytes that start no token is one mistake, not many.
  void invalid() {
    const std::size_t begin = at_;
    const auto bad = [&] {
      const char c = peek();
      return at_ < text_.size() && !is_name(c) && c != ' ' && c != '\t' && c != '\r' && c != '\n' &&
             c != '#' && std::string_view("()[]{},:.=+-*/%<>&|^~!\"").find(c) == std::string_view::npos;
    };
    const std::size_t quoted =
        peek() == '\'' ? text_.substr(0, text_.find('\n', at_)).find('\'', at_ + 1) : std::string_view::npos;
    if (quoted != std::string_view::npos) at_ = quoted;
    do ++at_;
    while (quoted == std::string_view::npos && bad());
    auto& d = sink_.report(Kind::invalid_character, range(begin, at_));
    const std::string_view written = text_.substr(begin, at_ - begin);
    if (written == ";")
      d.with_help("a statement ends at the end of its line: leave out the `;`");
    else if (written == "?")
      d.with_help("write a choice as `a if condition else b`");
    else if (written[0] == '\'')
      d.with_help("strings are written with double quotes");
    else if (written == "\xe2\x88\x9e")
      d.fix(range(begin, at_), "inf");
    else
      d.with_help("specs are plain ASCII outside comments; leave it out");
  }

  static constexpr std::uint64_t kMaxInteger = 2147483648u;  // so that -2147483648 can be written

  std::string_view text_;
  std::uint32_t file_;
  diagnostics::Sink& sink_;
  std::size_t at_ = 0;
  bool after_newline_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> lex(const source::SourceMap& sources, std::uint32_t file, diagnostics::Sink& sink) {
  return Lexer(sources, file, sink).run();
}

}  // namespace vicinal::syntax
