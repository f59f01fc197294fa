#include "runtime/cuda_kernel.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <limits>

namespace vicinal::runtime {
namespace {

std::vector<cuda::GridAxisWords> words(const std::vector<GridAxis>& axes) {
  std::vector<cuda::GridAxisWords> result;
  for (const GridAxis& a : axes) result.push_back({a.extent, a.local, a.origin});
  return result;
}

}  // namespace

std::string arch_name(int capability) {
  return fmt::format("sm_{}{}", capability, capability >= 90 ? "a" : "");
}

Result<int> capability_of(std::string_view arch) {
  int capability = 0;
  const std::string_view digits = arch.starts_with("sm_") ? arch.substr(3) : std::string_view();
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), capability);
  const std::string_view rest = digits.substr(static_cast<std::size_t>(end - digits.data()));
  if (error != std::errc() || (rest != "" && rest != "a" && rest != "f"))
    return unexpected(ErrorKind::usage, fmt::format("`{}` is no GPU architecture", arch),
                      "they are named like sm_80 and sm_90a");
  return capability;
}

Result<cache::KernelKey> kernel_key(Engine& engine, const emit::KernelSource& source,
                                    const std::string& arch) {
  VICINAL_TRY(const cuda::NvrtcCompiler compiler, engine.nvrtc());
  VICINAL_TRY(const std::string digest, compiler.digest());
  VICINAL_TRY(const std::string headers, engine.headers_digest());
  cache::KernelKey key;
  key.source = source.text;
  key.entry = source.entry;
  key.arch = arch;
  key.options = compiler.fixed_options(arch);
  key.compiler = fmt::format("nvrtc {}.{} {}", compiler.major(), compiler.minor(), digest);
  key.emitter = fmt::format("{} {}", emit::kEmitterVersion, headers);
  return key;
}

Result<CompiledCubin> compile_cubin(Engine& engine, const emit::KernelSource& source,
                                    const std::string& arch) {
  const auto start = std::chrono::steady_clock::now();
  VICINAL_TRY(const cache::KernelKey key, kernel_key(engine, source, arch));
  Result<cache::CachedKernel> kernel = engine.cache().get_or_compile(key, [&]() -> Result<cache::Payload> {
    VICINAL_TRY(const cuda::NvrtcCompiler compiler, engine.nvrtc());
    VICINAL_TRY(std::vector<cuda::HeaderText> headers, engine.headers());
    cuda::CompileRequest request;
    request.source = source.text;
    request.entry = source.entry;
    request.arch = arch;
    request.headers = std::move(headers);
    request.time_limit = engine.settings().compile_timeout.value;
    VICINAL_TRY(const cuda::Compiled compiled, compiler.compile(request));
    return cache::Payload{
        std::string(reinterpret_cast<const char*>(compiled.cubin.data()), compiled.cubin.size()),
        compiled.log, fmt::format("compiled in {:.1f} ms", compiled.milliseconds)};
  });
  if (!kernel) return kernel.forward_error();
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  return CompiledCubin{*std::move(kernel), cache::digest(key), time.count()};
}

cuda::TensorWords words(const Strided& t) {
  return {reinterpret_cast<std::uint64_t>(t.data), t.batch, t.head, t.dim, t.axis};
}

cuda::ForwardWords forward_words(const Problem& p, const cuda::TileWords& tiles) {
  cuda::ForwardWords forward;
  forward.batch = p.batch;
  forward.heads = p.heads;
  forward.kv_heads = p.kv_heads;
  forward.tokens = p.tokens;
  forward.keys = p.keys;
  forward.context = p.context;
  forward.q_axis = words(p.q_axis);
  forward.k_axis = words(p.k_axis);
  forward.q = words(p.q);
  forward.k = words(p.k);
  forward.v = words(p.v);
  forward.context_k = words(p.context_k);
  forward.context_v = words(p.context_v);
  forward.out = words(p.out);
  forward.lse = words(p.lse);
  forward.tiles = tiles;
  return forward;
}

Result<cuda::ParameterWords> parameter_words(const std::vector<emit::ParameterSlot>& slots,
                                             const emit::KernelOptions& options, const ir::Module& module,
                                             const Problem& p) {
  cuda::ParameterWords parameters;
  for (const emit::ParameterSlot& slot : slots) {
    switch (slot.kind) {
      case emit::ParameterSlot::Kind::param: {
        const ir::Value value = p.params[slot.index];
        switch (module.params[slot.index].type) {
          case ir::Type::real: parameters.add_float(static_cast<float>(value.f)); break;
          case ir::Type::integer: parameters.add_int(value.i); break;
          case ir::Type::boolean: parameters.add_int(value.b); break;
        }
        break;
      }
      case emit::ParameterSlot::Kind::extent: parameters.add_int(p.extents[slot.index]); break;
      case emit::ParameterSlot::Kind::input: {
        const CapturedInput& input = p.inputs[slot.index];
        const DType want = slot.index < options.input_dtypes.size()
                               ? options.input_dtypes[slot.index]
                               : emit::default_input_dtype(module.inputs[slot.index].type);
        if (input.dtype != want)
          return unexpected(ErrorKind::spec,
                            fmt::format("input `{}` is {}, and the kernel was compiled for {}",
                                        module.inputs[slot.index].name, name_of(input.dtype), name_of(want)),
                            "name its dtype in CompileOptions::input_dtypes, or convert it");
        parameters.add_input(reinterpret_cast<std::uint64_t>(input.data), input.strides, input.extents);
        break;
      }
    }
  }
  return parameters;
}

Result<Launch> prepare_launch(const emit::KernelSource& source, const emit::KernelOptions& options,
                              const ir::Module& module, const Problem& p, const cuda::TileWords& tiles) {
  VICINAL_TRY(const cuda::ParameterWords parameters, parameter_words(source.parameters, options, module, p));
  Launch launch;
  launch.arguments = cuda::write_arguments(forward_words(p, tiles), parameters);
  const std::int64_t blocks = options.kind == emit::KernelKind::reference
                                  ? (p.rows() + source.rows - 1) / source.rows
                                  : tiles.rows * p.heads * p.batch;
  if (blocks > std::numeric_limits<std::int32_t>::max())
    return unexpected(ErrorKind::limit, fmt::format("{} query tiles are more than one launch takes", blocks),
                      "split the batch or the heads");
  launch.shape.grid.x = static_cast<unsigned>(blocks);
  launch.shape.block.x = static_cast<unsigned>(source.threads);
  return launch;
}

}  // namespace vicinal::runtime
