#include "compiler/syntax/parser.h"

#include "compiler/syntax/expression_parser.h"

namespace vicinal::syntax {
namespace {

class Parser : ExpressionParser {
 public:
  Parser(const source::SourceMap& sources, std::uint32_t file, diagnostics::Sink& sink)
      : ExpressionParser(sources, file, sink) {}

  ast::File run() {
    while (!is(T::end_of_file)) {
      try {
        item();
      } catch (const Abandon&) {
        recover_to_item();
      }
    }
    return std::move(file_);
  }

 private:
  // Recovery.
  void recover_to_item() {
    brackets_ = depth_ = 0;
    int braces = 0;
    for (; !is(T::end_of_file); take()) {
      if (braces <= 0 && token().after_newline && starts_item()) return;
      if (is(T::left_brace)) ++braces;
      if (is(T::right_brace) && --braces <= 0) return void(take());
    }
  }
  void recover_to_statement() {
    brackets_ = depth_ = 0;
    int braces = 0;
    for (; !is(T::end_of_file); take()) {
      if (braces == 0 && (token().after_newline || is(T::right_brace))) return;
      if (is(T::left_brace)) ++braces;
      if (is(T::right_brace)) --braces;
    }
  }
  bool starts_item() const { return is(T::kw_attention) || is(T::kw_fn) || is(T::kw_import); }

  // Items.
  void item() {
    if (is(T::kw_import)) return import();
    if (is(T::kw_fn)) return function();
    if (is(T::kw_attention)) return attention();
    auto& d = report_beginning("`attention`, `fn` or `import`");
    if (is(T::kw_param) || is(T::kw_input) || is(T::kw_axis) || is(T::kw_let))
      d.with_help(fmt::format("`{}` belongs inside `attention NAME {{ ... }}`", text(token())));
    if (is_word("def")) d.with_help("write a function as `fn name(x: int) -> bool = expression`");
    take();  // so that recovery moves on
    throw Abandon{};
  }

  void end_of_item() {
    if (!is(T::end_of_file) && !token().after_newline) fail("the end of the line");
  }

  void import() {
    const Token& keyword = take();
    const Token& path = expect(T::string);
    const std::string quoted = text(path);
    if (quoted.size() < 2 || quoted.back() != '"') return end_of_item();  // not closed: reported
    file_.imports.push_back(
        {source::join(keyword.range, path.range), quoted.substr(1, quoted.size() - 2), path.range});
    end_of_item();
  }

  void function() {
    take();
    ast::Function f;
    f.name = expect_name("the function's name");
    try {
      rest_of_function(f);
    } catch (const Abandon&) {
      // It stays known by its name, so that its callers say nothing of it.
      f.body = make(f.name.range, ast::Invalid{});
      file_.functions.push_back(std::move(f));
      throw;
    }
    file_.functions.push_back(std::move(f));
    end_of_item();
  }

  void rest_of_function(ast::Function& f) {
    const Token& open = expect(T::left_paren);
    ++brackets_;
    while (!is(T::right_paren)) {
      ast::Parameter parameter;
      parameter.name = expect_name("a parameter's name");
      if (!accept(T::colon)) {
        report_expected("`:` and a type")
            .with_help("types are written like `x: int`, `t: float[_, _]`, `f: fn(int, int) -> bool`");
        throw Abandon{};
      }
      parameter.type = type();
      f.parameters.push_back(std::move(parameter));
      if (!accept(T::comma)) break;
    }
    expect_close(T::right_paren, open);
    --brackets_;
    if (accept_here(T::arrow)) f.result = type();
    if (is_here(T::left_brace) || is_here(T::colon)) {
      report_expected("`=`").with_help(
          "a function is one expression: `fn name(x: int) -> bool = expression`");
      throw Abandon{};
    }
    expect(T::assign);
    // The body may start on the next line, where nothing else could stand.
    f.body = expression();
  }

  ast::TypeExpr type() {
    if (++depth_ > kMaxNesting) too_deep(token().range);
    ast::TypeExpr t;
    t.range = token().range;
    if (accept(T::kw_fn)) {
      t.base = "fn";
      const Token& open = expect(T::left_paren);
      ++brackets_;
      while (!is(T::right_paren)) {
        t.parameters.push_back(type());
        if (!accept(T::comma)) break;
      }
      expect_close(T::right_paren, open);
      --brackets_;
      expect(T::arrow);
      t.result.push_back(type());
    } else {
      const ast::Identifier base = expect_name("a type");
      t.base = base.text;
      if (is_here(T::left_bracket)) {
        const Token& open = take();
        ++brackets_;
        int rank = 0;
        while (!is(T::right_bracket)) {
          const ast::Identifier dim = expect_name("`_`");
          if (dim.text != "_")
            sink_.report(Kind::expected, dim.range, "`_`", fmt::format("`{}`", dim.text))
                .with_help("a parameter's tensor type gives only its rank: one `_` for each dimension");
          ++rank;
          if (!accept(T::comma)) break;
        }
        expect_close(T::right_bracket, open);
        --brackets_;
        t.rank = rank;
      }
    }
    t.range = source::join(t.range, previous().range);
    --depth_;
    return t;
  }

