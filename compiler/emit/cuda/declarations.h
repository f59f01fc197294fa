// What every emitted program declares of a variant: its Parameters, its axes, and what its templates need to
// know at compile time.
#pragma once

#include <algorithm>
#include <functional>

#include "compiler/emit/cuda/kernel_source.h"
#include "compiler/emit/cuda/printer.h"

namespace vicinal::emit {

class Declarations {
 public:
  // `used` says what the program reads.
  Declarations(const Specialized& variant, const KernelOptions& options, Uses used);

  const ir::Module& module() const { return module_; }
  const Names& names() const { return names_; }
  std::size_t rank() const { return std::max<std::size_t>(1, module_.axes.size()); }
  // Some axis has a window, a dilation or causality.
  bool neighborhood() const;

  // The members of Parameters, in the order of the slots.
  std::string parameter_members(std::vector<ParameterSlot>& slots) const;
  // "  static constexpr bool name = value;"
  static std::string flag(std::string_view name, bool value);
  std::string axis_function() const;
  // A member function template over the kind of key, with the body for each.
  using Body = std::function<std::string(const SpecializedKeys&, int indent)>;
  std::string pair_function(std::string_view signature, const Body& body) const;

  static constexpr std::string_view kHead = "\n  static VICINAL_DEVICE ";

 private:
  const Specialized& variant_;
  const KernelOptions& options_;
  const ir::Module& module_;
  Uses used_;
  Names names_;
};

// As templates/ spells it.
std::string_view element_type(DType dtype);

}  // namespace vicinal::emit
