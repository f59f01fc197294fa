// vicinal explain mask|tiles|score|gradient SPEC, vicinal explain DIAGNOSTIC: what the compiler understood.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "cli/commands/explain_gradient.h"
#include "cli/commands/explain_tiles.h"
#include "cli/picture.h"
#include "cli/problem.h"
#include "compiler/ir/text.h"
#include "runtime/cpu/interpreter.h"
#include "runtime/host/parallel.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

struct Options {
  std::string topic, query, key, png, tile;
  ProblemOptions problem;
  std::int64_t batch = 0, head = 0;
  bool transposed = false, json = false;
};

// The interpreter decides some ten million pairs a second; beyond this a picture is not worth the wait.
constexpr std::int64_t kMaxPairs = std::int64_t{1} << 28;

int explain_diagnostic(const Globals& globals, const std::string& name) {
  const diagnostics::CatalogEntry* entry = diagnostics::find_entry(name);
  if (entry == nullptr) {
    std::string names;
    for (const diagnostics::CatalogEntry& e : diagnostics::catalog())
      names += fmt::format("{}{}", names.empty() ? "" : ", ", e.name);
    return fail(globals, Error(ErrorKind::usage, fmt::format("there is nothing to explain about `{}`", name),
                               "`explain mask SPEC`, `explain tiles SPEC`, `explain score SPEC`, "
                               "`explain gradient SPEC`, or one of " +
                                   names));
  }
  fmt::print("{}: {}\n", entry->name, entry->explanation);
  return kOk;
}

std::string what_varies(int bits) {
  if (bits == ir::kLaunch) return "the launch";
  std::string text;
  for (const auto& [bit, name] :
       {std::pair(ir::kBatch, "batch"), std::pair(ir::kHead, "head"), std::pair(ir::kQuery, "query"),
        std::pair(ir::kKey, "key"), std::pair(ir::kScore, "score"), std::pair(ir::kOutput, "output")})
    if ((bits & bit) != 0) text += fmt::format("{}{}", text.empty() ? "" : ", ", name);
  return text;
}

int explain_score(const Spec& spec) {
  const ir::Module& module = spec.impl().variant.optimized;
  const std::vector<std::uint8_t> varies = ir::variance(module);
  std::string text = ir::print(module);
  for (const std::string& line : CLI::detail::split(text, '\n')) {
    if (!line.starts_with("%")) {
      if (!line.empty()) fmt::print("{}\n", line);
      continue;
    }
    const std::size_t node = std::stoul(line.substr(1));
    fmt::print("{:<44} # varies with {}\n", line, what_varies(varies[node]));
  }
  return kOk;
}

class MaskExplainer {
 public:
  explicit MaskExplainer(const Options& options) : options_(options) {}

  Result<int> run(const Spec& spec) {
    if (!options_.png.empty()) VICINAL_TRY_VOID(check_output(options_.png, /*force=*/true));
    VICINAL_TRY(HostProblem problem, make_problem(spec, options_.problem));
    CompileOptions compile_options = problem.compile_options();
    compile_options.backend = Backend::interpreter;
    VICINAL_TRY(const Kernel kernel, compile(spec, compile_options));
    VICINAL_TRY(const runtime::Problem bound, kernel.impl().bind(problem.arguments_to_ask()));
    if (options_.batch < 0 || options_.batch >= bound.batch || options_.head < 0 ||
        options_.head >= bound.heads)
      return unexpected(ErrorKind::usage,
                        fmt::format("there are {} batches and {} heads", bound.batch, bound.heads),
                        "--batch and --head count from 0");
    const cpu::Interpreter interpreter(kernel.impl().variant.checked.module, bound);
    heading_ = fmt::format("{}: {}\n", spec.name(), problem.describe());
    for (const std::string& note : problem.notes) heading_ += fmt::format("  {}\n", note);
    return options_.query.empty() ? whole(interpreter, bound) : one_query(interpreter, bound);
  }

 private:
  // Queries down, keys across.
  Result<int> whole(const cpu::Interpreter& interpreter, const runtime::Problem& p) const {
    const std::int64_t queries = p.local_queries(), keys = p.local_keys();
    if (queries != 0 && keys > kMaxPairs / queries)
      return unexpected(ErrorKind::limit,
                        fmt::format("{} x {} pairs are too many to decide one by one", queries, keys),
                        "explain a smaller --grid or --shape, or one --query");
    Picture picture(queries, keys);
    std::vector<std::int64_t> kept(static_cast<std::size_t>(queries));
    host::parallel_for(queries, host::default_threads(), [&](std::int64_t q) {
      const std::vector<bool> row = interpreter.kept({options_.batch, options_.head, q});
      for (std::int64_t k = 0; k < keys; ++k)
        picture.at(q, k) = row[static_cast<std::size_t>(k)] ? 1.0f : 0.0f;
      kept[static_cast<std::size_t>(q)] = std::count(row.begin(), row.end(), true);
    });
    std::int64_t pairs = 0, fewest = keys, most = 0, empty = 0;
    for (std::int64_t n : kept)
      pairs += n, fewest = std::min(fewest, n), most = std::max(most, n), empty += n == 0;
    const std::int64_t total = queries * keys;
    const double density = total == 0 ? 0 : static_cast<double>(pairs) / static_cast<double>(total);
    if (options_.json) {
      fmt::print("{}\n", ordered_json{{"schema", "vicinal.explain.mask.v1"},
                                      {"batch", options_.batch},
                                      {"head", options_.head},
                                      {"queries", queries},
                                      {"keys", keys},
                                      {"kept_pairs", pairs},
                                      {"density", density},
                                      {"fewest_keys", queries == 0 ? 0 : fewest},
                                      {"most_keys", most},
                                      {"empty_rows", empty}}
                             .dump(2));
    } else {
      fmt::print("{}batch {}, head {}: queries down, keys across\n{}", heading_, options_.batch,
                 options_.head, terminal_text(picture.shrunk(48, 48)));
      fmt::print("{} of {} pairs kept ({:.2f}%); {} to {} keys a query{}\n", pairs, total, 100 * density,
                 queries == 0 ? 0 : fewest, most,
                 empty == 0 ? "" : fmt::format("; {} queries keep none", empty));
    }
    return save(picture.shrunk(2048, 2048));
  }

