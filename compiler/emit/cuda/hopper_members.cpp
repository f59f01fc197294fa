#include "compiler/emit/cuda/hopper_members.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "compiler/emit/cuda/expression.h"
#include "compiler/ir/reachable.h"

namespace vicinal::emit {
namespace {

using ir::NodeId;
using ir::Root;

constexpr std::string_view kHead = Declarations::kHead;

// A function of one of the signatures that all kernels of this kind share.
std::string function(std::string_view type, std::string_view name, std::string_view parameters,
                     const std::string& body) {
  return fmt::format("{}{} {}(const Arguments& a, const Query& q{}) {{\n{}  }}\n", kHead, type, name,
                     parameters, body);
}

bool dilates(const ir::Module& module) {
  return std::ranges::any_of(module.axes, [&](const ir::Axis& axis) {
    return axis.dilation.valid() && module.constant_value(axis.dilation)->i != 1;
  });
}

// Whether keys side by side have positions side by side: only then do slopes and limits mean a thing to a
// tile's columns.
bool sequence(const ir::Module& module) {
  return module.axes.size() <= 1 && !dilates(module);
}

}  // namespace

HopperMembers::Side::Side(passes::ScoreForm split, bool context, std::string name)
    : prefix(std::move(name)), form(std::move(split)) {
  bounds = analysis::bound_indices(form.module, context);
  const NodeId mask = form.module.root(Root::mask);
  if (!context && sequence(form.module))
    limits = analysis::row_limits(form.module);
  else if (has_mask(form.module))
    limits.rest = {mask};
  if (has_core()) {
    const NodeId roots[] = {core()};
    analysis::Placement placement = analysis::place(form.module, roots, !context);
    score_rows = std::move(placement.rows);
    score_columns = std::move(placement.columns);
  }
  analysis::Placement placement = analysis::place(form.module, limits.rest, !context);
  mask_rows = std::move(placement.rows);
  mask_columns = std::move(placement.columns);
}

HopperMembers::HopperMembers(const Specialized& variant, const KernelOptions& options)
    : HopperMembers(score_forms(
          variant, options.head_dim,
          sequence(variant.declarations()) ? passes::Distances::slope : passes::Distances::core)) {}

HopperMembers::HopperMembers(ScoreForms forms) : grid_(std::move(forms.grid), false, "g") {
  if (forms.context) context_.emplace(*std::move(forms.context), true, "c");
}

std::vector<HopperMembers::Group> HopperMembers::rows() const {
  std::vector<Group> groups;
  for (const Side* side : {&grid_, context_ ? &*context_ : nullptr}) {
    if (side == nullptr) continue;
    groups.push_back({side, &side->score_rows, side->prefix + "s", false});
    groups.push_back({side, &side->mask_rows, side->prefix + "m", true});
  }
  return groups;
}

// Those of context keys are few and computed where they are used.
std::vector<HopperMembers::Group> HopperMembers::columns() const {
  return {{&grid_, &grid_.score_columns, grid_.prefix + "s", false},
          {&grid_, &grid_.mask_columns, grid_.prefix + "m", true}};
}

std::optional<passes::TanhGain> HopperMembers::gain() const {
  return context_ ? std::nullopt : passes::tanh_gain(grid_.form);
}

bool HopperMembers::factor_varies() const {
  const NodeId factor = grid_.form.factor;
  return factor.valid() && ir::variance(grid_.form.module)[factor.value] != ir::kLaunch;
}

bool HopperMembers::dilated() const {
  return dilates(grid_.form.module);
}

bool HopperMembers::limited() const {
  return grid_.has_limits() || std::ranges::any_of(grid_.form.module.axes, [](const ir::Axis& axis) {
           return axis.window.valid() || axis.causal;
         });
}

bool HopperMembers::windowed() const {
  return (!grid_.limits.begins.empty() && !grid_.limits.ends.empty()) ||
         std::ranges::any_of(grid_.form.module.axes,
                             [](const ir::Axis& axis) { return axis.window.valid(); });
}

bool HopperMembers::strided() const {
  const ir::Module& module = grid_.form.module;
  return std::ranges::any_of(module.axes, [&](const ir::Axis& axis) {
    if (!axis.stride.valid()) return false;
    const auto value = module.constant_value(axis.stride);
    return !value || value->i != 1;
  });
}

bool HopperMembers::causal() const {
  return std::ranges::any_of(grid_.form.module.axes, &ir::Axis::causal);
}

int HopperMembers::window_keys() const {
  const ir::Module& module = grid_.form.module;
  std::int64_t keys = 1;
  for (const ir::Axis& axis : module.axes) {
    const auto value = axis.window.valid() ? module.constant_value(axis.window) : std::nullopt;
    keys *= value ? value->i : 0;
    if (keys > std::numeric_limits<int>::max()) return 0;
  }
  return module.axes.empty() ? 0 : static_cast<int>(keys);
}

int HopperMembers::row_bytes() const {
  return bytes(rows());
}

int HopperMembers::column_bytes() const {
  return bytes(columns());
}

int HopperMembers::bytes(const std::vector<Group>& groups) {
  int words = 0, bools = 0;
  for (const Group& group : groups)
    for (const NodeId id : *group.nodes)
      ++(group.side->form.module[id].type == ir::Type::boolean ? bools : words);
  return words == 0 ? bools : 4 * words + (bools + 3) / 4 * 4;
}

namespace {

// What is done for an element, from the roots down to what a row or column has kept.
struct ElementWork {
  int operations = 0;  // in instructions, roughly
  bool loads = false, loops = false;
};
int instructions(ir::Op op) {
  using ir::Op;
  if (ir::info(op).transcendental) return 15;
  if (op == Op::floordiv_i || op == Op::floormod_i) return 25;
  return op == Op::div_f || op == Op::floordiv_f || op == Op::floormod_f ? 10 : 1;
}
ElementWork element_work(const ir::Module& module, std::span<const NodeId> roots, bool keeps_columns) {
  const analysis::Placement placement = analysis::place(module, roots, keeps_columns);
  std::vector<bool> reached(module.size());
  for (const NodeId id : roots) reached[id.value] = true;
  ElementWork work;
  for (std::size_t n = reached.size(); n-- > 0;) {
    if (!reached[n] || placement.place[n] != analysis::Place::element) continue;
    const ir::Node& node = module.nodes()[n];
    if (const auto* apply = std::get_if<ir::Apply>(&node.what)) work.operations += instructions(apply->op);
    work.loops = work.loops || std::holds_alternative<ir::Dot>(node.what);
    work.loads = work.loads || std::holds_alternative<ir::Load>(node.what);
    for (const NodeId id : node.operands) reached[id.value] = true;
  }
  return work;
}

}  // namespace

bool HopperMembers::simple_keeps() const {
  const ElementWork work = element_work(grid_.form.module, grid_.limits.rest, true);
  return work.operations <= 8 && !work.loads && !work.loops;
}

bool HopperMembers::transcendental_mask() const {
  const auto found = [](const Side& side) {
    const ir::Module& m = side.form.module;
    const NodeId mask = m.root(Root::mask);
    if (!mask.valid()) return false;
    const std::vector<bool> reached = ir::reachable(m, mask);
    for (std::size_t n = 0; n < reached.size(); ++n) {
      const auto* apply = std::get_if<ir::Apply>(&m.nodes()[n].what);
      if (reached[n] && apply != nullptr && ir::info(apply->op).transcendental) return true;
    }
    return false;
  };
  return found(grid_) || (context_ && found(*context_));
}

bool HopperMembers::costly_scores() const {
  const auto costly = [](const Side& side, bool keeps_columns) {
    if (!side.has_core()) return false;
    const NodeId roots[] = {side.core()};
    const ElementWork work = element_work(side.form.module, roots, keeps_columns);
    return work.loops || work.operations > 40;
  };
  return costly(grid_, true) || (context_ && costly(*context_, false));
}

std::string HopperMembers::text(const Names& names) const {
  // Numbers before bools, so that a struct has no holes.
  const auto members = [](const std::vector<Group>& groups) {
    std::string numbers, bools;
    for (const Group& group : groups)
      for (std::size_t i = 0; i < group.nodes->size(); ++i) {
        const ir::Type type = group.side->form.module[(*group.nodes)[i]].type;
        (type == ir::Type::boolean ? bools : numbers) +=
            fmt::format("    {} {}{};\n", cuda_type(type), group.prefix, i);
      }
    return numbers + bools;
  };
  const auto fill = [&](const std::vector<Group>& groups, std::string_view object) {
    std::string body;
    for (const Group& group : groups) {
      if (group.nodes->empty()) continue;
      std::vector<Printer::Result> results;
      for (std::size_t i = 0; i < group.nodes->size(); ++i)
        results.push_back({(*group.nodes)[i], fmt::format("{}.{}{} = ", object, group.prefix, i)});
      body += "    {\n" +
              function_body(group.side->form.module, results, {}, group.side->bounds, names, group.exact, 6) +
              "    }\n";
    }
    return body;
  };
  const Side& g = grid_;
  const auto value = [&](NodeId id, std::string_view otherwise) {
    return id.valid() ? function_body(g.form.module, id, g.bounds, names, false, 4)
                      : fmt::format("    return {};\n", otherwise);
  };
  const auto flag = Declarations::flag;

  std::string out =
      "\n  struct Row {\n" + members(rows()) + "  };\n  struct Column {\n" + members(columns()) + "  };\n";
  out += flag("has_core", g.has_core()) + flag("has_slope", g.form.slope.valid()) +
         flag("has_shift", g.form.shift.valid()) + flag("has_limits", g.has_limits()) +
         flag("has_keeps", !g.limits.rest.empty()) +
         flag("has_context_keeps", context_ && !context_->limits.rest.empty()) +
         flag("simple_keeps", simple_keeps()) + flag("has_columns", column_bytes() != 0) +
         flag("dilated", dilated()) + flag("has_score_columns", !grid_.score_columns.empty()) +
         flag("has_gain", gain().has_value());
  out += function("float", "factor", "", value(g.form.factor, "1.0f"));
  out += function("float", "slope", "", value(g.form.slope, "0.0f"));
  out += function("float", "shift", "", value(g.form.shift, "0.0f"));

  const passes::TanhGain tanh = gain().value_or(passes::TanhGain{});
  out += fmt::format("  static constexpr float gentle = {};\n", literal(tanh.limit));
  std::string terms = literal(tanh.terms.back());
  for (std::size_t i = tanh.terms.size() - 1; i-- > 0;)
    terms = fmt::format("fmaf({}, square, {})", terms, literal(tanh.terms[i]));
  out += fmt::format("{}float gain(float square) {{\n    return {};\n  }}\n", kHead, gain() ? terms : "0.0f");

  // Sums of a row in 64 bits, cut to what a position can be.
  std::string limits = "    vicinal::hopper::WideLimits limits;\n";
  const auto sum = [&](const analysis::RowSum& s, std::string_view call) {
    std::vector<Printer::Result> results;
    std::string text;
    for (const analysis::RowSum::Term& term : s.terms) {
      results.push_back({term.value, fmt::format("const vicinal::i64 t{} = ", results.size())});
      text += fmt::format("{}t{}",
                          text.empty() ? (term.minus ? "-" : "")
                          : term.minus ? " - "
                                       : " + ",
                          results.size() - 1);
    }
    if (text.empty() || s.constant != 0)
      text += fmt::format("{}{}",
                          text.empty()     ? ""
                          : s.constant < 0 ? " - "
                                           : " + ",
                          text.empty() ? s.constant : std::abs(s.constant));
    limits += "    {\n" + function_body(g.form.module, results, {}, g.bounds, names, true, 6) +
              fmt::format("      limits.{}({});\n    }}\n", call, text);
  };
  for (const analysis::RowSum& s : g.limits.begins) sum(s, "from");
  for (const analysis::RowSum& s : g.limits.ends) sum(s, "before");
  for (const NodeId id : g.limits.conditions) {
    const Printer::Result result{id, "const bool holds = "};
    limits += "    {\n" + function_body(g.form.module, std::span(&result, 1), {}, g.bounds, names, true, 6) +
              "      limits.only_if(holds);\n    }\n";
  }
  out += function("vicinal::hopper::KeyLimits", "limits", "", limits + "    return limits.narrow();\n");

  out += function("Row", "row", "", "    Row row;\n" + fill(rows(), "row") + "    return row;\n");
  out += function("Column", "column", ", const Key& k",
                  "    Column column;\n" + fill(columns(), "column") + "    return column;\n");

  // Of an element, from what is known of its row and its column.
  const auto element = [&](const Side& side, std::span<const NodeId> roots, bool score) {
    std::vector<KnownValue> known;
    const auto know = [&](const std::vector<Group>& groups, std::string_view object) {
      for (const Group& group : groups)
        if (group.side == &side && group.exact == !score)
          for (std::size_t i = 0; i < group.nodes->size(); ++i)
            known.push_back({(*group.nodes)[i], fmt::format("{}.{}{}", object, group.prefix, i)});
    };
    know(rows(), "row");
    know(columns(), "column");
    if (score) {
      const Printer::Result result{roots[0], "return "};
      return function_body(side.form.module, std::span(&result, 1), known, side.bounds, names, false, 6);
    }
    std::vector<Printer::Result> results;
    std::string all;
    for (std::size_t i = 0; i < roots.size(); ++i) {
      results.push_back({roots[i], fmt::format("const bool keeps{} = ", i)});
      all += fmt::format("{}keeps{}", i == 0 ? "" : " && ", i);
    }
    return function_body(side.form.module, results, known, side.bounds, names, true, 6) +
           fmt::format("      return {};\n", roots.empty() ? "true" : all);
  };
  const auto pair = [&](std::string_view type, std::string_view name, std::string_view parameters,
                        bool score) {
    const auto body = [&](const Side& side) {
      const NodeId core[] = {side.core()};
      if (score) return side.has_core() ? element(side, core, true) : std::string("      return score;\n");
      return element(side, side.limits.rest, false);
    };
    std::string text = fmt::format(
        "\n  template <bool Context>\n  static VICINAL_DEVICE {} {}(const Arguments& a, const Row& row, "
        "const Column& column, const Key& k{}) {{\n    ",
        type, name, parameters);
    if (context_) text += "if constexpr (Context) {\n" + body(*context_) + "    } else ";
    return text + "{\n" + body(grid_) + "    }\n  }\n";
  };
  out += pair("float", "core", ", float score", true);
  out += pair("bool", "keeps", "", false);
  return out;
}

}  // namespace vicinal::emit
