#include <fmt/format.h>

#include <charconv>
#include <cstdlib>

#include "compiler/ir/text.h"

namespace vicinal::ir {
namespace {

// Thrown inside this file only, for a line that does not read.
struct Malformed {
  std::string why;
};

class Parser {
 public:
  Result<Module> run(std::string_view text) {
    int number = 0;
    while (!text.empty()) {
      ++number;
      const std::size_t end = text.find('\n');
      split(text.substr(0, end));
      text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
      if (words_.empty()) continue;
      try {
        line();
        if (at_ != words_.size()) throw Malformed{fmt::format("unexpected `{}`", words_[at_])};
      } catch (const Malformed& m) {
        return unexpected(ErrorKind::usage, fmt::format("line {} of the IR: {}", number, m.why));
      }
    }
    try {
      resolve();
    } catch (const Malformed& m) {
      return unexpected(ErrorKind::usage, fmt::format("the IR: {}", m.why));
    }
    return std::move(module_);
  }

 private:
  void split(std::string_view line) {
    words_.clear();
    at_ = 0;
    for (std::size_t i = 0; i < line.size();) {
      const std::size_t begin = line.find_first_not_of(' ', i);
      if (begin == std::string_view::npos) break;
      i = std::min(line.find(' ', begin), line.size());
      words_.push_back(line.substr(begin, i - begin));
    }
  }

  bool more() const { return at_ < words_.size(); }
  std::string_view word() {
    if (!more()) throw Malformed{"the line ends too early"};
    return words_[at_++];
  }
  bool accept(std::string_view expected) { return more() && words_[at_] == expected ? ++at_, true : false; }

  template <class Int>
  static Int integer(std::string_view text) {
    Int value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      throw Malformed{fmt::format("`{}` is no integer", text)};
    return value;
  }

  NodeId reference() {
    const std::string_view text = word();
    if (text[0] != '%') throw Malformed{fmt::format("`{}` is no node", text)};
    return NodeId{integer<std::uint32_t>(text.substr(1))};
  }
  bool at_reference() const { return more() && words_[at_][0] == '%'; }

  Type type() {
    const std::string_view text = word();
    for (Type t : {Type::integer, Type::real, Type::boolean})
      if (name_of(t) == text) return t;
    throw Malformed{fmt::format("`{}` is no type", text)};
  }

  Value literal(Type t) {
    const std::string text(word());
    if (t == Type::integer) return int_value(integer<std::int32_t>(text));
    if (t == Type::boolean) return bool_value(text == "true");
    char* end = nullptr;
    const float value = std::strtof(text.c_str(), &end);
    if (*end != '\0') throw Malformed{fmt::format("`{}` is no number", text)};
    return real_value(value);
  }

  template <class List>
  static std::uint32_t find(const List& list, std::string_view name) {
    for (std::uint32_t i = 0; i < list.size(); ++i) {
      if constexpr (requires { list[i].name; }) {
        if (list[i].name == name) return i;
      } else if (list[i] == name) {
        return i;
      }
    }
    throw Malformed{fmt::format("`{}` is not declared", name)};
  }

  void line() {
    const std::string_view first = word();
    if (first[0] == '%') return node(first);
    if (first == "module")
      module_.name = word();
    else if (first == "context")
      module_.context = true;
    else if (first == "normalize")
      normalize(word());
    else if (first == "query_l2norm")
      module_.query_l2norm = true;
    else if (first == "key_l2norm")
      module_.key_l2norm = true;
    else if (first == "align_end")
      module_.align_end = true;
    else if (first == "axis")
      axis();
    else if (first == "param")
      param();
    else if (first == "extent")
      module_.extents.emplace_back(word());
    else if (first == "input")
      input();
    else if (first == "partial")
      partial();
    else
      module_.root(root_named(first)) = reference();
  }

  void normalize(std::string_view name) {
    for (Normalize n : {Normalize::softmax, Normalize::sigmoid, Normalize::none})
      if (name_of(n) == name) return void(module_.normalize = n);
    throw Malformed{fmt::format("`{}` is no normalization", name)};
  }

  void axis() {
    Axis a;
    a.name = word();
    if (accept("window")) a.window = reference();
    if (accept("dilation")) a.dilation = reference();
    if (accept("stride")) a.stride = reference();
    a.causal = accept("causal");
    module_.axes.push_back(std::move(a));
  }

  void param() {
    Param p{};
    p.name = word();
    p.type = type();
    p.value = literal(p.type);
    p.learnable = accept("learnable");
    p.dynamic = accept("dynamic");
    module_.params.push_back(std::move(p));
  }

