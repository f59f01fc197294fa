// The whole story of the compiler in one place: a program's block to a variant that a backend can take.
#pragma once

#include "compiler/check/check.h"
#include "compiler/emit/specialized.h"
#include "compiler/passes/pipeline.h"

namespace vicinal::driver {

struct Variant {
  check::CheckedSpec checked;  // before any pass: what the interpreter runs
  ir::Module optimized;        // after the pipeline
  emit::Specialized specialized;
  std::vector<analysis::LaunchCheck> launch_checks;
};

// Everything from names and types to specialised modules. Nothing when there were errors, all of which are in
// the sink; remarks are there too.
std::optional<Variant> compile_variant(const syntax::Program& program, const ast::Attention& block,
                                       const check::Bindings& bindings, diagnostics::Sink& sink,
                                       const passes::Observer& observe = nullptr);

// The variant with its derivatives (passes::differentiate), after the pipeline; emit::specialize takes it as
// it takes `optimized`.
ir::Module differentiated(const Variant& variant);
// As it is before its output expression: what gradients through that are computed from.
emit::Specialized before_output(const Variant& variant);

// The block of that name; with no name, the only one. The error (usage) lists what there is.
Result<const ast::Attention*> find_block(const syntax::Program& program, const std::string& name);

}  // namespace vicinal::driver
