// Syntax to IR: names, types and meaning. Reports every mistake it finds and goes on.
#pragma once

#include <map>
#include <optional>
#include <set>

#include "compiler/ir/module.h"
#include "compiler/syntax/program.h"

namespace vicinal::check {

inline constexpr std::size_t kMaxNodes = 4096;  // before sum and any are unrolled
inline constexpr std::size_t kMaxUnrolledNodes = 65536;
inline constexpr std::size_t kMaxDeclarations = 256;  // inputs and params
inline constexpr int kMaxInputRank = 5;

// What a caller chooses about params. Names and types have been matched against the block's params.
struct Bindings {
  std::map<std::string, ir::Value, std::less<>> values;
  std::set<std::string, std::less<>> dynamic;
};

struct CheckedSpec {
  ir::Module module;
  std::vector<source::Range> origins;  // of each node, where it was first written
  std::vector<source::Range> axis_ranges, input_ranges;
};

// Checks one block against the functions it can see. Nothing when there were errors.
std::optional<CheckedSpec> check(const syntax::Program& program, const ast::Attention& block,
                                 const Bindings& bindings, diagnostics::Sink& sink);

// Checks every function by itself, called or not.
void check_functions(const syntax::Program& program, diagnostics::Sink& sink);

}  // namespace vicinal::check
