#include "compiler/emit/cuda/kernel_choice.h"

#include <fmt/format.h>

#include "compiler/emit/cuda/hopper_members.h"

namespace vicinal::emit {
namespace {

// As messages call it.
std::string_view title(KernelKind kind) {
  return kind == KernelKind::hopper ? "Hopper" : kind == KernelKind::mma ? "tensor-core" : name_of(kind);
}

// What is computed for a pair is unrolled for all pairs of a thread.
std::optional<std::string> unrolling_obstacle(KernelKind kind, const HopperMembers& members) {
  if (members.costly_scores())
    return fmt::format("the {} kernel computes no long expressions, nor sums over inputs, for every pair",
                       title(kind));
  if (members.transcendental_mask())
    return fmt::format("the {} kernel computes no transcendental functions in masks", title(kind));
  return std::nullopt;
}

std::optional<std::string> hopper_obstacle(const Specialized& variant, const KernelOptions& options) {
  const ir::Module& m = variant.declarations();
  if (options.dtype != DType::bf16 && options.dtype != DType::f16)
    return fmt::format("the Hopper kernel multiplies f16 and bf16, not {}", vicinal::name_of(options.dtype));
  if (m.normalize != ir::Normalize::softmax)
    return fmt::format("the Hopper kernel normalizes by softmax, not {}", ir::name_of(m.normalize));
  if (auto found = unrolling_obstacle(KernelKind::hopper, HopperMembers(variant, options))) return found;
  if (m.query_l2norm || m.key_l2norm) return "the Hopper kernel does not divide by norms";
  if (m.axes.size() > 3) return "the Hopper kernel runs grids of up to three axes";
  return std::nullopt;
}

std::optional<std::string> obstacle(KernelKind kind, const Specialized& variant,
                                    const KernelOptions& options) {
  switch (kind) {
    case KernelKind::hopper: return hopper_obstacle(variant, options);
    case KernelKind::mma: return unrolling_obstacle(kind, HopperMembers(variant, options));
    case KernelKind::portable:
    case KernelKind::reference: break;
  }
  return std::nullopt;
}

}  // namespace

bool runs_on(KernelKind kind, int capability) {
  switch (kind) {
    case KernelKind::hopper: return capability == 90;
    case KernelKind::mma: return capability >= 80;
    case KernelKind::portable:
    case KernelKind::reference: break;
  }
  return true;
}

Choice choose(KernelKind kind, const Specialized& variant, const KernelOptions& options, int capability,
              bool variations) {
  Choice choice;
  if (!runs_on(kind, capability)) {
    choice.why = fmt::format("the {} kernel needs a device of compute capability {}, and this one has {}.{}",
                             title(kind), kind == KernelKind::hopper ? "9.0" : "8.0 or more", capability / 10,
                             capability % 10);
    return choice;
  }
  if (auto found = obstacle(kind, variant, options)) {
    choice.why = *std::move(found);
    return choice;
  }
  const auto add = [&](const auto& schedule, auto KernelOptions::*member) {
    KernelOptions& candidate = choice.candidates.emplace_back(options);
    candidate.kind = kind;
    candidate.*member = schedule;
    candidate.tile_q = schedule.tile_q;
    candidate.tile_k = schedule.tile_k;
  };
  if (kind == KernelKind::hopper) {
    const HopperMembers members(variant, options);
    const HopperNeeds needs{.head_dim = options.head_dim,
                            .value_dim = options.value_dim,
                            .computes = members.computes_scores(),
                            .asks = members.asks(),
                            .limited = members.limited(),
                            .windowed = members.windowed(),
                            .rank = std::max(1, static_cast<int>(variant.declarations().axes.size())),
                            .strided = members.strided(),
                            .causal = members.causal(),
                            .dilated = members.dilated(),
                            .window_keys = members.window_keys(),
                            .column_bytes = members.column_bytes()};
    for (const HopperSchedule& s : variations ? hopper_variations(needs) : hopper_schedules(needs))
      add(s, &KernelOptions::schedule);
    if (choice.candidates.empty()) choice.why = "no schedule of the Hopper kernel fits in shared memory";
  } else if (kind == KernelKind::mma) {
    const MmaNeeds needs{options.head_dim, options.value_dim, static_cast<int>(size_of(options.dtype)),
                         has_score(variant)};
    for (const MmaSchedule& s : variations ? mma_variations(needs) : mma_schedules(needs))
      add(s, &KernelOptions::mma);
  } else {
    choice.candidates.emplace_back(options).kind = kind;
  }
  return choice;
}

Choice choose_fastest(const Specialized& variant, const KernelOptions& options, int capability) {
  for (const KernelKind kind : {KernelKind::hopper, KernelKind::mma})
    if (Choice choice = choose(kind, variant, options, capability); !choice.candidates.empty()) return choice;
  return choose(KernelKind::portable, variant, options, capability);
}

std::string print_schedule(const KernelOptions& options) {
  switch (options.kind) {
    case KernelKind::hopper: return print(options.schedule);
    case KernelKind::mma: return print(options.mma);
    case KernelKind::portable:
    case KernelKind::reference: break;
  }
  return fmt::format("{}x{}", options.tile_q, options.tile_k);
}

}  // namespace vicinal::emit
