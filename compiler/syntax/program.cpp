#include "compiler/syntax/program.h"

#include <fmt/format.h>

#include <set>

#include "compiler/syntax/parser.h"

namespace vicinal::syntax {
namespace {

using diagnostics::Kind;

class Loader {
 public:
  Loader(const ImportResolver& resolver, diagnostics::Sink& sink) : resolver_(resolver), sink_(sink) {}

  Program run(std::string id, std::string display_name, std::string text) {
    load(std::move(id), std::move(display_name), std::move(text));
    for (std::uint32_t file = 0; file < program_.files.size(); ++file) link(file);
    return std::move(program_);
  }

 private:
  // Parses the text and loads its imports; returns its number.
  std::uint32_t load(std::string id, std::string display_name, std::string text) {
    const bool too_large = program_.sources.total_bytes() + text.size() > kMaxSourceBytes;
    const std::uint32_t file =
        program_.sources.add(std::move(display_name), too_large ? "" : std::move(text));
    if (too_large)
      sink_.report(Kind::source_too_large, {file, 0, 0}, kMaxSourceBytes)
          .with_help("split off what is not needed");
    numbers_[id] = file;
    program_.files.push_back(parse(program_.sources, file, sink_));
    imports_.emplace_back();
    open_.insert(file);
    // A copy: loading more files moves the vector.
    const std::vector<ast::Import> imports = program_.files[file].imports;
    for (const ast::Import& import : imports) {
      if (const auto target = resolve(id, import)) imports_[file].push_back({*target, import.path_range});
    }
    open_.erase(file);
    return file;
  }

  std::optional<std::uint32_t> resolve(const std::string& importer, const ast::Import& import) {
    const auto failed = [&](std::string why, std::string help) {
      sink_.report(Kind::import_failed, import.path_range, import.path, why).with_help(std::move(help));
      return std::nullopt;
    };
    if (!resolver_) return failed("this spec does not come from a file", "give the caller's import resolver");
    if (open_.size() >= static_cast<std::size_t>(kMaxNesting)) return failed("imports nest too deep", "");
    Result<ImportedText> found = resolver_(importer, import.path);
    if (!found) return failed(found.error().message, found.error().help);
    if (const auto known = numbers_.find(found->id); known != numbers_.end()) {
      if (open_.count(known->second) != 0) {
        sink_.report(Kind::import_cycle, import.path_range, import.path)
            .with_help("move the functions that both files need to a third file");
        return std::nullopt;
      }
      return known->second;
    }
    return load(found->id, std::move(found->display_name), std::move(found->text));
  }

  // The functions that `file` can name: its own, and those of the files it imports itself.
  void link(std::uint32_t file) {
    auto& visible = program_.visible.emplace_back();
    const auto define = [&](FunctionRef ref, source::Range at) {
      const ast::Identifier& name = program_.function(ref).name;
      const auto [it, is_new] = visible.emplace(name.text, ref);
      if (!is_new && it->second != ref)
        sink_.report(Kind::duplicate_definition, at, name.text)
            .label(program_.function(it->second).name.range, "first defined here")
            .with_help("rename one of the two");
    };
    std::set<std::uint32_t> seen;
    for (const auto& [target, at] : imports_[file]) {
      if (!seen.insert(target).second) continue;
      for (std::uint32_t f = 0; f < program_.files[target].functions.size(); ++f) define({target, f}, at);
    }
    for (std::uint32_t f = 0; f < program_.files[file].functions.size(); ++f)
      define({file, f}, program_.files[file].functions[f].name.range);
  }

  struct Link {
    std::uint32_t target;
    source::Range at;
  };
  const ImportResolver& resolver_;
  diagnostics::Sink& sink_;
  Program program_;
  std::map<std::string, std::uint32_t> numbers_;
  std::vector<std::vector<Link>> imports_;
  std::set<std::uint32_t> open_;
};

}  // namespace

Program load_program(std::string id, std::string display_name, std::string text,
                     const ImportResolver& resolver, diagnostics::Sink& sink) {
  return Loader(resolver, sink).run(std::move(id), std::move(display_name), std::move(text));
}

}  // namespace vicinal::syntax
