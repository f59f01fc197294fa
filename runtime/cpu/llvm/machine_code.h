// From a module to machine code.
#pragma once

#include <llvm/ADT/SmallVector.h>
#include <llvm/IR/Module.h>
#include <llvm/Support/CodeGen.h>
#include <llvm/Target/TargetMachine.h>

namespace vicinal::cpu {

// An object file, or text for an assembler. Runs LLVM's code generation without the passes that find nothing
// to do in a kernel, which is emitted as it is to be selected: they are a third of the time.
llvm::Error generate_code(llvm::Module& module, llvm::TargetMachine& machine, llvm::CodeGenFileType type,
                          llvm::SmallVectorImpl<char>& into);

}  // namespace vicinal::cpu
