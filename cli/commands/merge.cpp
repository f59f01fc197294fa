// vicinal merge: joins partial outputs by their log-sum-exp.
#include <fmt/format.h>

#include "cli/problem.h"
#include "runtime/files/npy.h"

namespace vicinal::cli {
namespace {

struct Options {
  std::vector<std::string> outs, lses;
  std::string out, lse;
};

Tensor view(files::Array& array) {
  return {array.bytes.data(), array.dtype, array.shape, {}};
}

Result<void> merge_files(const Options& options) {
  if (options.outs.size() != options.lses.size())
    return unexpected(ErrorKind::usage,
                      fmt::format("{} outputs and {} lses", options.outs.size(), options.lses.size()),
                      "give --parts and --lses in the same order, one lse for each output");
  for (const std::string& path : {options.out, options.lse})
    if (!path.empty()) VICINAL_TRY_VOID(files::check_writable(path));
  std::vector<files::Array> arrays;
  arrays.reserve(options.outs.size() * 2);
  std::vector<Tensor> outs, lses;
  for (std::size_t i = 0; i < options.outs.size(); ++i) {
    VICINAL_TRY(files::Array out, files::read_npy(options.outs[i]));
    VICINAL_TRY(files::Array lse, files::read_npy(options.lses[i]));
    arrays.push_back(std::move(out));
    outs.push_back(view(arrays.back()));
    arrays.push_back(std::move(lse));
    lses.push_back(view(arrays.back()));
  }
  const auto like = [](const Tensor& t) {
    files::Array array{DType::f32, t.shape, {}};
    std::size_t elements = 1;
    for (std::int64_t extent : t.shape) elements *= static_cast<std::size_t>(extent);
    array.bytes.resize(elements * 4);
    return array;
  };
  files::Array out = like(outs[0]), lse = like(lses[0]);
  VICINAL_TRY_VOID(merge(outs, lses, view(out), view(lse)));
  VICINAL_TRY_VOID(files::write_npy(options.out, out));
  return options.lse.empty() ? Result<void>() : files::write_npy(options.lse, lse);
}

}  // namespace

void add_merge(CLI::App& app, Globals& globals) {
  auto* command = app.add_subcommand("merge", "Join outputs over disjoint sets of keys by their log-sum-exp");
  auto options = std::make_shared<Options>();
  command->add_option("--parts", options->outs, "Partial outputs [batch, heads, tokens, dim], .npy")
      ->required();
  command->add_option("--lses", options->lses, "Their lse [batch, heads, tokens], in the same order")
      ->required();
  command->add_option("--out", options->out, "Write the whole output here, f32")->required();
  command->add_option("--lse", options->lse, "Write the whole lse here, f32");
  command->callback([options, &globals] {
    globals.action = [options, &globals] {
      const Result<void> result = merge_files(*options);
      return result ? int{kOk} : fail(globals, result.error());
    };
  });
}

}  // namespace vicinal::cli
