#include "runtime/cpu/backward_executor.h"

#include <numeric>
#include <span>

#include "runtime/binding/strides.h"
#include "runtime/cpu/differentiated.h"
#include "runtime/host/parallel.h"

namespace vicinal::cpu {
namespace {

// Enough for many threads; each costs a pass over its keys' gradients.
constexpr std::int64_t kParts = 32;
constexpr std::int64_t kLeastQueries = 768;  // of a part, about
// Of gradients of inputs that parts add to side by side.
constexpr std::int64_t kMostGradientBytes = std::int64_t{1} << 29;

std::int64_t elements_of(const runtime::CapturedInput& x) {
  return std::accumulate(x.extents.begin(), x.extents.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace

class BackwardExecutor::Run {
 public:
  Run(const BackwardExecutor& of, const BackwardRun& run, Team& team, unsigned threads)
      : of_(of),
        kernel_(of.compiled_->kernel()),
        run_(run),
        p_(run.problem),
        team_(team),
        leaves_(LeafVector::zeros(of.differentiated_, p_)) {
    const std::int64_t heads = std::max<std::int64_t>(1, p_.batch * p_.kv_heads);
    const std::int64_t least = std::max<std::int64_t>(1, kLeastQueries / of.compiled_->code().shape.tile_q);
    parts_ = std::clamp<std::int64_t>((kParts + heads - 1) / heads, 1,
                                      std::max<std::int64_t>(1, run.rows() / least));
    totals_per_head_ = static_cast<std::size_t>(kSiteTotals) + kernel_.sites.size();
    totals_.resize(static_cast<std::size_t>(units() * run.group()) * totals_per_head_);
    make_gradients();
    slots_ = static_cast<unsigned>(std::clamp<std::int64_t>(groups_, 1, std::max(1u, threads)));
    while (team.workers.size() < slots_)
      team.workers.push_back(std::make_unique<BackwardWorker>(*of.compiled_, of.differentiated_));
    const auto sums = static_cast<std::size_t>(parts_ > 1 ? units() : slots_);
    if (team.sums.size() < sums) team.sums.resize(sums);
  }

  Result<void> compute() {
    for (unsigned i = 0; i < slots_; ++i) team_.workers[i]->start(run_);
    // A group's units one after another, since they add to the same gradients of inputs; from the last on:
    // under a causal mask these have the most to do.
    host::parallel_for(groups_, slots_, [&](std::int64_t n, unsigned slot) {
      for (std::int64_t unit = groups_ - 1 - n; unit < units(); unit += groups_) compute_unit(unit, slot);
    });
    for (unsigned i = 0; i < slots_; ++i)
      if (team_.workers[i]->contaminated())
        return unexpected(ErrorKind::internal,
                          "LLVM does not compile the code for gradients that NaN or Inf must be kept out of",
                          "this is a mistake of ours; the interpreter runs the spec meanwhile");
    if (parts_ > 1 && units() > 0) {
      const std::int64_t blocks = team_.sums[0].blocks();
      host::parallel_for(p_.batch * p_.kv_heads * blocks, slots_, [&](std::int64_t n) {
        store_block(add_parts(n / blocks * parts_, n % blocks), n / blocks, n % blocks);
      });
    }
    add_captured();
    return {};
  }

 private:
  // Parts of all key heads.
  std::int64_t units() const { return p_.batch * p_.kv_heads * parts_; }

  void compute_unit(std::int64_t unit, unsigned slot) {
    const std::int64_t slice = unit / parts_, part = unit % parts_, rows = run_.rows();
    KeySums& sums = team_.sums[static_cast<std::size_t>(parts_ > 1 ? unit : slot)];
    const BackwardWorker::Part of{slice / p_.kv_heads, slice % p_.kv_heads, part * rows / parts_,
                                  (part + 1) * rows / parts_};
    double* const totals = totals_.data() + static_cast<std::size_t>(unit * run_.group()) * totals_per_head_;
    const CodeInput* const gradients =
        gradients_.data() + static_cast<std::size_t>(unit % groups_) * p_.inputs.size();
    team_.workers[slot]->part(of, sums, totals, totals_per_head_, gradients);
    if (parts_ > 1) return;
    for (std::int64_t block = 0; block < sums.blocks(); ++block) store_block(sums, slice, block);
  }

  // A block of rows of all parts of a key head, in the first that has any.
  KeySums& add_parts(std::int64_t first, std::int64_t block) {
    const std::span parts =
        std::span(team_.sums).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(parts_));
    const auto some = std::ranges::find_if(parts, [&](const KeySums& s) { return s.touched(block); });
    if (some == parts.end()) return parts[0];
    KeySums& to = *some;
    for (auto from = some + 1; from != parts.end(); ++from) {
      if (!from->touched(block)) continue;
      const auto add = [&](float* x, const float* y, std::int64_t width) {
        for (std::int64_t c = 0; c < to.block_rows(block) * width; ++c) x[c] += y[c];
      };
      const std::int64_t row = block * KeySums::kBlock;
      add(to.keys(row), from->keys(row), to.key_width());
      add(to.values(row), from->values(row), to.value_width());
    }
    return to;
  }

  void store_block(KeySums& sums, std::int64_t slice, std::int64_t block) {
    sums.touch(block * KeySums::kBlock);  // keys that no query visits
    const std::int64_t batch = slice / p_.kv_heads, head = slice % p_.kv_heads, keys = p_.local_keys();
    std::vector<std::int64_t> local;
    for (std::int64_t i = 0; i < sums.block_rows(block); ++i) {
      const std::int64_t row = block * KeySums::kBlock + i;
      const bool context = row >= keys;
      if (context)
        local.assign(1, row - keys);
      else
        local_coordinates(p_.k_axis, row, local);
      const runtime::Strided &to_k = context ? run_.wanted.context_k : run_.wanted.k,
                             &to_v = context ? run_.wanted.context_v : run_.wanted.v;
      if (to_k.data != nullptr) {
        const runtime::Strided& k = context ? p_.context_k : p_.k;
        if (kernel_.key_l2norm) through_norm(sums.keys(row), k, p_.head_dim, offset(k, batch, head, local));
        host::store_floats(to_k.data, to_k.dtype, offset(to_k, batch, head, local), to_k.dim, sums.keys(row),
                           p_.head_dim);
      }
      if (to_v.data != nullptr)
        host::store_floats(to_v.data, to_v.dtype, offset(to_v, batch, head, local), to_v.dim,
                           sums.values(row), p_.value_dim);
    }
  }

  // Doubles for the inputs that sites add to, as often as there is room for; of the others nothing.
  void make_gradients() {
    std::vector<bool> added_to(p_.inputs.size());
    for (const emit::CpuSite& site : kernel_.sites)
      if (!site.uniform) added_to[emit::read_of(leaf_of(site), site.second).input] = true;
    std::int64_t elements = 0;
    for (std::size_t i = 0; i < p_.inputs.size(); ++i)
      if (added_to[i]) elements += elements_of(p_.inputs[i]);
    groups_ = std::max<std::int64_t>(1, units());
    if (elements != 0) groups_ = std::clamp<std::int64_t>(kMostGradientBytes / (8 * elements), 1, groups_);
    memory_.resize(static_cast<std::size_t>(groups_ * elements));
    double* at = memory_.data();
    for (std::int64_t group = 0; group < groups_; ++group)
      for (std::size_t i = 0; i < p_.inputs.size(); ++i) {
        CodeInput gradient{};
        if (added_to[i]) {
          gradient.data = at;
          const std::vector<std::int64_t> strides = runtime::c_order_strides(p_.inputs[i].extents);
          std::ranges::copy(strides, gradient.stride);
          at += elements_of(p_.inputs[i]);
        }
        gradients_.push_back(gradient);
      }
  }

  // All that is learnable, in the units' order.
  void add_captured() {
    for (std::size_t n = 0; n < gradients_.size(); ++n) {
      if (gradients_[n].data == nullptr) continue;
      const auto* const from = static_cast<const double*>(gradients_[n].data);
      std::vector<double>& to = leaves_.inputs[n % p_.inputs.size()];
      for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
    }
    if (totals_per_head_ == static_cast<std::size_t>(kSiteTotals) && !kernel_.scale_sum && !kernel_.sink_sum)
      return store_captured();
    const RootDifferential scale(of_.differentiated_, p_, ir::Root::scale),
        sink(of_.differentiated_, p_, ir::Root::sink);
    RootDifferential::Scratch values;
    for (std::int64_t unit = 0; unit < units(); ++unit)
      for (std::int64_t h = 0; h < run_.group(); ++h) {
        const std::int64_t slice = unit / parts_;
        Place place;
        place.b = slice / p_.kv_heads;
        place.kv_h = slice % p_.kv_heads;
        place.h = place.kv_h * run_.group() + h;
        const double* const totals =
            totals_.data() + static_cast<std::size_t>(unit * run_.group() + h) * totals_per_head_;
        const auto pull = [&](const RootDifferential& root, double upstream) {
          root.start_row(place, values);
          root.pull(place, values, upstream, leaves_);
        };
        if (kernel_.scale_sum && totals[kScaleTotal] != 0) pull(scale, totals[kScaleTotal]);
        if (kernel_.sink_sum && totals[kSinkTotal] != 0) pull(sink, totals[kSinkTotal]);
        for (std::size_t i = 0; i < kernel_.sites.size(); ++i)
          if (const double x = totals[static_cast<std::size_t>(kSiteTotals) + i]; x != 0)
            if (double* const sum = leaf(kernel_.sites[i], place)) *sum += x;
      }
    store_captured();
  }

  const ir::Node& leaf_of(const emit::CpuSite& site) const {
    return kernel_.keys(site.context).form.module[site.leaf];
  }

  // What a uniform site reads in a batch and head; null where the input was left out.
  double* leaf(const emit::CpuSite& site, const Place& place) {
    const ir::Module& m = kernel_.keys(site.context).form.module;
    const ir::Node& node = leaf_of(site);
    if (const auto* s = std::get_if<ir::Symbol>(&node.what)) return &leaves_.params[s->index];
    const std::uint32_t input = std::get<ir::Load>(node.what).input;
    if (leaves_.inputs[input].empty()) return nullptr;
    std::int64_t element = 0;
    Expression::Scratch values;
    for (std::size_t i = 0; i < node.operands.size(); ++i) {
      const Expression index(m, p_, node.operands[i], Arithmetic::exact);
      index.start_row(place, values);
      const std::int64_t extent = p_.inputs[input].extents[i];
      element = element * extent + std::clamp<std::int64_t>(index.at(place, values).i, 0, extent - 1);
    }
    return &leaves_.inputs[input][static_cast<std::size_t>(element)];
  }

  void store_captured() {
    for (std::size_t i = 0; i < p_.inputs.size(); ++i)
      cpu::store_captured(leaves_.inputs[i], p_.inputs[i].extents, run_.wanted.inputs[i]);
    for (std::size_t i = 0; i < leaves_.params.size(); ++i)
      cpu::store_captured({leaves_.params[i]}, {}, run_.wanted.params[i]);
  }

  const BackwardExecutor& of_;
  const emit::CpuKernel& kernel_;
  const BackwardRun& run_;
  const runtime::Problem& p_;
  Team& team_;
  std::int64_t parts_ = 1, groups_ = 1;
  unsigned slots_ = 1;
  std::size_t totals_per_head_ = 0;
  std::vector<double> totals_, memory_;
  std::vector<CodeInput> gradients_;  // by group and input
  LeafVector leaves_;
};

Result<void> BackwardExecutor::run(const BackwardRun& run, unsigned threads) const {
  const auto team = teams_.take();
  return Run(*this, run, *team, threads).compute();
}

}  // namespace vicinal::cpu
