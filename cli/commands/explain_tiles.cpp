#include "cli/commands/explain_tiles.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include <nlohmann/json.hpp>

#include "cli/captured_inputs.h"
#include "cli/tile_picture.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "runtime/plan/tile_cost.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

// What a kernel of ours takes where it may choose.
constexpr std::int64_t kQueries = 64, kKeys = 64;

// A planner passes over a billion tiles a second where masks are regular; of a sequence, whose rows it looks
// at together, it is the rows that take time, each as much as two thousand tiles.
constexpr std::int64_t kMaxTiles = std::int64_t{1} << 33, kTilesPerRow = 2048;

// Planning asks for the shapes of q, k and v and for none of their elements: a problem without a batch, which
// costs nothing to make, is given its batches afterwards.
class Outline {
 public:
  Outline(const Spec& spec, const ProblemOptions& options) : spec_(spec), options_(options) {}

  Result<HostProblem> make() {
    if (!options_.q.empty() || !options_.k.empty() || !options_.v.empty())
      return make_problem(spec_, options_);
    ProblemOptions without = options_;
    without.inputs.clear();
    without.shape = shape_without_batch();
    Result<HostProblem> made = make_problem(spec_, without);
    // A small problem whose shape is left to the command has a shape of its own.
    if (!made || (options_.shape.empty() && made->q.tokens() <= 2048)) return make_problem(spec_, options_);
    HostProblem& p = *made;
    for (HostTensor* t : {&p.q, &p.k, &p.v, &p.context_k, &p.context_v}) give_batch(*t);
    // Every input was made up for no batch, each with a note.
    p.notes.resize(options_.shape.empty() ? 0 : p.notes.size() - p.inputs.size());
    p.inputs.clear();
    VICINAL_TRY_VOID(capture_inputs(spec_, options_, p));
    VICINAL_TRY_VOID(make_up_inputs(spec_, options_, p));
    return made;
  }

 private:
  std::string shape_without_batch() {
    if (options_.shape.empty()) return "batch=0,kv_heads=1";
    std::string shape = "batch=0";
    bool given = false;
    for (const std::string& part : CLI::detail::split(options_.shape, ',')) {
      if (!given && is_batch(part))
        given = true;
      else
        shape += "," + part;
    }
    return shape;
  }

  // What is no number, or given twice, is left for the shape's reader to find.
  bool is_batch(std::string_view part) {
    constexpr std::string_view kName = "batch=";
    if (!part.starts_with(kName)) return false;
    const char *first = part.data() + kName.size(), *last = part.data() + part.size();
    const auto [end, error] = std::from_chars(first, last, batch_);
    return error == std::errc() && end == last && batch_ >= 0;
  }

  void give_batch(HostTensor& t) const {
    if (t.view.shape.empty()) return;
    t.view.shape[0] = batch_;
    t.view.strides.assign(t.view.shape.size(), 0);
    t.bytes.resize(8);  // one element stands for all
    t.view.data = t.bytes.data();
  }

  const Spec& spec_;
  const ProblemOptions& options_;
  std::int64_t batch_ = 1;
};

Result<runtime::Problem> bound_to(const Kernel& kernel, HostProblem& problem) {
  RunArguments arguments = problem.arguments(nullptr, nullptr);
  arguments.out = arguments.q;  // nothing is written
  arguments.out.shape.back() = problem.value_dim;
  return kernel.impl().bind(arguments);
}

// A plan's cost, and over how many batches and heads each of its slices is repeated.
struct Figures {
  plan::TileCost cost;
  double copies = 0;
  std::int64_t head_dim = 0, value_dim = 0;

  double flops() const { return copies * plan::forward_flops(cost.computed(), head_dim, value_dim); }
  std::optional<double> useful_flops() const {
    if (!cost.useful) return std::nullopt;
    return copies * plan::forward_flops(*cost.useful, head_dim, value_dim);
  }
};

Figures figures_of(const plan::TilePlan& plan, const plan::Masks& masks) {
  const runtime::Problem& p = plan.grid().problem();
  Figures f;
  f.head_dim = p.head_dim;
  f.value_dim = p.value_dim;
  if (p.batch * p.heads == 0) return f;
  f.copies = static_cast<double>(p.batch * p.heads) / static_cast<double>(plan.slices().count());
  f.cost = plan::plan_cost(plan, masks, {.threads = host::default_threads()});
  return f;
}

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