  // The keys of one query: a sequence in a line, a grid slice by slice.
  Result<int> one_query(const cpu::Interpreter& interpreter, const runtime::Problem& p) const {
    VICINAL_TRY(const std::int64_t token, token_at("--query", options_.query, p.q_axis));
    const std::vector<bool> row = interpreter.kept({options_.batch, options_.head, token});
    const std::size_t rank = p.k_axis.size();
    const std::int64_t columns = p.k_axis[rank - 1].local, rows = rank > 1 ? p.k_axis[rank - 2].local : 1;
    const std::int64_t slices = columns * rows == 0 ? 0 : p.local_keys() / (columns * rows);
    if (!options_.json) fmt::print("{}", heading_);
    Picture all(slices * (rows + 1) - (slices > 0 ? 1 : 0), columns);
    for (std::int64_t s = 0; s < slices; ++s) {
      Picture slice(rows, columns);
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < columns; ++c)
          slice.at(r, c) = all.at(s * (rows + 1) + r, c) =
              row[static_cast<std::size_t>((s * rows + r) * columns + c)] ? 1.0f : 0.0f;
      if (options_.json ||
          std::all_of(slice.share.begin(), slice.share.end(), [](float x) { return x == 0; }))
        continue;
      if (slices > 1) fmt::print("slice {}\n", s);
      fmt::print("{}", terminal_text(slice.shrunk(64, 64)));
    }
    const auto kept = std::count(row.begin(), row.end(), true);
    if (options_.json)
      fmt::print("{}\n", ordered_json{{"schema", "vicinal.explain.query.v1"},
                                      {"query", options_.query},
                                      {"keys", row.size()},
                                      {"kept", kept}}
                             .dump(2));
    else
      fmt::print("query {} keeps {} of {} keys\n", options_.query, kept, row.size());
    return save(all);
  }

  Result<int> save(const Picture& picture) const {
    if (options_.png.empty()) return int{kOk};
    VICINAL_TRY(const std::string file, png_file(picture));
    VICINAL_TRY_VOID(write_output(options_.png, file));
    return int{kOk};
  }

  const Options& options_;
  std::string heading_;  // printed with a result, not with an error
};

int explain(const Globals& globals, const Options& options) {
  const bool tiles = options.topic == "tiles";
  if (options.topic != "mask" && options.topic != "score" && options.topic != "gradient" && !tiles)
    return explain_diagnostic(globals, options.topic);
  if (options.problem.spec.spec.empty())
    return fail(globals, Error(ErrorKind::usage, fmt::format("`explain {}` needs a spec", options.topic)));
  for (const auto& [given, option] :
       {std::pair(!options.tile.empty(), "--tile"), std::pair(!options.key.empty(), "--key"),
        std::pair(options.transposed, "--transposed")})
    if (given && !tiles)
      return fail(globals, Error(ErrorKind::usage, fmt::format("{} goes with `explain tiles`", option)));
  return with_spec(globals, options.problem.spec, [&](const Spec& spec) -> Result<int> {
    if (options.topic == "score") return explain_score(spec);
    if (options.topic == "gradient") return explain_gradient(spec, options.problem, options.json);
    return tiles ? explain_tiles(spec, {.problem = options.problem,
                                        .tile = options.tile,
                                        .query = options.query,
                                        .key = options.key,
                                        .png = options.png,
                                        .batch = options.batch,
                                        .head = options.head,
                                        .transposed = options.transposed,
                                        .json = options.json})
                 : MaskExplainer(options).run(spec);
  });
}

}  // namespace

void add_explain(CLI::App& app, Globals& globals) {
  auto* command = app.add_subcommand(
      "explain",
      "Draw a mask with its exact pair counts or the tiles that it skips, show what a score varies with or "
      "what its derivatives are, or explain a diagnostic");
  auto options = std::make_shared<Options>();
  command->add_option("topic", options->topic, "mask, tiles, score, gradient, or a diagnostic's name")
      ->required();
  add_problem_options(*command, options->problem);
  command->get_option("spec")->required(false);
  command->add_option(
      "--query", options->query,
      "The keys of one query, by its coordinates: 3,5; of tiles, those of the tile that holds it");
  command->add_option("--tile", options->tile, "Tile shape, queries/keys: 64/64, 4x8x8/2x8x8");
  command->add_flag("--transposed", options->transposed,
                    "The tiles of a backward pass: a tile of keys visits tiles of queries");
  command->add_option("--key", options->key, "Of transposed tiles: those of the tile that holds this key");
  command->add_option("--batch", options->batch, "Which batch")->capture_default_str();
  command->add_option("--head", options->head, "Which head")->capture_default_str();
  command->add_option("--png", options->png, "Also write the picture here");
  command->add_flag("--json", options->json, "Counts as JSON instead of a picture");
  command->callback(
      [options, &globals] { globals.action = [options, &globals] { return explain(globals, *options); }; });
}

}  // namespace vicinal::cli
