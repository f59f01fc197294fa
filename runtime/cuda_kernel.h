// A variant on a CUDA device: its key, its cubin through the cache, and its launch.
#pragma once

#include "compiler/emit/cuda/kernel_source.h"
#include "runtime/binding/problem.h"
#include "runtime/cuda/arguments_writer.h"
#include "runtime/cuda/launch.h"
#include "runtime/engine.h"

namespace vicinal::runtime {

// "sm_90a" for 90: architecture-specific instructions belong to one capability, and cubins are made for the
// device at hand anyway.
std::string arch_name(int capability);
// The inverse. Errors (usage): there is no such architecture.
Result<int> capability_of(std::string_view arch);

// What the cubin depends on.
Result<cache::KernelKey> kernel_key(Engine& engine, const emit::KernelSource& source,
                                    const std::string& arch);

struct CompiledCubin {
  cache::CachedKernel kernel;
  std::string digest;
  double milliseconds = 0;  // of the compile or of the cache's answer
};
Result<CompiledCubin> compile_cubin(Engine& engine, const emit::KernelSource& source,
                                    const std::string& arch);

cuda::TensorWords words(const Strided& tensor);
// The arguments that every program takes, and the words of an emitted Parameters. Errors (spec) when an
// input's dtype is not what was compiled.
cuda::ForwardWords forward_words(const Problem& problem, const cuda::TileWords& tiles);
Result<cuda::ParameterWords> parameter_words(const std::vector<emit::ParameterSlot>& slots,
                                             const emit::KernelOptions& options, const ir::Module& module,
                                             const Problem& problem);

// Blocks, threads and argument bytes of one run. Errors (spec) when a tensor's dtype is not what was
// compiled.
struct Launch {
  cuda::LaunchShape shape;
  std::vector<std::byte> arguments;
};
Result<Launch> prepare_launch(const emit::KernelSource& source, const emit::KernelOptions& options,
                              const ir::Module& module, const Problem& problem, const cuda::TileWords& tiles);

}  // namespace vicinal::runtime