// What was asked and what came of it.
struct Explained {
  const TilesOptions& options;
  const ir::Module& module;
  const plan::TilePlan& plan;
  const Figures& figures;
  const std::vector<plan::ShapeChoice>& choices;  // best first; none where nothing was to be chosen
  std::vector<std::string> inputs;                // that the plan is made of
  std::int64_t row = 0;                           // to draw, with two axes or more
  double ms = 0;

  const plan::TileGrid& grid() const { return plan.grid(); }
  const runtime::Problem& problem() const { return grid().problem(); }
  std::int64_t slice() const { return plan.slices().of(options.batch, options.head); }
  bool empty() const { return problem().rows() == 0 || problem().local_keys() + problem().context == 0; }
  bool draws_row() const { return grid().rank() > 1 && !empty(); }
};

class Report {
 public:
  explicit Report(const Explained& e) : e_(e), figures_(e.figures), plan_(e.plan) {}

  void print_text() const {
    const plan::TileShape& shape = e_.grid().shape();
    fmt::print("tiles of {} queries and {} keys, {}\n", fmt::join(shape.q, "x"), fmt::join(shape.k, "x"),
               choice());
    print_choices();
    print_figures();
    print_plan();
    print_slices();
  }

  void print_json() const {
    ordered_json json = {
        {"schema", "vicinal.explain.tiles.v1"},
        {"tile", shape(e_.grid().shape())},
        {"chosen", e_.options.tile.empty()},
        {"alternatives", alternatives()},
        {"query_tiles", figures_.cost.rows},
        {"key_tiles",
         {{"all", figures_.cost.dense},
          {"visited", figures_.cost.visited},
          {"full", figures_.cost.full},
          {"partial", figures_.cost.partial()},
          {"skipped", figures_.cost.skipped()}}},
        {"scores",
         {{"computed", counted(figures_.cost.computed())},
          {"useful", counted(figures_.cost.useful)},
          {"waste", ratio(figures_.cost.waste())}}},
        {"forward_flops",
         {{"computed", counted(figures_.flops())}, {"useful", counted(figures_.useful_flops())}}},
        {"speedup_bound", ratio(figures_.cost.speedup_bound())},
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
        {"batch", e_.options.batch},
        {"head", e_.options.head}};
    if (e_.draws_row()) json["row"] = row();
    fmt::print("{}\n", json.dump(2));
  }

 private:
  // Text.

  std::string choice() const {
    if (!e_.options.tile.empty()) return "as asked";
    if (e_.choices.empty()) return "the default";
    return fmt::format("the cheapest of all with {} and {}{}", kQueries, kKeys,
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
    fmt::print("  tiles of queries {}\n", f.cost.rows);
    fmt::print("  tiles of keys    {} visited of {}: {} full, {} partial; {} skipped\n", f.cost.visited,
               f.cost.dense, f.cost.full, f.cost.partial(), f.cost.skipped());
    std::string useful = "; too many to count the useful ones";
    if (f.cost.useful) useful = fmt::format(", {} useful", rounded(*f.cost.useful));
    if (f.cost.waste()) useful += fmt::format(": {:.2f} times what is needed", *f.cost.waste());
    fmt::print("  scores           {} computed{}\n", rounded(f.cost.computed()), useful);
    fmt::print("  forward          {} computed{}, all batches and heads\n", flop(f.flops()),
               f.cost.useful ? fmt::format(", {} useful", flop(*f.useful_flops())) : "");
    if (f.cost.speedup_bound())
      fmt::print("  speed-up         {:.2f} at most over dense attention in tiles of this size\n",
                 *f.cost.speedup_bound());
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
    ordered_json queries = ordered_json::array();
    for (std::size_t i = 0; i < e_.module.axes.size(); ++i)
      queries.push_back({{"axis", e_.module.axes[i].name},
                         {"first", picture.row().tokens[i].first},
                         {"count", picture.row().tokens[i].count},
                         {"step", e_.grid().axis(i).dilation}});
    return {{"number", e_.row},
            {"queries", queries},
            {"visited", picture.full() + picture.partial()},
            {"full", picture.full()}};
  }

  const Explained& e_;
  const Figures& figures_;
  const plan::TilePlan& plan_;
};

// On the terminal and for a file: all tiles of a sequence, one row of them where there are more axes.
class Pictures {
 public:
  explicit Pictures(const Explained& e) : e_(e), grid_(e.grid()) {
    if (e.draws_row()) row_.emplace(e.plan, e.slice(), e.row);
  }

