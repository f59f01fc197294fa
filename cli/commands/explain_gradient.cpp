#include "cli/commands/explain_gradient.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "compiler/driver/gradient_text.h"
#include "compiler/emit/cuda/site_members.h"
#include "compiler/emit/gradient_sites.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

using nlohmann::ordered_json;

// A site in words.
struct Read {
  bool param;
  std::string name, leaf, of, pattern;
  std::vector<std::string> axes;
  bool context, in_place;
  analysis::AccumulationChoice adding;
};

// The lists of sums, for a problem.
struct Memory {
  std::string problem;
  std::int64_t elements = 0, lists = 0;
  std::int64_t bytes() const { return 4 * elements * lists; }
};

class Explainer {
 public:
  explicit Explainer(const Spec& spec)
      : spec_(spec),
        module_(driver::differentiated(spec.impl().variant)),
        variant_(emit::specialize(module_)),
        slots_(emit::captured_slots(variant_)) {
    add(variant_.grid, false);
    if (variant_.context) add(*variant_.context, true);
  }

  Result<void> measure(const ProblemOptions& options) {
    VICINAL_TRY(HostProblem problem, make_problem(spec_, options, Tensors::outlines));
    CompileOptions compile_options = problem.compile_options();
    compile_options.backend = Backend::interpreter;
    VICINAL_TRY(const Kernel kernel, compile(spec_, compile_options));
    VICINAL_TRY(const runtime::Problem bound, kernel.impl().bind(problem.arguments_to_ask()));
    VICINAL_TRY(const runtime::BackwardLayout layout,
                runtime::backward_layout(bound, slots_, false, problem.dtype));
    memory_ = Memory{problem.describe(), layout.elements, layout.blocks};
    return {};
  }

  void print() const {
    fmt::print("{}", driver::print_gradient(module_));
    if (reads_.empty()) {
      fmt::print("nothing captured is learnable\n");
      return;
    }
    fmt::print("gradients of what is captured:\n");
    for (const Read& r : reads_)
      fmt::print("  {:<24} in {:<8} {:<24} {}: {}{}\n", r.leaf, r.of, described(r), name_of(r.adding.how),
                 r.adding.why, r.in_place ? ", and the gradient itself holds the sums" : "");
    if (memory_)
      fmt::print(
          "{}\nsums: {} elements, a list of them in each of {} blocks that are added in order, {} bytes\n",
          memory_->problem, memory_->elements, memory_->lists, memory_->bytes());
    else
      fmt::print("a device adds up lists of all elements, one a block, in order; --shape says how many\n");
  }

  void print_json() const {
    const driver::GradientText text = driver::gradient_text(module_);
    ordered_json json = {
        {"schema", "vicinal.explain.gradient.v1"}, {"spec", module_.name}, {"lets", text.lets}};
    for (const char* list : {"derivatives", "inputs", "params"}) json[list] = ordered_json::array();
    for (const auto& d : text.derivatives)
      json["derivatives"].push_back({{"of", d.of}, {"with_respect_to", d.leaf}, {"value", d.value}});
    for (const Read& r : reads_)
      json[r.param ? "params" : "inputs"].push_back({{r.param ? "param" : "input", r.name},
                                                     {"read", r.leaf},
                                                     {"in", r.of},
                                                     {"context", r.context},
                                                     {"pattern", r.pattern},
                                                     {"axes", r.axes},
                                                     {"accumulation", name_of(r.adding.how)},
                                                     {"in_place", r.in_place},
                                                     {"why", r.adding.why}});
    if (memory_)
      json["sums"] = {
          {"elements", memory_->elements}, {"lists", memory_->lists}, {"bytes", memory_->bytes()}};
    fmt::print("{}\n", json.dump(2));
  }

 private:
  void add(const emit::SpecializedKeys& keys, bool context) {
    const driver::GradientText text = driver::gradient_text(keys.module);
    for (const emit::GradientSite& site : emit::gradient_sites(keys, context)) {
      const auto& derivative = text.derivatives[site.partial];
      if (context && derivative.of != "score") continue;  // what rows read is told of once
      Read r{site.param,
             site.param ? module_.params[site.index].name : module_.inputs[site.index].name,
             derivative.leaf,
             derivative.of,
             std::string(name_of(site.use.pattern)),
             {},
             context,
             std::ranges::any_of(slots_,
                                 [&](const emit::CapturedSlot& slot) {
                                   return slot.in_place && slot.param == site.param &&
                                          slot.index == site.index;
                                 }),
             site.adding};
      for (const std::uint32_t axis : site.use.axes)
        r.axes.push_back(axis < module_.axes.size() ? module_.axes[axis].name : "position");
      reads_.push_back(std::move(r));
    }
  }

  std::string described(const Read& r) const {
    std::string text = r.pattern;
    if (!r.axes.empty() && !module_.axes.empty()) text += fmt::format(" along {}", fmt::join(r.axes, ", "));
    return text + (r.context ? " of context keys" : "");
  }

  const Spec& spec_;
  const ir::Module module_;
  const emit::Specialized variant_;
  const std::vector<emit::CapturedSlot> slots_;
  std::vector<Read> reads_;
  std::optional<Memory> memory_;
};

}  // namespace

Result<int> explain_gradient(const Spec& spec, const ProblemOptions& problem, bool json) {
  Explainer explainer(spec);
  if (!problem.shape.empty() || !problem.grid.empty()) VICINAL_TRY_VOID(explainer.measure(problem));
  if (json)
    explainer.print_json();
  else
    explainer.print();
  return int{kOk};
}

}  // namespace vicinal::cli
