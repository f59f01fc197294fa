#include "cli/commands/explain_tiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include "cli/tiles/pictures.h"
#include "cli/tiles/report.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"
#include "runtime/plan/tile_cost.h"

namespace vicinal::cli {
namespace {

// What a kernel of ours takes where it may choose.
constexpr std::int64_t kQueries = 64, kKeys = 64;

// A planner passes over a billion tiles a second where masks are regular; of a sequence, whose rows it looks
// at together, it is the rows that take time, each as much as two thousand tiles.
constexpr std::int64_t kMaxTiles = std::int64_t{1} << 33, kTilesPerRow = 2048;

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

class TilesExplainer {
 public:
  TilesExplainer(const Spec& spec, const TilesOptions& options) : spec_(spec), options_(options) {}

  Result<int> run() {
    VICINAL_TRY_VOID(check_token());
    if (!options_.png.empty()) VICINAL_TRY_VOID(check_output(options_.png, /*force=*/true));
    VICINAL_TRY(HostProblem problem, make_problem(spec_, options_.problem, Tensors::outlines));
    CompileOptions compile_options = problem.compile_options();
    compile_options.backend = Backend::interpreter;
    VICINAL_TRY(const Kernel kernel, compile(spec_, compile_options));
    VICINAL_TRY(const runtime::Problem bound, kernel.impl().bind(problem.arguments_to_ask()));
    VICINAL_TRY_VOID(check_slice(bound));
    VICINAL_TRY(const plan::TileShape shape, tile_shape(bound));
    const plan::TileGrid grid(bound, shape, owner());
    VICINAL_TRY(const std::int64_t row, row_to_draw(grid));
    const plan::Masks masks = kernel.impl().masks();
    VICINAL_TRY_VOID(check_size(grid, masks));
    const auto start = std::chrono::steady_clock::now();
    VICINAL_TRY(
        const plan::TilePlan plan,
        plan::plan_tiles(masks, bound, shape, {.owner = owner(), .threads = host::default_threads()}));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    const ExplainedTiles explained = {.module = kernel.impl().variant.checked.module,
                                      .plan = plan,
                                      .figures = figures_of(plan, masks),
                                      .shape_given = !options_.tile.empty(),
                                      .choices = std::move(choices_),
                                      .inputs = names_of_inputs(masks),
                                      .ms = took.count(),
                                      .batch = options_.batch,
                                      .head = options_.head,
                                      .row = row,
                                      .row_given = !token().empty()};
    return show(explained, problem);
  }

 private:
  plan::Side owner() const { return options_.transposed ? plan::Side::keys : plan::Side::queries; }

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
    choices_ = plan::search_shapes(p, kQueries, kKeys, 4, {}, owner());
    return choices_.front().shape;
  }

  // A row is asked for by a token of its owner's.
  const std::string& token() const { return options_.transposed ? options_.key : options_.query; }
  Result<void> check_token() const {
    if (options_.transposed && !options_.query.empty())
      return unexpected(ErrorKind::usage,
                        "--query does not go with --transposed, whose rows are tiles of keys",
                        "--key picks the row that holds a key");
    if (!options_.transposed && !options_.key.empty())
      return unexpected(ErrorKind::usage, "--key goes with --transposed",
                        "--query picks the row that holds a query");
    return {};
  }

  // The row that holds the token, or the middle of the grid.
  Result<std::int64_t> row_to_draw(const plan::TileGrid& grid) const {
    const std::string option = options_.transposed ? "--key" : "--query";
    const auto& axes = options_.transposed ? grid.problem().k_axis : grid.problem().q_axis;
    std::int64_t at = 0;
    if (!token().empty()) {
      if (grid.rank() == 1)
        return unexpected(ErrorKind::usage, fmt::format("{} goes with two axes or more", option),
                          "the picture of a sequence has all its rows");
      VICINAL_TRY(at, token_at(option, token(), axes));
    } else {
      for (const runtime::GridAxis& axis : axes) at = at * axis.local + axis.local / 2;
    }
    return grid.grid_rows() == 0 ? 0 : grid.row_of(at);
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
    return unexpected(
        ErrorKind::limit,
        fmt::format("{} tiles of {} are too many to plan", own * reach.rows, plan::name_of(grid.owner())),
        "explain larger tiles, or a smaller --grid or --shape");
  }

  static std::vector<std::string> names_of_inputs(const plan::Masks& masks) {
    std::vector<std::string> names;
    const std::vector<bool> read = plan::inputs_read(masks);
    for (std::size_t i = 0; i < read.size(); ++i)
      if (read[i]) names.push_back(masks.grid->inputs[i].name);
    return names;
  }

  Result<int> show(const ExplainedTiles& explained, const HostProblem& problem) const {
    if (options_.json) {
      print_tile_json(explained);
    } else {
      fmt::print("{}: {}\n", spec_.name(), problem.describe());
      for (const std::string& note : problem.notes) fmt::print("  {}\n", note);
      print_tile_report(explained);
      print_tile_pictures(explained);
    }
    if (options_.png.empty()) return int{kOk};
    VICINAL_TRY(const std::string file, png_file(pixels(tile_picture_sheet(explained))));
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

Result<std::int64_t> token_at(const std::string& option, const std::string& coordinates,
                              const std::vector<runtime::GridAxis>& axes) {
  std::int64_t token = 0;
  std::size_t i = 0;
  for (const std::string& part : CLI::detail::split(coordinates, ',')) {
    std::int64_t at = -1;
    const char* last = part.data() + part.size();
    const auto [end, error] = std::from_chars(part.data(), last, at);
    if (error != std::errc() || end != last || i >= axes.size() || at < 0 || at >= axes[i].extent)
      return unexpected(ErrorKind::usage,
                        fmt::format("`{} {}` is not a place on the grid", option, coordinates),
                        fmt::format("give {} coordinate{} within the grid", axes.size(),
                                    axes.size() == 1 ? "" : "s, slowest first,"));
    token = token * axes[i++].extent + at;
  }
  if (i != axes.size())
    return unexpected(ErrorKind::usage, fmt::format("`{} {}` has {} coordinates for {} axes", option,
                                                    coordinates, i, axes.size()));
  return token;
}

}  // namespace vicinal::cli