  void print() const {
    if (e_.empty()) return;
    fmt::print("batch {}, head {}", e_.options.batch, e_.options.head);
    if (row_)
      print_row();
    else
      print_all(picture_of(e_.plan, e_.slice(), kTerminal));
  }

  std::vector<TilePicture> sheet() const {
    if (row_) return sheet_of_row();
    std::vector<TilePicture> sheet;
    if (!e_.empty()) sheet.push_back(picture_of(e_.plan, e_.slice(), kPng));
    return sheet;
  }

 private:
  void print_all(const TilePicture& picture) const {
    const bool sequence = e_.module.axes.empty();
    std::string cells;
    if (!picture.exact())
      cells =
          fmt::format(", {} x {} {} a cell", picture.down(), picture.across(), sequence ? "tiles" : "tokens");
    const std::string text = terminal_text(picture);
    fmt::print(
        ": {}{}\n{}{}",
        sequence ? "tiles of queries down, tiles of keys across" : "queries down, tile by tile; keys across",
        cells, text, legend(text));
  }

  void print_row() const {
    std::string queries;
    for (std::size_t i = 0; i < grid_.rank(); ++i)
      queries += (i == 0 ? "" : ", ") + tokens(i, row_->row().tokens[i]);
    fmt::print(", tile of queries {}, {}: {}\n", e_.row,
               e_.options.query.empty() ? "the middle one" : "which holds that query", queries);
    print_planes();
  }

  // "y 4 to 7", "y 4 to 10 by 2"
  std::string tokens(std::size_t axis, const Stretch& s) const {
    const int step = grid_.axis(axis).dilation;
    std::string text = fmt::format("{} {}", e_.module.axes[axis].name, s.first);
    if (s.count > 1) text += fmt::format(" to {}", s.first + (s.count - 1) * step);
    if (s.count > 1 && step > 1) text += fmt::format(" by {}", step);
    return text;
  }

  // The whole axis, or what the row reaches of it and a margin.
  Interval frame(std::size_t axis, std::int64_t most, std::int64_t margin) const {
    const std::int64_t extent = grid_.problem().k_axis[axis].local;
    if (extent <= most) return {0, extent};
    const Interval& reach = row_->reach()[axis];
    return {std::max<std::int64_t>(0, reach.low - margin), std::min(extent, reach.high + margin)};
  }

  // Coordinates of the axes before the last two, in order; every so many of them where they are too many.
  using Coordinates = std::vector<std::int64_t>;
  static std::vector<Coordinates> leading(const std::vector<Interval>& box, std::size_t most) {
    std::int64_t count = 1;
    for (const Interval& i : box) count *= i.high - i.low;
    const std::int64_t step = (count + static_cast<std::int64_t>(most) - 1) / static_cast<std::int64_t>(most);
    std::vector<Coordinates> result;
    for (std::int64_t n = 0; n < count; n += step) {
      Coordinates at(box.size());
      std::int64_t rest = n;
      for (std::size_t i = box.size(); i-- > 0; rest /= box[i].high - box[i].low)
        at[i] = box[i].low + rest % (box[i].high - box[i].low);
      result.push_back(std::move(at));
    }
    return result;
  }

  // "t 4 to 7, 9", "u, t 0 3 to 0 5"
  std::string caption(const std::vector<Coordinates>& all, const std::vector<std::size_t>& places) const {
    std::string text;
    for (std::size_t i = 0; i < all[0].size(); ++i) text += (i == 0 ? "" : ", ") + e_.module.axes[i].name;
    for (std::size_t i = 0; i < places.size();) {
      const std::size_t first = places[i];
      while (++i < places.size() && places[i] == places[i - 1] + 1) continue;
      text += fmt::format("{} {}", first == places[0] ? "" : ",", fmt::join(all[first], " "));
      if (places[i - 1] != first) text += fmt::format(" to {}", fmt::join(all[places[i - 1]], " "));
    }
    return text;
  }

