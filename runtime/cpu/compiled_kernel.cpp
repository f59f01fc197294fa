#include "runtime/cpu/compiled_kernel.h"

#include <fmt/format.h>

#include <map>

#include "compiler/support/hash.h"

namespace vicinal::cpu {
CompiledKernel::CompiledKernel(const CodeGeneratorApi& generator, emit::CpuKernel kernel, std::string digest)
    : generator_(generator), kernel_(std::move(kernel)), digest_(std::move(digest)) {}

CompiledKernel::~CompiledKernel() {
  for (const Code* code : {&std::as_const(code_), &std::as_const(exact_)})
    if (code->owner != nullptr) generator_.release(code->owner);
}

const Code* CompiledKernel::exact_code() const {
  std::call_once(exact_once_, [&] {
    emit::CpuKernel exact = kernel_;
    exact.options.exact = true;
    // What is captured gets nothing from keys that are not kept: the first time was right.
    exact.sites.clear();
    exact.scale_sum = exact.sink_sum = false;
    std::string ignored;
    if (!generator_.compile(exact, exact_, ignored)) exact_ = {};
  });
  return exact_.owner == nullptr ? nullptr : &exact_;
}

Result<std::shared_ptr<const CompiledKernel>> CompiledKernel::make(const CodeGeneratorApi& generator,
                                                                   emit::CpuKernel kernel, bool& known) {
  // By digest, and only as long as somebody holds them.
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<const CompiledKernel>> made;
  std::string digest = support::sha256_hex(emit::print(kernel));
  {
    const std::lock_guard lock(mutex);
    if (const auto found = made.find(digest); found != made.end())
      if (auto kept = found->second.lock()) {
        known = true;
        return kept;
      }
  }
  known = false;
  auto compiled = std::make_shared<CompiledKernel>(generator, std::move(kernel), digest);
  std::string error;
  if (!generator.compile(compiled->kernel_, compiled->code_, error)) {
    if (const std::string& target = compiled->kernel_.options.target; !target.empty())
      return unexpected(ErrorKind::environment, "no code for " + target + ": " + error,
                        "leave cpu_target empty for the processor of this machine");
    return unexpected(ErrorKind::internal, "LLVM does not compile the kernel: " + error,
                      "this is a mistake of ours; the interpreter runs the spec meanwhile");
  }
  const std::lock_guard lock(mutex);
  std::erase_if(made, [](const auto& entry) { return entry.second.expired(); });
  made[std::move(digest)] = compiled;
  return std::shared_ptr<const CompiledKernel>(std::move(compiled));
}

Result<void> CompiledKernel::check(const runtime::Problem& problem) const {
  for (std::size_t i = 0; i < problem.inputs.size(); ++i) {
    const runtime::CapturedInput& x = problem.inputs[i];
    const DType want = kernel_.options.input_dtypes[i];
    if (x.data == nullptr || x.dtype == want) continue;
    return unexpected(ErrorKind::spec,
                      fmt::format("input `{}` is {}, and the kernel was compiled for {}",
                                  kernel_.declarations().inputs[i].name, name_of(x.dtype), name_of(want)),
                      "name its dtype in CompileOptions::input_dtypes, or convert it");
  }
  return {};
}

}  // namespace vicinal::cpu
