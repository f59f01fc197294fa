#include "cli/tiles/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/tiles/plan_picture.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

// 8256, 41.9 M
std::string rounded(double x) {
  if (x < 1e6) return fmt::format("{:.0f}", x);
  constexpr const char* kUnits[] = {"M", "G", "T", "P", "E", "Z"};
  std::size_t unit = 0;
  for (x /= 1e6; x >= 999.5 && unit + 1 < std::size(kUnits); x /= 1e3) ++unit;
  return fmt::format("{:.{}f} {}", x, x < 9.995 ? 2 : x < 99.95 ? 1 : 0, kUnits[unit]);
}

// A count, as an integer where it is one.
ordered_json counted(double x) {
  return x < 0x1p53 ? ordered_json(static_cast<std::int64_t>(x)) : ordered_json(x);
}
ordered_json counted(const std::optional<double>& x) {
  return x ? counted(*x) : ordered_json(nullptr);
}
ordered_json ratio(const std::optional<double>& x) {
  return x ? ordered_json(*x) : ordered_json(nullptr);
}

class Report {
 public:
  explicit Report(const ExplainedTiles& e) : e_(e), figures_(e.figures), plan_(e.plan) {}

  void print_text() const {
    const plan::TileShape& shape = e_.grid().shape();
    fmt::print("tiles of {} queries and {} keys, {}\n", fmt::join(shape.q, "x"), fmt::join(shape.k, "x"),
               choice());
    if (e_.transposed()) fmt::print("  transposed       a tile of keys visits tiles of queries\n");
    print_choices();
    print_figures();
    print_plan();
    print_slices();
  }

  void print_json() const {
    ordered_json json = {{"schema", "vicinal.explain.tiles.v2"},
                         {"owner", plan::name_of(e_.grid().owner())},
                         {"tile", shape(e_.grid().shape())},
                         {"chosen", !e_.shape_given},
                         {"alternatives", alternatives()},
                         {"rows", figures_.cost.rows},
                         {"context_rows", context_rows()},
                         {"tiles",
                          {{"all", figures_.cost.dense},
                           {"visited", figures_.cost.visited},
                           {"full", figures_.cost.full},
                           {"partial", figures_.cost.partial()},
                           {"skipped", figures_.cost.skipped()}}},
                         {"scores",
                          {{"computed", counted(figures_.cost.computed())},
                           {"useful", counted(figures_.cost.useful)},
                           {"waste", ratio(figures_.cost.waste())}}},
                         {"speedup_bound", ratio(figures_.cost.speedup_bound())},
                         {"block_sparse_axes", block_sparse_axes()},
                         {"plan",
                          {{"kind", plan_.listed() ? "list" : "formula"},
                           {"runs", plan_.runs().size()},
                           {"bytes", plan_.bytes()},
                           {"depends_on_data", plan_.depends_on_data()},
                           {"inputs", e_.inputs},
                           {"ms", e_.ms}}},
                         {"slices",
                          {{"count", plan_.slices().count()},
                           {"batches", plan_.slices().batches},
                           {"heads", plan_.slices().heads},
                           {"heads_per_slice", plan_.slices().heads_per_slice}}},
                         {"batch", e_.batch},
                         {"head", e_.head}};
    if (!e_.transposed())
      json["forward_flops"] = {{"computed", counted(figures_.flops())},
                               {"useful", counted(figures_.useful_flops())}};
    if (e_.draws_row()) json["row"] = row();
    fmt::print("{}\n", json.dump(2));
  }

 private:
  // Text.

  std::string choice() const {
    if (e_.shape_given) return "as asked";
    if (e_.choices.empty()) return "the default";
    return fmt::format("the cheapest of all with {} and {}{}", e_.grid().shape().queries(),
                       e_.grid().shape().keys(),
                       plan_.listed() ? ", not counting what the mask leaves out" : "");
  }

  void print_choices() const {
    std::string text;
    for (std::size_t i = 1; i < e_.choices.size(); ++i)
      text += fmt::format("{}{} ({:+.1f}%)", i == 1 ? "" : ", ", plan::print(e_.choices[i].shape),
                          100 * extra_cost(i));
    if (!text.empty()) fmt::print("  next best        {}\n", text);
  }