  void print_planes() const {
    const std::size_t y = grid_.rank() - 2, x = grid_.rank() - 1;
    const std::int64_t most = y == 0 ? kTerminal : kTerminal / 2;  // several planes are long enough
    const Interval down = frame(y, most, 1), across = frame(x, most, 1);
    const std::vector<Interval> before(row_->reach().begin(), row_->reach().end() - 2);
    const std::vector<Coordinates> all = leading(before, kMaxPlanes);
    fmt::print("{} {} to {} down, {} {} to {} across\n", e_.module.axes[y].name, down.low, down.high - 1,
               e_.module.axes[x].name, across.low, across.high - 1);
    std::vector<std::pair<std::string, std::vector<std::size_t>>> planes;  // text, and which look like it
    for (std::size_t i = 0; i < all.size(); ++i) {
      const TilePicture picture = row_->plane(all[i], down, across, kTerminal);
      if (picture.blank()) continue;
      std::string text = terminal_text(picture);
      auto same = std::ranges::find(planes, text, [](const auto& plane) { return plane.first; });
      if (same == planes.end()) same = planes.insert(same, {std::move(text), {}});
      same->second.push_back(i);
    }
    std::string shown;
    for (const auto& [text, places] : planes)
      shown += fmt::format("{}{}", before.empty() ? "" : caption(all, places) + "\n", text);
    if (const std::int64_t context = grid_.problem().context; context > 0)
      shown += fmt::format("context\n{}", terminal_text(row_->context(context, kTerminal)));
    fmt::print("{}{}", shown, legend(shown));
  }

  std::vector<TilePicture> sheet_of_row() const {
    const auto margin = [&](std::size_t axis) {
      return (row_->reach()[axis].high - row_->reach()[axis].low) / 2;
    };
    const std::size_t y = grid_.rank() - 2, x = grid_.rank() - 1;
    const Interval down = frame(y, 128, margin(y)), across = frame(x, 128, margin(x));
    std::vector<Interval> before;
    for (std::size_t i = 0; i < y; ++i) before.push_back(frame(i, kMaxPlanes, 0));
    std::vector<TilePicture> sheet;
    for (const Coordinates& at : leading(before, kMaxPlanes))
      sheet.push_back(row_->plane(at, down, across, kPng));
    if (grid_.problem().context > 0) sheet.push_back(row_->context(across.high - across.low, kPng));
    return sheet;
  }

  static constexpr std::int64_t kTerminal = 48, kPng = 1024;  // cells a side
  static constexpr std::size_t kMaxPlanes = 64;

  const Explained& e_;
  const plan::TileGrid& grid_;
  std::optional<RowPicture> row_;
};

class TilesExplainer {
 public:
  TilesExplainer(const Spec& spec, const TilesOptions& options) : spec_(spec), options_(options) {}

  Result<int> run() {
    if (!options_.png.empty()) VICINAL_TRY_VOID(check_output(options_.png, /*force=*/true));
    VICINAL_TRY(HostProblem problem, Outline(spec_, options_.problem).make());
    CompileOptions compile_options = problem.compile_options();
    compile_options.backend = Backend::interpreter;
    VICINAL_TRY(const Kernel kernel, compile(spec_, compile_options));
    VICINAL_TRY(const runtime::Problem bound, bound_to(kernel, problem));
    VICINAL_TRY_VOID(check_slice(bound));
    VICINAL_TRY(const plan::TileShape shape, tile_shape(bound));
    VICINAL_TRY(const std::int64_t row, row_to_draw(plan::TileGrid(bound, shape)));
    const plan::Masks masks = kernel.impl().masks();
    VICINAL_TRY_VOID(check_size(plan::TileGrid(bound, shape), masks));
    const auto start = std::chrono::steady_clock::now();
    VICINAL_TRY(const plan::TilePlan plan,
                plan::plan_tiles(masks, bound, shape, {.threads = host::default_threads()}));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    const Figures figures = figures_of(plan, masks);
    const Explained explained = {options_, kernel.impl().variant.checked.module,
                                 plan,     figures,
                                 choices_, names_of_inputs(masks),
                                 row,      took.count()};
    return show(explained, problem);
  }

 private:
  Result<void> check_slice(const runtime::Problem& p) const {
    // Where there is none, its plan is empty.
    const auto none = [](std::int64_t at, std::int64_t count) {
      return at < 0 || at >= std::max<std::int64_t>(count, 1);
    };
    if (!none(options_.batch, p.batch) && !none(options_.head, p.heads)) return {};
    return unexpected(ErrorKind::usage, fmt::format("there are {} batches and {} heads", p.batch, p.heads),
                      "--batch and --head count from 0");
  }

