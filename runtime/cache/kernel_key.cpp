#include "runtime/cache/kernel_key.h"

#include "compiler/support/hash.h"
#include "runtime/cache/byte_stream.h"

namespace vicinal::cache {
namespace {

constexpr std::string_view kFormat = "format", kOption = "option", kExtra = "extra:";

// The fields that every key has once.
constexpr struct {
  std::string_view name;
  std::string KernelKey::*value;
} kPlainFields[] = {
    {"entry", &KernelKey::entry},     {"arch", &KernelKey::arch},     {"compiler", &KernelKey::compiler},
    {"emitter", &KernelKey::emitter}, {"source", &KernelKey::source},
};

template <class Visit>
void for_each_field(const KernelKey& key, Visit visit) {
  visit(kFormat, std::to_string(kFormatVersion));
  for (const auto& field : kPlainFields) visit(field.name, key.*field.value);
  for (const auto& option : key.options) visit(kOption, option);
  for (const auto& [name, value] : key.extra) visit(std::string(kExtra) + name, value);
}

bool set_field(KernelKey& key, std::string_view name, std::string_view value) {
  for (const auto& field : kPlainFields) {
    if (field.name != name) continue;
    key.*field.value = value;
    return true;
  }
  if (name == kOption) {
    key.options.emplace_back(value);
  } else if (name.starts_with(kExtra)) {
    key.extra.emplace(name.substr(kExtra.size()), value);
  } else {
    return name == kFormat;
  }
  return true;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> fields(const KernelKey& key) {
  std::vector<std::pair<std::string, std::string>> result;
  for_each_field(key,
                 [&](std::string_view name, const std::string& value) { result.emplace_back(name, value); });
  return result;
}

std::string record(const KernelKey& key) {
  std::string bytes;
  bytes.reserve(key.source.size() + 1024);
  for_each_field(key, [&](std::string_view name, std::string_view value) {
    put_string(bytes, name);
    put_string(bytes, value);
  });
  return bytes;
}

std::optional<KernelKey> parse_record(std::string_view bytes) {
  KernelKey key;
  ByteReader reader(bytes);
  while (!reader.empty()) {
    const auto name = reader.take_string();
    const auto value = reader.take_string();
    if (!name || !value || !set_field(key, *name, *value)) return std::nullopt;
  }
  // Only what record() writes is a record: no field twice, none missing, none out of order.
  if (record(key) != bytes) return std::nullopt;
  return key;
}

std::string digest(const KernelKey& key) {
  return support::sha256_hex(record(key));
}

}  // namespace vicinal::cache
