// The library's one export: compiles kernels for this machine with LLVM's ORC, and shows what it made of
// them.
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/IR/Verifier.h>
#include <llvm/Passes/PassBuilder.h>
#include <llvm/Support/SmallVectorMemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>

#include <chrono>
#include <mutex>

#include "runtime/cpu/generated_code.h"
#include "runtime/cpu/llvm/kernel.h"
#include "runtime/cpu/llvm/machine_code.h"
#include "runtime/cpu/llvm/matrices.h"
#include "runtime/cpu/llvm/operations.h"
#include "runtime/cpu/llvm/products.h"

namespace vicinal::cpu {
namespace {

using llvm::orc::JITDylib;
using llvm::orc::LLJIT;

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// What a process has one of.
class Generator {
 public:
  // Null with the reason in `why` where this machine cannot be generated for.
  static Generator* get(std::string& why) {
    static std::string error;
    static Generator* const generator = []() -> Generator* {
      llvm::InitializeNativeTarget();
      llvm::InitializeNativeTargetAsmPrinter();
      llvm::Expected<CpuTarget> target = cpu_target({});
      if (!target) {
        error = llvm::toString(target.takeError());
        return nullptr;
      }
      auto made = std::make_unique<Generator>(std::move(*target));
      llvm::Expected<std::unique_ptr<LLJIT>> jit =
          llvm::orc::LLJITBuilder().setJITTargetMachineBuilder(made->target_.builder).create();
      if (!jit) {
        error = llvm::toString(jit.takeError());
        return nullptr;
      }
      made->jit_ = std::move(*jit);
      return made.release();  // never destroyed: code of its making may run until the process ends
    }();
    if (generator == nullptr) why = error;
    return generator;
  }

  explicit Generator(CpuTarget target) : target_(std::move(target)), description_(target_.describe()) {}

  const CpuTarget& target() const { return target_; }
  const char* description() const { return description_.c_str(); }

  // Links an object; its symbols are found in the result, which release() takes.
  llvm::Expected<JITDylib*> link(llvm::SmallVectorImpl<char>& object) {
    llvm::Expected<JITDylib&> library =
        jit_->createJITDylib("kernel" + std::to_string(next_.fetch_add(1, std::memory_order_relaxed)));
    if (!library) return library.takeError();
    llvm::orc::SymbolMap symbols;
    for (const auto& functions : {library_functions(), matrix_functions()})
      for (const HostFunction& f : functions)
        symbols[jit_->mangleAndIntern(f.name)] = {llvm::orc::ExecutorAddr::fromPtr(f.address),
                                                  llvm::JITSymbolFlags::Exported};
    if (llvm::Error error = library->define(llvm::orc::absoluteSymbols(std::move(symbols)))) return error;
    // Of LLVM's own helpers and of libm, what the processor has no instruction for.
    llvm::Expected<std::unique_ptr<llvm::orc::DynamicLibrarySearchGenerator>> process =
        llvm::orc::DynamicLibrarySearchGenerator::GetForCurrentProcess(
            jit_->getDataLayout().getGlobalPrefix());
    if (!process) return process.takeError();
    library->addGenerator(std::move(*process));
    auto buffer = std::make_unique<llvm::SmallVectorMemoryBuffer>(
        llvm::SmallVector<char, 0>(object.begin(), object.end()), false);
    if (llvm::Error error = jit_->addObjectFile(*library, std::move(buffer))) return error;
    return &*library;
  }

  template <class F>
  llvm::Error find(JITDylib& library, const char* name, F*& function) {
    llvm::Expected<llvm::orc::ExecutorAddr> address = jit_->lookup(library, name);
    if (!address) return address.takeError();
    function = address->toPtr<F*>();
    return llvm::Error::success();
  }

  void release(JITDylib& library) { llvm::consumeError(jit_->getExecutionSession().removeJITDylib(library)); }

