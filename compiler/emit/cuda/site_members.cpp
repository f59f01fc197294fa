#include "compiler/emit/cuda/site_members.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "compiler/emit/cuda/expression.h"
#include "compiler/emit/gradient_sites.h"

namespace vicinal::emit {
namespace {

std::string_view adding_name(analysis::Accumulation how, bool in_place) {
  constexpr std::string_view names[] = {"head", "row", "column", "distance", "pair", "ordered"};
  return in_place ? "in_place" : names[static_cast<int>(how)];
}

template <class Slots>
auto find_slot(Slots& slots, const GradientSite& site) {
  return std::ranges::find_if(
      slots, [&](const CapturedSlot& slot) { return slot.param == site.param && slot.index == site.index; });
}

// The sites of one of the templates' roots.
struct Group {
  std::string_view root;
  const SpecializedKeys* keys;
  std::vector<GradientSite> sites;
};

class SitePrinter {
 public:
  SitePrinter(const Specialized& variant, const Declarations& declarations,
              const std::vector<CapturedSlot>& slots)
      : declarations_(declarations), slots_(slots) {
    const auto add = [&](std::string_view name, const SpecializedKeys& keys, bool context, ir::Root root) {
      Group group{name, &keys, {}};
      for (GradientSite& site : gradient_sites(keys, context))
        if (keys.module.partials[site.partial].of == root) group.sites.push_back(std::move(site));
      if (!group.sites.empty()) groups_.push_back(std::move(group));
    };
    add("score", variant.grid, false, ir::Root::score);
    if (variant.context) add("context_score", *variant.context, true, ir::Root::score);
    add("scale", variant.grid, false, ir::Root::scale);
    add("sink", variant.grid, false, ir::Root::sink);
    add("output", variant.grid, false, ir::Root::output);
  }

  std::string run() const {
    std::string out = tables();
    if (groups_.empty()) return out;
    out += member(
        "void", "site",
        "const Arguments& a, const Query& q, const Key& k, float score, float out, float lse, "
        "vicinal::i64& element, float& slope",
        [](const GradientSite&) { return true; }, &SitePrinter::read);
    const auto in_dot = [](const GradientSite& site) { return site.dot; };
    out += member("vicinal::i64", "channels", "const Arguments& a", in_dot, &SitePrinter::channels);
    return out + member("float", "factor", "const Arguments& a, const Query& q, const Key& k, vicinal::i64 c",
                        in_dot, &SitePrinter::factor);
  }

 private:
  using Body = std::string (SitePrinter::*)(const Group&, const GradientSite&) const;

  std::string tables() const {
    std::string out =
        "\n  template <vicinal::Root In>\n  static VICINAL_DEVICE constexpr auto sites() {\n    ";
    for (const Group& group : groups_) {
      out += fmt::format("if constexpr (In == vicinal::Root::{}) return vicinal::Sites<{}>{{{{", group.root,
                         group.sites.size());
      for (const GradientSite& site : group.sites)
        out += fmt::format("{}{{{}, vicinal::Adding::{}, {}}}", &site == &group.sites.front() ? "" : ", ",
                           slot_of(site), adding_name(site.adding.how, slots_[slot_of(site)].in_place),
                           site.dot);
      out += "}};\n    else ";
    }
    return out + "return vicinal::Sites<0>{};\n  }\n";
  }

  template <class Which>
  std::string member(std::string_view type, std::string_view name, std::string_view parameters, Which which,
                     Body body) const {
    std::string bodies;
    for (const Group& group : groups_)
      for (std::size_t n = 0; n < group.sites.size(); ++n)
        if (which(group.sites[n]))
          bodies += fmt::format("    if constexpr (In == vicinal::Root::{} && N == {}) {{\n{}    }}\n",
                                group.root, n, (this->*body)(group, group.sites[n]));
    if (bodies.empty()) return {};
    return fmt::format(
        "\n  template <vicinal::Root In, int N>\n  static VICINAL_DEVICE {} {}({}) {{\n{}  }}\n", type, name,
        parameters, bodies);
  }

  // Each result in a scope of its own, since both name values.
  std::string read(const Group& group, const GradientSite& site) const {
    const SpecializedKeys& keys = *group.keys;
    const ir::Partial& partial = keys.module.partials[site.partial];
    std::string out = "      {\n";
    out += site.param ? "        element = 0;\n"
                      : read_body(keys.module, {partial.leaf, site.second, false}, keys.bounds,
                                  declarations_.names(), "element = ", 8);
    const Printer::Result slope{partial.value, "slope = "};
    return out + "      }\n      {\n" +
           function_body(keys.module, std::span(&slope, 1), {}, keys.bounds, declarations_.names(), false,
                         8) +
           "      }\n";
  }

  std::string channels(const Group&, const GradientSite& site) const {
    return fmt::format("      return a.{}.extent[{}];\n", declarations_.names().inputs[site.index],
                       declarations_.module().inputs[site.index].dims.size() - 1);
  }

  // Of the other tensor.
  std::string factor(const Group& group, const GradientSite& site) const {
    const SpecializedKeys& keys = *group.keys;
    const ir::NodeId leaf = keys.module.partials[site.partial].leaf;
    const auto& dot = std::get<ir::Dot>(keys.module[leaf].what);
    const std::string at = read_body(keys.module, {leaf, !site.second, true}, keys.bounds,
                                     declarations_.names(), "const vicinal::i64 row = ", 6);
    return at + fmt::format("      return vicinal::channel(a.{}, row, c);\n",
                            declarations_.names().inputs[site.second ? dot.first : dot.second]);
  }

  std::size_t slot_of(const GradientSite& site) const {
    return static_cast<std::size_t>(find_slot(slots_, site) - slots_.begin());
  }

  const Declarations& declarations_;
  const std::vector<CapturedSlot>& slots_;
  std::vector<Group> groups_;
};

}  // namespace

std::vector<CapturedSlot> captured_slots(const Specialized& differentiated) {
  std::vector<CapturedSlot> slots;
  const auto add = [&](const SpecializedKeys& keys, bool context) {
    for (const GradientSite& site : gradient_sites(keys, context)) {
      // One element is one query's only as long as one expression says which.
      const auto known = find_slot(slots, site);
      if (known == slots.end())
        slots.push_back({site.param, site.index, site.adding.how == analysis::Accumulation::with_the_tile});
      else
        known->in_place = false;
    }
  };
  add(differentiated.grid, false);
  if (differentiated.context) add(*differentiated.context, true);
  return slots;
}

std::string site_members(const Specialized& differentiated, const Declarations& declarations,
                         const std::vector<CapturedSlot>& slots) {
  return SitePrinter(differentiated, declarations, slots).run();
}

}  // namespace vicinal::emit