  void input() {
    Input i{};
    i.name = word();
    i.type = type();
    while (at_reference()) i.dims.push_back(reference());
    i.learnable = accept("learnable");
    module_.inputs.push_back(std::move(i));
  }

  void partial() {
    const Root of = root_named(word());
    const NodeId leaf = reference();
    module_.partials.push_back({of, leaf, reference()});
  }

  static Root root_named(std::string_view name) {
    for (int r = 0; r < kRootCount; ++r)
      if (name_of(static_cast<Root>(r)) == name) return static_cast<Root>(r);
    throw Malformed{fmt::format("`{}` is no root and begins no line", name)};
  }

  void node(std::string_view label) {
    if (integer<std::uint32_t>(label.substr(1)) != module_.size())
      throw Malformed{"nodes are numbered in order"};
    if (word() != "=") throw Malformed{"expected `=`"};
    const std::string_view head = word();
    Node n{Constant{}, Type::integer, {}};
    bool apply = false;
    if (const OpInfo* op = find_op(head)) {
      n.what = Apply{op->op};
      n.type = op->result;
      apply = true;
    } else if (head == "load") {
      const std::uint32_t i = find(module_.inputs, word());
      n.what = Load{i};
      n.type = module_.inputs[i].type;
    } else if (head == "dot") {
      Dot d{};
      d.first = find(module_.inputs, word());
      d.second = find(module_.inputs, word());
      d.first_indices = integer<std::uint32_t>(word());
      n.what = d;
      n.type = Type::real;
    } else if (more() && !at_reference() && (head == "int" || head == "float" || head == "bool")) {
      --at_;
      const Type t = type();
      const NodeId id = module_.constant(t, literal(t));
      if (id.value + 1 != module_.size()) throw Malformed{"this constant stands twice"};
      return;
    } else {
      symbol(head, n);
    }
    std::vector<NodeId> operands;
    while (at_reference()) {
      operands.push_back(reference());
      if (operands.back().value >= module_.size()) throw Malformed{"operands stand before their users"};
    }
    if (operands.size() > 8) throw Malformed{"a node has at most eight operands"};
    n.operands = Operands(std::span<const NodeId>(operands));
    if (apply) check_apply(n);
    const std::size_t before = module_.size();
    module_.add(n);
    if (module_.size() == before) throw Malformed{"this node stands twice"};
  }

  void check_apply(const Node& n) const {
    const OpInfo& op = info(std::get<Apply>(n.what).op);
    if (static_cast<int>(n.operands.size()) != op.arity)
      throw Malformed{fmt::format("{} takes {} operands", op.name, op.arity)};
    for (int i = 0; i < op.arity; ++i)
      if (module_[n.operands[static_cast<std::size_t>(i)]].type != op.operands[i])
        throw Malformed{fmt::format("operand {} of {} must be {}", i + 1, op.name, name_of(op.operands[i]))};
  }

  void symbol(std::string_view head, Node& n) {
    Symbol s{SymbolKind::b, 0};
    if (head == "len")
      s = {SymbolKind::axis_length, find(module_.axes, word())};
    else if (head == "extent")
      s = {SymbolKind::named_extent, find(module_.extents, word())};
    else if (head == "param")
      s = {SymbolKind::param, find(module_.params, word())};
    else
      s = plain_symbol(head);
    n.what = s;
    n.type = s.kind == SymbolKind::param ? module_.params[s.index].type : info(s.kind).type;
  }

  Symbol plain_symbol(std::string_view head) const {
    for (const SymbolInfo& row : all_symbols())
      if (row.name == head) return {row.kind, 0};
    if (head.starts_with("q.")) return {SymbolKind::q_axis, find(module_.axes, head.substr(2))};
    if (head.starts_with("k.")) return {SymbolKind::k_axis, find(module_.axes, head.substr(2))};
    throw Malformed{fmt::format("`{}` is no operation and no symbol", head)};
  }

  // References from before the nodes are only known to be right at the end.
  void resolve() {
    bool complete = true;
    module_.for_each_use([&](NodeId& id) { complete = complete && id.value < module_.size(); });
    if (!complete) throw Malformed{"a node is used that is not there"};
  }

  Module module_;
  std::vector<std::string_view> words_;
  std::size_t at_ = 0;
};

}  // namespace

Result<Module> parse(std::string_view text) {
  return Parser().run(text);
}

}  // namespace vicinal::ir
