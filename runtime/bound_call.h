// A call's arguments, bound and kept: the next call mostly differs in where its tensors are, and is then
// bound without checks and without memory.
#pragma once

#include "runtime/kernel_plan.h"

namespace vicinal::runtime {

class BoundCall {
 public:
  // Calls `bind` where the arguments differ in more than their tensors' addresses from those of the call
  // before. Afterwards problem() is this call's.
  template <class Bind>
  Result<void> bind(const ir::Module& module, const RunArguments& arguments, const Bind& bind) {
    if (bound_ && same_but_for_addresses(arguments)) {
      take_addresses(module, arguments);
      return {};
    }
    bound_ = false;
    VICINAL_TRY(problem_, bind(arguments));
    key_ = plan_key(module, problem_);
    arguments_ = arguments;
    bound_ = true;
    return {};
  }

  const Problem& problem() const { return problem_; }
  const std::vector<std::int64_t>& key() const { return key_; }  // plan_key() of the problem

 private:
  bool same_but_for_addresses(const RunArguments& arguments) const;
  void take_addresses(const ir::Module& module, const RunArguments& arguments);

  bool bound_ = false;
  RunArguments arguments_;
  Problem problem_;
  std::vector<std::int64_t> key_;
};

}  // namespace vicinal::runtime
