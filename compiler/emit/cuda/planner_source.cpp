#include "compiler/emit/cuda/planner_source.h"

#include <fmt/format.h>

#include "compiler/analysis/box_program.h"
#include "compiler/emit/cuda/declarations.h"
#include "compiler/support/hash.h"

namespace vicinal::emit {
namespace {

using ir::Root;

// As templates/vicinal/planning has them; the emitted text asserts it.
constexpr int kThreads = 256, kRows = 8, kTableThreads = 256;
constexpr int kSetBytes[] = {12, 12, 2};

// The variant without what a mask does not read.
Specialized mask_alone(const Specialized& variant) {
  Specialized result = variant;
  for (ir::Module* m : {&result.grid.module, result.context ? &result.context->module : nullptr}) {
    if (m == nullptr) continue;
    for (const Root root : {Root::score, Root::scale, Root::sink, Root::output}) m->root(root) = {};
  }
  return result;
}

int set_size(ir::Type type) {
  return kSetBytes[type == ir::Type::integer ? 0 : type == ir::Type::real ? 1 : 2];
}

class Emitter {
 public:
  Emitter(const Specialized& variant, const KernelOptions& options, TileList list)
      : module_(variant.declarations()), declarations_(variant, options, uses(variant)) {
    source_.list = list;
    std::vector<analysis::RangedDimensions> ranged(module_.inputs.size());
    for (const SpecializedKeys* keys : {&variant.grid, variant.context ? &*variant.context : nullptr}) {
      if (keys == nullptr || !has_mask(keys->module)) continue;
      const analysis::BoxProgram program(keys->module, keys->module.root(Root::mask));
      for (std::size_t i = 0; i < ranged.size(); ++i) ranged[i].include(program.ranged_dimensions()[i]);
      source_.reads_batch |= program.reads_batch();
      source_.reads_head |= program.reads_head();
      source_.reads_kv_head |= program.reads_kv_head();
    }
    for (std::uint32_t i = 0; i < ranged.size(); ++i)
      if (ranged[i].any()) source_.tables.push_back({i, ranged[i].along()});
    for (const TableUse& t : source_.tables)
      source_.set_bytes.push_back(set_size(module_.inputs[t.input].type));
  }

  PlannerSource run() {
    const std::string body = parameters() + mask_struct(), fills = fill_calls();
    source_.rows.threads = kThreads;
    source_.rows.rows = kRows;
    source_.table_threads = kTableThreads;
    const std::string call = fmt::format("  vicinal::planning::{}<emitted::Mask>(a);\n",
                                         source_.list == TileList::runs ? "plan_rows" : "plan_pairs");
    source_.rows.entry = "vicinal_plan_" + support::sha256_hex(body + fills + call).substr(0, 12);
    std::string& text = source_.rows.text;
    text = fmt::format(
        "// Emitted by vicinal. Planner of tiles.\n#include \"vicinal/planner.cuh\"\n\n"
        "namespace emitted {{\n\nusing namespace vicinal::planning;\nusing namespace "
        "vicinal::ranges;\n\n{}}}  // "
        "namespace emitted\n",
        body);
    if (!source_.tables.empty()) {
      source_.tables_entry = source_.rows.entry + "_tables";
      text += entry(source_.tables_entry, kTableThreads, fills);
    }
    text += entry(source_.rows.entry, kThreads, call);
    return std::move(source_);
  }

 private:
  static std::string entry(std::string_view name, int threads, std::string_view body) {
    return fmt::format(
        "\nextern \"C\" __global__ void __launch_bounds__({}) {}(const __grid_constant__ "
        "emitted::Mask::Arguments a) {{\n{}}}\n",
        threads, name, body);
  }

  std::string parameters() {
    std::string out = "// What varies from launch to launch.\nstruct Parameters {\n" +
                      declarations_.parameter_members(source_.rows.parameters);
    for (const TableUse& t : source_.tables)
      fmt::format_to(std::back_inserter(out), "  InputTable<{}> {};\n",
                     set_type(module_.inputs[t.input].type), table_name(t.input));
    return out + "};\n\n";
  }

  std::string mask_struct() const {
    std::string out = fmt::format(
        "struct Mask {{\n  static constexpr int rank = {};\n"
        "  using Arguments = vicinal::ForwardArguments<rank, Parameters>;\n"
        "  using Query = QueryBox<rank>;\n  using Key = KeyBox<rank>;\n",
        declarations_.rank());
    out += Declarations::flag("has_context", module_.context) +
           Declarations::flag("align_end", module_.align_end) +
           Declarations::flag("neighborhood", declarations_.neighborhood()) + declarations_.axis_function() +
           declarations_.pair_function("Truth keeps(const Arguments& a, const Query& q, const Key& k)",
                                       [&](const SpecializedKeys& keys, int indent) {
                                         return has_mask(keys.module)
                                                    ? set_function_body(
                                                          keys.module, keys.module.root(Root::mask),
                                                          declarations_.names(), source_.tables, indent)
                                                    : fmt::format("{:{}}return point(true);\n", "", indent);
                                       });
    return out + "};\n\n" +
           fmt::format(
               "static_assert(kThreads == {} && kTableThreads == {} && sizeof(Range) == {} &&\n              "
               "sizeof(RealRange) == {} && sizeof(Truth) == {},\n              \"the host launches and "
               "allocates by these\");\n\n",
               kThreads, kTableThreads, kSetBytes[0], kSetBytes[1], kSetBytes[2]);
  }

  std::string fill_calls() const {
    std::string out;
    for (const TableUse& t : source_.tables)
      fmt::format_to(std::back_inserter(out), "  vicinal::planning::fill<{}>(a.{}, a.parameters.{});\n",
                     t.along, declarations_.names().inputs[t.input], table_name(t.input));
    return out;
  }

  const ir::Module& module_;
  Declarations declarations_;
  PlannerSource source_;
};

}  // namespace

PlannerSource emit_planner(const Specialized& variant, const KernelOptions& options, TileList list) {
  const Specialized mask = mask_alone(variant);
  return Emitter(mask, options, list).run();
}

}  // namespace vicinal::emit