  void print_figures() const {
    const Figures& f = figures_;
    const auto label = [](plan::Side side) { return fmt::format("tiles of {}", plan::name_of(side)); };
    std::string context;
    if (context_rows() > 0) context = fmt::format(", {} of them of the context", context_rows());
    fmt::print("  {:<16} {}{}\n", label(e_.grid().owner()), f.cost.rows, context);
    fmt::print("  {:<16} {} visited of {}: {} full, {} partial; {} skipped\n", label(e_.grid().visited()),
               f.cost.visited, f.cost.dense, f.cost.full, f.cost.partial(), f.cost.skipped());
    std::string useful = "; too many to count the useful ones";
    if (f.cost.useful) useful = fmt::format(", {} useful", rounded(*f.cost.useful));
    if (f.cost.waste()) useful += fmt::format(": {:.2f} times what is needed", *f.cost.waste());
    fmt::print("  scores           {} computed{}\n", rounded(f.cost.computed()), useful);
    print_forward();
    if (f.cost.speedup_bound())
      fmt::print("  speed-up         {:.2f} at most over dense attention in tiles of this size\n",
                 *f.cost.speedup_bound());
    if (const auto axes = block_sparse_axes(); !axes.empty())
      fmt::print("  block-sparse     along {}: no window is cut by a tile\n", fmt::join(axes, ", "));
  }

  void print_forward() const {
    if (e_.transposed()) {
      fmt::print("  forward          not told: its rows are tiles of queries\n");
      return;
    }
    const std::optional<double> useful = figures_.useful_flops();
    fmt::print("  forward          {} computed{}, all batches and heads\n", flop(figures_.flops()),
               useful ? fmt::format(", {} useful", flop(*useful)) : "");
  }
  static std::string flop(double x) { return rounded(x) + (x < 1e6 ? " FLOP" : "FLOP"); }

  void print_plan() const {
    std::string text = "a formula, nothing is stored";
    if (plan_.listed()) text = fmt::format("a list of {} runs, {} bytes", plan_.runs().size(), plan_.bytes());
    fmt::print("  plan             {}; made in {:.2f} ms\n", text, e_.ms);
    if (!e_.inputs.empty())
      fmt::print("                   reads {}: to be made again when {}\n", fmt::join(e_.inputs, ", "),
                 e_.inputs.size() == 1 ? "it changes" : "they change");
  }

  void print_slices() const {
    const plan::Slices& s = plan_.slices();
    if (s.count() <= 1) {
      fmt::print("  slices           one for all batches and heads\n");
      return;
    }
    std::string each;
    if (s.batches > 1) each = fmt::format("each of {} batches", s.batches);
    if (s.heads > 1)
      each += fmt::format("{}each of {} {}", each.empty() ? "" : " and ", s.heads,
                          s.heads_per_slice == 1 ? "heads" : "groups of heads");
    fmt::print("  slices           {}, one for {}; the figures are their sums\n", s.count(), each);
  }

  // Both.

  std::int64_t context_rows() const {
    if (figures_.cost.rows == 0) return 0;
    return plan_.slices().count() * (e_.grid().rows() - e_.grid().grid_rows());
  }

  // Along these the neighborhoods ask for no mask.
  std::vector<std::string> block_sparse_axes() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < e_.module.axes.size() && !e_.empty(); ++i)
      if (plan::block_sparse(e_.grid(), i)) names.push_back(e_.module.axes[i].name);
    return names;
  }

  // What a choice costs more than the best, as a share of it.
  double extra_cost(std::size_t i) const {
    const double best = e_.choices[0].weight;
    return best == 0 ? 0 : e_.choices[i].weight / best - 1;
  }

  // JSON.

  static ordered_json shape(const plan::TileShape& s) {
    return {{"text", plan::print(s)}, {"queries", s.q}, {"keys", s.k}};
  }

  ordered_json alternatives() const {
    ordered_json all = ordered_json::array();
    for (std::size_t i = 1; i < e_.choices.size(); ++i)
      all.push_back({{"tile", shape(e_.choices[i].shape)},
                     {"visited", e_.choices[i].cost.visited},
                     {"full", e_.choices[i].cost.full},
                     {"computed_scores", counted(e_.choices[i].cost.computed())},
                     {"extra_cost", extra_cost(i)}});
    return all;
  }

  ordered_json row() const {
    const RowPicture picture(plan_, e_.slice(), e_.row);
    ordered_json tokens = ordered_json::array();
    for (std::size_t i = 0; i < e_.module.axes.size(); ++i)
      tokens.push_back({{"axis", e_.module.axes[i].name},
                        {"first", picture.row().tokens[i].first},
                        {"count", picture.row().tokens[i].count},
                        {"step", e_.grid().axis(i).dilation}});
    return {{"number", e_.row},
            {"tokens", tokens},
            {"visited", picture.full() + picture.partial()},
            {"full", picture.full()}};
  }

  const ExplainedTiles& e_;
  const Figures& figures_;
  const plan::TilePlan& plan_;
};

}  // namespace

void print_tile_report(const ExplainedTiles& explained) {
  Report(explained).print_text();
}

void print_tile_json(const ExplainedTiles& explained) {
  Report(explained).print_json();
}

}  // namespace vicinal::cli
