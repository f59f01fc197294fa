#include <fmt/format.h>

#include "compiler/diagnostics/render.h"
#include "compiler/driver/load.h"
#include "compiler/support/text.h"
#include "runtime/kernel_impl.h"

namespace vicinal {
namespace {

std::vector<Message> messages_of(const diagnostics::Sink& sink, const source::SourceMap& sources) {
  std::vector<Message> result;
  for (const diagnostics::Diagnostic& d : sink.sorted()) {
    const source::Position at = sources.position(d.range.file, d.range.begin);
    constexpr std::string_view levels[] = {"error", "warning", "remark"};
    result.push_back({std::string(levels[static_cast<int>(d.level())]), std::string(d.name()), d.message,
                      std::string(sources.name(d.range.file)), at.line, at.column});
  }
  return result;
}

template <class List>
std::vector<std::string> names(const List& list) {
  std::vector<std::string> result;
  for (const auto& element : list) result.push_back(element.name);
  return result;
}

}  // namespace

namespace runtime {

Result<Spec> make_spec(syntax::Program program, const std::string& block, diagnostics::Sink& sink) {
  const auto failed = [&] {
    return unexpected(ErrorKind::spec, diagnostics::render_text(sink.sorted(), program.sources, false));
  };
  if (sink.has_errors()) return failed();
  VICINAL_TRY(const ast::Attention* attention, driver::find_block(program, block));
  std::optional<driver::Variant> variant = driver::compile_variant(program, *attention, {}, sink);
  if (!variant) return failed();
  auto impl = std::make_shared<Spec::Impl>();
  impl->block = static_cast<std::size_t>(attention - program.files[0].attentions.data());
  impl->messages = messages_of(sink, program.sources);
  impl->program = std::move(program);
  impl->variant = *std::move(variant);
  return Spec(std::move(impl));
}

Result<check::Bindings> make_bindings(const ir::Module& module,
                                      const std::map<std::string, ParamValue>& params,
                                      const std::set<std::string>& dynamic) {
  const auto find = [&](const std::string& name) -> Result<const ir::Param*> {
    std::vector<std::string_view> known;
    for (const ir::Param& param : module.params) {
      if (param.name == name) return &param;
      known.push_back(param.name);
    }
    std::string list;
    for (std::string_view k : known) list += fmt::format("{}`{}`", list.empty() ? "" : ", ", k);
    const std::string_view near = support::nearest(name, known);
    return unexpected(ErrorKind::usage, fmt::format("`{}` has no param `{}`", module.name, name),
                      !near.empty()  ? fmt::format("did you mean `{}`?", near)
                      : list.empty() ? "it has no params"
                                     : fmt::format("its params are {}", list));
  };
  check::Bindings bindings;
  for (const auto& [name, value] : params) {
    VICINAL_TRY(const ir::Param* param, find(name));
    VICINAL_TRY(bindings.values[name], convert_param(name, param->type, value));
  }
  for (const std::string& name : dynamic) {
    VICINAL_TRY_VOID(find(name));
    bindings.dynamic.insert(name);
  }
  return bindings;
}

}  // namespace runtime

Result<Spec> Spec::from_file(const std::string& path, const Options& options) {
  diagnostics::Sink sink;
  std::vector<std::filesystem::path> import_paths(options.import_paths.begin(), options.import_paths.end());
  VICINAL_TRY(syntax::Program program, driver::load_file(path, import_paths, sink));
  return runtime::make_spec(std::move(program), options.block, sink);
}

Result<Spec> Spec::from_string(std::string_view text, const Options& options) {
  diagnostics::Sink sink;
  syntax::ImportResolver resolver;
  if (options.resolver) {
    resolver = [&](const std::string&, const std::string& path) -> Result<syntax::ImportedText> {
      VICINAL_TRY(std::string imported, options.resolver(path));
      return syntax::ImportedText{path, path, std::move(imported)};
    };
  }
  syntax::Program program = syntax::load_program("<string>", "<string>", std::string(text), resolver, sink);
  return runtime::make_spec(std::move(program), options.block, sink);
}

const std::string& Spec::name() const {
  return impl_->variant.checked.module.name;
}
const std::vector<Message>& Spec::messages() const {
  return impl_->messages;
}
std::vector<std::string> Spec::axes() const {
  return names(impl_->variant.checked.module.axes);
}
std::vector<std::string> Spec::params() const {
  return names(impl_->variant.checked.module.params);
}
std::vector<std::string> Spec::inputs() const {
  return names(impl_->variant.checked.module.inputs);
}
bool Spec::has_context() const {
  return impl_->variant.checked.module.context;
}

}  // namespace vicinal
