// One attention block while it is checked: declarations in declarations.cpp, definitions in check.cpp, and
// what they may read in reads.cpp.
#pragma once

#include <initializer_list>

#include "compiler/check/expressions.h"

namespace vicinal::check {

// What a block can assign.
inline constexpr std::string_view kTargets[] = {"score", "mask", "scale", "sink",  "normalize",
                                                "query", "key",  "align", "output"};

class BlockChecker : ExpressionChecker {
 public:
  BlockChecker(const syntax::Program& program, const ast::Attention& block, const Bindings& bindings,
               diagnostics::Sink& sink);

  std::optional<CheckedSpec> run();

 private:
  // Declarations.

  // Takes a name of the block's own; false where it is taken already, or one that the language gives.
  bool introduce(const ast::Identifier& name);
  void declare_axis(const ast::Axis& axis);
  void axis_properties(const ast::Axis& axis);
  void unknown_property(const ast::Property& p);
  void causal(ir::Axis& a, const ast::Property& p);
  // At least 1; where it may be dynamic, checked at launch.
  NodeId axis_value(const ast::Property& p, std::string_view what, bool may_be_dynamic);
  std::optional<std::int32_t> known_int(NodeId id) const;
  // Made of params and constants only.
  bool launch_scalar(NodeId node) const;
  void declare_param(const ast::Param& param);
  void declare_input(const ast::Input& input);
  NodeId dimension(ExprId id);
  bool new_extent(const std::string& name) const;
  bool room_for_declaration(const ast::Identifier& name);
  void declare(const ast::Identifier& name, Term term);
  // Known, but wrong: its uses say nothing more.
  void poison(const ast::Identifier& name) { frame_.names.emplace(name.text, Term{}); }

  // Definitions.

  void define(const ast::Let& let);
  void assign(const ast::Assign& a);
  void choose(const ast::Assign& a, std::initializer_list<std::string_view> choices);

  // Reads.

  // What each assignment may read.
  void check_reads(ir::Root root, NodeId node, const ast::Assign& a);
  // Where `within` reads it; a read that stands in a let or was first written elsewhere has no place there.
  std::optional<Range> find_read(NodeId root, int forbidden, Range within) const;
  void check_mask(NodeId root);
  // What only a whole block can be judged by: which statements exclude each other.
  void whole_block();

  const ast::Attention& block_;
  const Bindings& bindings_;
  ir::Module& module_;
  Frame frame_;
  std::map<std::string, Range, std::less<>> taken_, assigned_;
  std::vector<std::pair<std::string, Range>> declared_;
  std::vector<Range> axis_ranges_, input_ranges_;
};

}  // namespace vicinal::check