 private:
  CpuTarget target_;
  std::string description_;
  std::unique_ptr<LLJIT> jit_;
  std::atomic<std::uint64_t> next_{0};
};

// A module with what a caller emits into it, and the machine that it is for.
struct Emitted {
  std::unique_ptr<llvm::LLVMContext> context = std::make_unique<llvm::LLVMContext>();
  std::unique_ptr<llvm::TargetMachine> machine;
  std::unique_ptr<llvm::Module> module;
};

llvm::Expected<Emitted> start(CpuTarget target) {
  Emitted emitted;
  llvm::Expected<std::unique_ptr<llvm::TargetMachine>> machine = target.builder.createTargetMachine();
  if (!machine) return machine.takeError();
  emitted.machine = std::move(*machine);
  emitted.module = std::make_unique<llvm::Module>("vicinal", *emitted.context);
  emitted.module->setDataLayout(emitted.machine->createDataLayout());
  emitted.module->setTargetTriple(emitted.machine->getTargetTriple().str());
  return emitted;
}

// What is wrong with a module is a mistake of ours; found here rather than by a crash in LLVM.
llvm::Error verify(const llvm::Module& module) {
  std::string what;
  llvm::raw_string_ostream out(what);
  return llvm::verifyModule(module, &out) ? llvm::createStringError("the emitted code is malformed: " + what)
                                          : llvm::Error::success();
}

// `runs`: not only to be read; then the processor that the kernel is for must be this one, or less.
llvm::Expected<Emitted> emit_module(const Generator& generator, const emit::CpuKernel& kernel, bool runs,
                                    CodeShape& shape) {
  const std::string& name = kernel.options.target;
  llvm::Expected<CpuTarget> target = name.empty() ? generator.target() : cpu_target(name);
  if (!target) return target.takeError();
  if (runs && !target->is_part_of(generator.target()))
    return llvm::createStringError("this machine has not all that a " + name + " has");
  llvm::Expected<Emitted> emitted = start(*target);
  if (!emitted) return emitted.takeError();
  Emitter e(*emitted->module, *target);
  const KernelLayout layout(kernel, blocking(*target, kernel));
  emit_kernel(e, layout, kernel);
  shape = {layout.block.tile_q, layout.block.tile_k, static_cast<std::size_t>(layout.size)};
  if (llvm::Error error = verify(*emitted->module)) return error;
  return std::move(*emitted);
}

bool failed(llvm::Error error, std::string& text) {
  if (!error) return false;
  text = llvm::toString(std::move(error));
  return true;
}

bool compile(const emit::CpuKernel& kernel, Code& code, std::string& error) {
  Generator* const generator = Generator::get(error);
  if (generator == nullptr) return false;
  const auto start = std::chrono::steady_clock::now();
  llvm::Expected<Emitted> emitted = emit_module(*generator, kernel, true, code.shape);
  if (!emitted) return failed(emitted.takeError(), error), false;
  code.build_ms = milliseconds_since(start);
  llvm::SmallVector<char, 0> object;
  if (failed(generate_code(*emitted->module, *emitted->machine, llvm::CodeGenFileType::ObjectFile, object),
             error))
    return false;
  code.bytes = object.size();
  llvm::Expected<JITDylib*> library = generator->link(object);
  if (!library) return failed(library.takeError(), error), false;
  code.owner = *library;
  if (failed(generator->find(**library, kBeginSymbol, code.begin), error) ||
      failed(generator->find(**library, kVisitSymbol, code.visit), error) ||
      failed(generator->find(**library, kEndSymbol, code.end), error)) {
    generator->release(**library);
    code.owner = nullptr;
    return false;
  }
  code.compile_ms = milliseconds_since(start);
  return true;
}

void release(void* owner) {
  std::string ignored;
  if (Generator* const generator = Generator::get(ignored))
    generator->release(*static_cast<JITDylib*>(owner));
}

// As LLVM's own pipeline would have it, for comparison; kernels go to code generation as they are emitted.
void optimize(llvm::Module& module, llvm::TargetMachine& machine) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager calls;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(calls);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, calls, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3).run(module, modules);
}

