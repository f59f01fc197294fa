#include "runtime/cpu/llvm/machine_code.h"

#include <llvm/Analysis/TargetTransformInfo.h>
#include <llvm/CodeGen/ExpandReductions.h>
#include <llvm/CodeGen/MachineModuleInfo.h>
#include <llvm/CodeGen/Passes.h>
#include <llvm/CodeGen/TargetPassConfig.h>
#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/Support/Error.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/Transforms/Scalar.h>

namespace vicinal::cpu {
namespace {

// LLVM keeps this step for its targets' own configurations.
struct Steps : llvm::TargetPassConfig {
  static bool add_instruction_selection(llvm::TargetPassConfig& config) {
    return (config.*(&Steps::addCoreISelPasses))();
  }
};

// What is left out of the passes after selection. Blocks that fill the registers are emitted in the order
// that they are to run in.
char* const kLeftOut[] = {&llvm::MachineSchedulerID};

bool uses(const llvm::Module& module, std::initializer_list<llvm::Intrinsic::ID> intrinsics) {
  for (const llvm::Function& f : module)
    if (std::ranges::find(intrinsics, f.getIntrinsicID()) != intrinsics.end()) return true;
  return false;
}

}  // namespace

llvm::Error generate_code(llvm::Module& module, llvm::TargetMachine& machine, llvm::CodeGenFileType type,
                          llvm::SmallVectorImpl<char>& into) {
  auto& target = static_cast<llvm::LLVMTargetMachine&>(machine);
  llvm::raw_svector_ostream out(into);
  llvm::legacy::PassManager passes;
  llvm::TargetPassConfig* const config = target.createPassConfig(passes);
  auto* const machine_functions = new llvm::MachineModuleInfoWrapperPass(&target);
  config->setDisableVerify(true);
  for (char* const id : kLeftOut) config->disablePass(id);
  passes.add(config);
  passes.add(machine_functions);
  passes.add(llvm::createTargetTransformInfoWrapperPass(machine.getTargetIRAnalysis()));
  // Of the passes before selection those that make instructions of what not every target has, where it is
  // used.
  if (uses(module, {llvm::Intrinsic::masked_gather}))
    passes.add(llvm::createScalarizeMaskedMemIntrinLegacyPass());
  if (uses(module, {llvm::Intrinsic::vector_reduce_smin, llvm::Intrinsic::vector_reduce_smax}))
    passes.add(llvm::createExpandReductionsPass());
  config->addISelPrepare();
  if (Steps::add_instruction_selection(*config))
    return llvm::createStringError("nothing selects instructions");
  config->addMachinePasses();
  config->setInitialized();
  if (target.addAsmPrinter(passes, out, nullptr, type, machine_functions->getMMI().getContext()))
    return llvm::createStringError("this target writes no such file");
  passes.add(llvm::createFreeMachineFunctionPass());
  passes.run(module);
  return llvm::Error::success();
}

}  // namespace vicinal::cpu
