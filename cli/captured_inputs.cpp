#include "cli/captured_inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "compiler/ir/evaluate.h"
#include "runtime/host/elements.h"
#include "runtime/kernel_impl.h"

namespace vicinal::cli {
namespace {

const ir::Module& module_of(const Spec& spec) {
  return spec.impl().variant.checked.module;
}

bool has_input(const Spec& spec, std::string_view name) {
  for (const ir::Input& input : module_of(spec).inputs)
    if (input.name == name) return true;
  return false;
}

Result<void> fits_32_bits(const std::string& name, const files::Array& array) {
  if (array.dtype != DType::i64) return {};
  for (std::size_t i = 0; i < array.bytes.size() / 8; ++i) {
    const double x = host::load_element(array.bytes.data(), DType::i64, static_cast<std::int64_t>(i));
    if (x < -2147483648.0 || x > 2147483647.0)
      return unexpected(ErrorKind::usage,
                        fmt::format("element {} of input `{}` does not fit 32 bits", i, name),
                        "ints are 32-bit");
  }
  return {};
}

class InputMaker {
 public:
  InputMaker(const Spec& spec, const ProblemOptions& options, HostProblem& p)
      : spec_(spec), options_(options), module_(module_of(spec)), p_(p) {}

  Result<void> run() {
    std::vector<const ir::Input*> missing;
    for (const ir::Input& input : module_.inputs)
      if (!p_.inputs.contains(input.name)) missing.push_back(&input);
    if (missing.empty()) return {};
    const std::int64_t tokens = product_of(p_.grid);
    CompileOptions options = p_.compile_options();
    options.backend = Backend::interpreter;
    VICINAL_TRY(const Kernel kernel, compile(spec_, options));
    Result<Support> tried = unexpected(ErrorKind::spec, "no extent was tried");
    for (std::int64_t extent : {std::int64_t{8}, tokens, 2 * tokens, 4 * tokens}) {
      for (const ir::Input* input : missing) {
        VICINAL_TRY(p_.inputs[input->name], made_up(*input, extent));
      }
      tried = kernel.supports(p_.arguments_to_ask());
      if (tried) break;
    }
    if (!tried) return tried.forward_error();
    for (const ir::Input* input : missing)
      p_.notes.push_back(fmt::format("input {}: {}[{}] is made up ({})", input->name,
                                     ir::name_of(input->type),
                                     fmt::join(p_.inputs[input->name].view.shape, ", "),
                                     input->type == ir::Type::real      ? "normal"
                                     : input->type == ir::Type::integer ? "ascending, 0 to 7"
                                                                        : "fair coin"));
    return {};
  }

 private:
  Result<HostTensor> made_up(const ir::Input& input, std::int64_t extent) {
    Shape shape;
    for (ir::NodeId dim : input.dims) {
      const auto value =
          ir::evaluate(module_, dim, [&](const ir::Symbol& s) { return extent_of(s, extent); });
      if (!value || value->i < 0)
        return unexpected(ErrorKind::spec, fmt::format("cannot choose the extents of input `{}`", input.name),
                          "pass it with --input");
      shape.push_back(value->i);
    }
    const DType dtype = emit::default_input_dtype(input.type);
    HostTensor t = make_tensor(dtype, shape);
    Random source(options_.seed * 64 + 16 + static_cast<std::uint64_t>(&input - module_.inputs.data()));
    const std::int64_t row = shape.empty() ? 1 : std::max<std::int64_t>(1, shape.back());
    for (std::int64_t i = 0; i < t.elements(); ++i) {
      // Ascending along the last dimension: as document numbers, offsets and the like are.
      const double value = input.type == ir::Type::real      ? source.normal()
                           : input.type == ir::Type::integer ? static_cast<double>(i % row * 8 / row)
                                                             : static_cast<double>(source.bits() & 1);
      host::store_element(t.view.data, dtype, i, value);
    }
    return t;
  }

  std::optional<ir::Value> extent_of(const ir::Symbol& s, std::int64_t fresh) const {
    using ir::SymbolKind;
    const auto integer = [](std::int64_t x) { return ir::int_value(static_cast<std::int32_t>(x)); };
    switch (s.kind) {
      case SymbolKind::batch: return integer(p_.q.view.shape[0]);
      case SymbolKind::heads: return integer(p_.q.view.shape[1]);
      case SymbolKind::kv_heads: return integer(p_.k.view.shape[1]);
      case SymbolKind::tokens: return integer(p_.q.tokens());
      case SymbolKind::keys: return integer(p_.k.tokens());
      case SymbolKind::context:
        return integer(p_.context_k.view.shape.empty() ? 0 : p_.context_k.view.shape[2]);
      case SymbolKind::head_dim: return integer(p_.head_dim);
      case SymbolKind::axis_length: return integer(p_.grid[s.index]);
      case SymbolKind::named_extent: return integer(fresh);
      case SymbolKind::param: {
        const auto given = p_.params.find(module_.params[s.index].name);
        if (given == p_.params.end()) return module_.params[s.index].value;
        const auto value = runtime::convert_param(given->first, module_.params[s.index].type, given->second);
        return value ? std::optional(*value) : std::nullopt;
      }
      default: return std::nullopt;
    }
  }

  const Spec& spec_;
  const ProblemOptions& options_;
  const ir::Module& module_;
  HostProblem& p_;
};

}  // namespace

Result<void> capture_inputs(const Spec& spec, const ProblemOptions& options, HostProblem& p) {
  for (const std::string& text : options.inputs) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos)
      return unexpected(ErrorKind::usage, fmt::format("`--input {}` is not NAME=FILE", text));
    const std::string name = text.substr(0, equals);
    if (!has_input(spec, name))
      return unexpected(ErrorKind::usage, fmt::format("the spec has no input `{}`", name));
    VICINAL_TRY(files::Array array, files::read_npy(text.substr(equals + 1)));
    VICINAL_TRY_VOID(fits_32_bits(name, array));
    p.inputs[name] = tensor_from(std::move(array));
  }
  return {};
}

Result<void> make_up_inputs(const Spec& spec, const ProblemOptions& options, HostProblem& p) {
  return InputMaker(spec, options, p).run();
}

}  // namespace vicinal::cli