bool text(const emit::CpuKernel& kernel, CodeText what, std::string& text, std::string& error) {
  Generator* const generator = Generator::get(error);
  if (generator == nullptr) return false;
  CodeShape shape;
  llvm::Expected<Emitted> emitted = emit_module(*generator, kernel, false, shape);
  if (!emitted) return failed(emitted.takeError(), error), false;
  if (what == CodeText::assembly) {
    llvm::SmallVector<char, 0> assembly;
    if (failed(
            generate_code(*emitted->module, *emitted->machine, llvm::CodeGenFileType::AssemblyFile, assembly),
            error))
      return false;
    text.assign(assembly.begin(), assembly.end());
    return true;
  }
  if (what == CodeText::optimized_llvm) optimize(*emitted->module, *emitted->machine);
  llvm::raw_string_ostream out(text);
  emitted->module->print(out, nullptr);
  return true;
}

bool burst(FmaBurst& burst, std::string& error) {
  Generator* const generator = Generator::get(error);
  if (generator == nullptr) return false;
  llvm::Expected<Emitted> emitted = start(generator->target());
  if (!emitted) return failed(emitted.takeError(), error), false;
  constexpr const char* kName = "vicinal_fma_burst";
  {
    Emitter e(*emitted->module, generator->target());
    burst.flops = emit_fma_burst(e, kName);
  }
  llvm::SmallVector<char, 0> object;
  if (failed(generate_code(*emitted->module, *emitted->machine, llvm::CodeGenFileType::ObjectFile, object),
             error))
    return false;
  llvm::Expected<JITDylib*> library = generator->link(object);
  if (!library) return failed(library.takeError(), error), false;
  return !failed(generator->find(**library, kName, burst.run), error);
}

bool evaluate(ir::Op op, const float* x, float* y, std::size_t count, std::string& error) {
  const ir::OpInfo& info = ir::info(op);
  if (info.arity != 1 || info.operands[0] != ir::Type::real || info.result != ir::Type::real) {
    error = "not an operation of one float";
    return false;
  }
  Generator* const generator = Generator::get(error);
  if (generator == nullptr) return false;
  llvm::Expected<Emitted> emitted = start(generator->target());
  if (!emitted) return failed(emitted.takeError(), error), false;
  {
    Emitter e(*emitted->module, generator->target());
    llvm::Function* const f = e.function("vicinal_evaluate", e.b.getVoidTy(), {e.ptr, e.ptr}, true);
    Value* const operand[] = {e.load(e.vector(e.f32), f->getArg(0))};
    e.store(operation(e, op, operand), f->getArg(1));
    e.b.CreateRetVoid();
  }
  llvm::SmallVector<char, 0> object;
  if (failed(generate_code(*emitted->module, *emitted->machine, llvm::CodeGenFileType::ObjectFile, object),
             error))
    return false;
  llvm::Expected<JITDylib*> library = generator->link(object);
  if (!library) return failed(library.takeError(), error), false;
  void (*function)(const float*, float*) = nullptr;
  const bool found = !failed(generator->find(**library, "vicinal_evaluate", function), error);
  for (std::size_t i = 0; found && i < count; i += kLanes) {
    float in[kLanes] = {}, out[kLanes];
    const std::size_t some = std::min<std::size_t>(kLanes, count - i);
    std::copy_n(x + i, some, in);
    function(in, out);
    std::copy_n(out, some, y + i);
  }
  generator->release(**library);
  return found;
}

}  // namespace
}  // namespace vicinal::cpu

extern "C" __attribute__((visibility("default"))) const vicinal::cpu::CodeGeneratorApi*
vicinal_code_generator() {
  using namespace vicinal::cpu;
  static const CodeGeneratorApi api = [] {
    std::string why;
    Generator* const generator = Generator::get(why);
    static std::string host = generator != nullptr ? generator->description() : "unusable: " + why;
    return CodeGeneratorApi{VICINAL_CODE_INTERFACE, host.c_str(), compile, release, text, burst, evaluate};
  }();
  return &api;
}
