#include "compiler/driver/gradient_text.h"

#include <fmt/format.h>

#include "compiler/ir/language.h"

namespace vicinal::driver {

GradientText gradient_text(const ir::Module& module) {
  std::vector<ir::NodeId> nodes;
  for (const ir::Partial& p : module.partials) nodes.push_back(p.leaf), nodes.push_back(p.value);
  ir::LanguageText text = ir::write_language(module, nodes);
  GradientText result{std::move(text.lets), {}};
  for (std::size_t i = 0; i < module.partials.size(); ++i)
    result.derivatives.push_back({std::string(ir::name_of(module.partials[i].of)),
                                  std::move(text.expressions[2 * i]),
                                  std::move(text.expressions[2 * i + 1])});
  return result;
}

std::string print_gradient(const ir::Module& module) {
  const GradientText text = gradient_text(module);
  std::string out = fmt::format("# {}: derivatives at a pair that is kept\n", module.name);
  for (const std::string& let : text.lets) out += let + '\n';
  for (const GradientText::Derivative& d : text.derivatives)
    out += fmt::format("d({})/d({}) = {}\n", d.of, d.leaf, d.value);
  // What is not assigned is the identity.
  if (!module.root(ir::Root::score).valid()) out += "d(score)/d(score) = 1.0\n";
  if (!module.root(ir::Root::output).valid()) out += "d(output)/d(out) = 1.0\n";
  return out;
}

}  // namespace vicinal::driver