  void attention() {
    const Token& keyword = take();
    ast::Attention a;
    a.name = expect_name("the attention's name");
    const Token& open = expect(T::left_brace);
    while (!is(T::right_brace)) {
      // A block that is never closed ends where the next one starts.
      if (is(T::end_of_file) || (token().after_newline && (is(T::kw_attention) || is(T::kw_import)))) {
        report_expected("`}`").label(open.range, "to close this");
        break;
      }
      const std::size_t begin = at_;
      try {
        statement(a);
      } catch (const Abandon&) {
        if (at_ == begin) take();  // whatever it is, not twice
        // `x = (a +` runs on into the next line's `mask = ...`, which is a statement all the same.
        const bool swallowed =
            is(T::assign) && at_ > begin + 1 && previous().kind == T::name && previous().after_newline;
        if (swallowed) --at_;
        recover_to_statement();
      }
    }
    const bool closed = accept(T::right_brace);
    a.range = source::join(keyword.range, previous().range);
    file_.attentions.push_back(std::move(a));
    if (closed) end_of_item();
  }

  // Statements.
  void statement(ast::Attention& a) {
    const Range begin = token().range;
    ast::Statement s;
    switch (token().kind) {
      case T::kw_axis: s.what = axis(); break;
      case T::kw_param: s.what = param(); break;
      case T::kw_input: s.what = input(); break;
      case T::kw_let: s.what = let(); break;
      case T::name:
        if (is_word("context") && !(at_ + 1 < tokens_.size() && tokens_[at_ + 1].kind == T::assign)) {
          take();
          s.what = ast::Context{begin};
        } else {
          s.what = assign();
        }
        break;
      default: {
        auto& d = report_beginning("a statement");
        if (is(T::kw_fn))
          d.with_help("functions stand outside `attention` blocks");
        else if (is(T::kw_if))
          d.with_help("there is no `if` statement; write `score = a if condition else b`");
        else
          d.with_help(
              "statements are `axis`, `context`, `param`, `input`, `let` and assignments such as `mask = "
              "...`");
        take();
        throw Abandon{};
      }
    }
    s.range = source::join(begin, previous().range);
    a.statements.push_back(std::move(s));
    if (!is(T::end_of_file) && !is(T::right_brace) && !token().after_newline) {
      if (after_invalid()) throw Abandon{};
      auto& d = report_expected("the end of the line");
      if (is(T::comma)) d.with_help("statements are not separated by commas");
      if (is(T::assign)) d.with_help("`==` compares, `=` assigns");
      throw Abandon{};
    }
  }

  ast::Axis axis() {
    take();
    ast::Axis a;
    a.name = expect_name("the axis' name");
    if (!is_here(T::left_brace)) return a;
    const Token& open = take();
    ++brackets_;
    while (!is(T::right_brace)) {
      ast::Property p;
      p.name = expect_name("`window`, `dilation`, `stride` or `causal`");
      if (accept(T::assign)) p.value = expression();
      a.properties.push_back(std::move(p));
      if (!accept(T::comma) && !token().after_newline) break;
    }
    expect_close(T::right_brace, open);
    --brackets_;
    return a;
  }

  ast::Param param() {
    take();
    ast::Param p{};
    p.name = expect_name("the param's name");
    std::tie(p.type, p.type_range) = declared_type("int, float or bool");
    expect(T::assign);
    p.value = expression_after("=");
    p.learnable = accept_here(T::kw_learnable);
    return p;
  }

  ast::Input input() {
    take();
    ast::Input i{};
    i.name = expect_name("the input's name");
    std::tie(i.type, i.type_range) = declared_type("float[batch, tokens], say");
    if (is_here(T::left_bracket)) {
      const Token& open = take();
      ++brackets_;
      while (!is(T::right_bracket)) {
        i.dims.push_back(expression());
        if (!accept(T::comma)) break;
      }
      expect_close(T::right_bracket, open);
      --brackets_;
    }
    i.learnable = accept_here(T::kw_learnable);
    return i;
  }

  std::pair<std::string, Range> declared_type(std::string_view example) {
    if (!accept_here(T::colon)) {
      report_expected("`:` and a type").with_help(fmt::format("types are {}", example));
      throw Abandon{};
    }
    const ast::Identifier base = expect_name("a type");
    return {base.text, base.range};
  }

  ast::Let let() {
    take();
    ast::Let l;
    l.name = expect_name("a name");
    expect(T::assign);
    l.value = expression_after("=");
    return l;
  }

  ast::Assign assign() {
    const Token& target = take();
    ast::Assign a;
    a.target = {text(target), target.range};
    if (!is_here(T::assign)) {
      auto& d = report_expected("`=`");
      if (a.target.text == "return")
        d.with_help("assign the result: `score = ...` or `mask = ...`");
      else if (a.target.text == "for" || a.target.text == "while")
        d.with_help("there are no loops but `sum(i in a..b: ...)` and `any(i in a..b: ...)`");
      else if (is_here(T::name))
        d.with_help("names are introduced with `let`, `param`, `input` and `axis`");
      else if (is_here(T::colon))
        d.with_help("declare it with `param` or `input`");
      else if (is_here(T::equal))
        d.fix(token().range, "=");
      throw Abandon{};
    }
    take();
    a.value = expression_after("=");
    return a;
  }
};

}  // namespace

ast::File parse(const source::SourceMap& sources, std::uint32_t file, diagnostics::Sink& sink) {
  return Parser(sources, file, sink).run();
}

}  // namespace vicinal::syntax