  Result<plan::TileShape> tile_shape(const runtime::Problem& p) {
    const std::size_t rank = p.q_axis.size();
    if (!options_.tile.empty()) return plan::parse_tile_shape(options_.tile, rank);
    if (rank == 1) return plan::TileShape{{kQueries}, {kKeys}};
    choices_ = plan::search_shapes(p, kQueries, kKeys, plan::kMaskWeight, 4);
    return choices_.front().shape;
  }

  // The row that holds --query, or the middle of the grid.
  Result<std::int64_t> row_to_draw(const plan::TileGrid& grid) const {
    const runtime::Problem& p = grid.problem();
    std::int64_t token = 0;
    if (!options_.query.empty()) {
      if (grid.rank() == 1)
        return unexpected(ErrorKind::usage, "--query goes with two axes or more",
                          "the picture of a sequence has all its queries");
      VICINAL_TRY(token, query_at(options_.query, p));
    } else {
      for (const runtime::GridAxis& axis : p.q_axis) token = token * axis.local + axis.local / 2;
    }
    return p.local_queries() == 0 ? 0 : grid.row_of(token);
  }

  static Result<void> check_size(const plan::TileGrid& grid, const plan::Masks& masks) {
    const runtime::Problem& p = grid.problem();
    const plan::TileCost reach = plan::neighborhood_cost(grid);
    const std::int64_t tiles = p.axes.empty() ? reach.rows * kTilesPerRow : reach.visited;
    const std::int64_t slices = p.batch * p.heads;
    if (tiles <= kMaxTiles / std::max<std::int64_t>(slices, 1)) return {};
    // Too many if each batch and head has its own; most often they have not.
    const plan::MaskPrograms programs(masks, p, host::default_threads());
    const std::int64_t own = (programs.reads_batch() ? p.batch : 1) * (programs.reads_head()      ? p.heads
                                                                       : programs.reads_kv_head() ? p.kv_heads
                                                                                                  : 1);
    if (programs.always() || tiles <= kMaxTiles / std::max<std::int64_t>(own, 1)) return {};
    return unexpected(ErrorKind::limit,
                      fmt::format("{} tiles of queries are too many to plan", own * reach.rows),
                      "explain larger tiles, or a smaller --grid or --shape");
  }

  static std::vector<std::string> names_of_inputs(const plan::Masks& masks) {
    std::vector<std::string> names;
    const std::vector<bool> read = plan::inputs_read(masks);
    for (std::size_t i = 0; i < read.size(); ++i)
      if (read[i]) names.push_back(masks.grid->inputs[i].name);
    return names;
  }

  Result<int> show(const Explained& explained, const HostProblem& problem) const {
    const Pictures pictures(explained);
    if (options_.json) {
      Report(explained).print_json();
    } else {
      fmt::print("{}: {}\n", spec_.name(), problem.describe());
      for (const std::string& note : problem.notes) fmt::print("  {}\n", note);
      Report(explained).print_text();
      pictures.print();
    }
    if (options_.png.empty()) return int{kOk};
    VICINAL_TRY(const std::string file, png_file(pixels(pictures.sheet())));
    VICINAL_TRY_VOID(write_output(options_.png, file));
    return int{kOk};
  }

  const Spec& spec_;
  const TilesOptions& options_;
  std::vector<plan::ShapeChoice> choices_;
};

}  // namespace

Result<int> explain_tiles(const Spec& spec, const TilesOptions& options) {
  return TilesExplainer(spec, options).run();
}

Result<std::int64_t> query_at(const std::string& coordinates, const runtime::Problem& p) {
  std::int64_t token = 0;
  std::size_t i = 0;
  for (const std::string& part : CLI::detail::split(coordinates, ',')) {
    std::int64_t at = -1;
    const char* last = part.data() + part.size();
    const auto [end, error] = std::from_chars(part.data(), last, at);
    if (error != std::errc() || end != last || i >= p.q_axis.size() || at < 0 || at >= p.q_axis[i].extent)
      return unexpected(ErrorKind::usage, fmt::format("`--query {}` is not a place on the grid", coordinates),
                        fmt::format("give {} coordinate{} within the grid", p.q_axis.size(),
                                    p.q_axis.size() == 1 ? "" : "s, slowest first,"));
    token = token * p.q_axis[i++].extent + at;
  }
  if (i != p.q_axis.size())
    return unexpected(ErrorKind::usage, fmt::format("`--query {}` has {} coordinates for {} axes",
                                                    coordinates, i, p.q_axis.size()));
  return token;
}

}  // namespace vicinal::cli
