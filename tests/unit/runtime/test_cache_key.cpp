#include <doctest/doctest.h>

#include <random>
#include <set>

#include "runtime/cache/byte_stream.h"
#include "tests/unit/runtime/cache_fixture.h"

using namespace vicinal;
using namespace vicinal::cache;
using vicinal::test::key_of;

namespace {

// Strings that a careless join would confuse.
std::string tricky(std::mt19937& random) {
  static const std::string kPieces[] = {"",   "a",     "aa", "option", "extra:", std::string(1, '\0'),
                                        "\n", "entry", "0"};
  std::string text;
  for (auto count = random() % 3; count > 0; --count) text += kPieces[random() % std::size(kPieces)];
  return text;
}

KernelKey random_key(std::mt19937& random) {
  KernelKey key;
  for (auto field :
       {&KernelKey::source, &KernelKey::entry, &KernelKey::arch, &KernelKey::compiler, &KernelKey::emitter}) {
    key.*field = tricky(random);
  }
  for (auto count = random() % 3; count > 0; --count) key.options.push_back(tricky(random));
  for (auto count = random() % 3; count > 0; --count) key.extra[tricky(random)] = tricky(random);
  return key;
}

}  // namespace

TEST_CASE("cache key: a record reads back as the key it came from") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const KernelKey key = random_key(random);
    const auto parsed = parse_record(record(key));
    REQUIRE(parsed);
    CHECK(*parsed == key);
  }
}

TEST_CASE("cache key: two keys that differ never have the same record or digest") {
  std::mt19937 random(2);
  std::vector<KernelKey> keys;
  std::set<std::string> records, digests;
  for (int round = 0; round < 3000; ++round) {
    KernelKey key = random_key(random);
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    CHECK(records.insert(record(key)).second);
    CHECK(digests.insert(digest(key)).second);
    keys.push_back(std::move(key));
  }
  CHECK(keys.size() > 2000);
}

TEST_CASE("cache key: each field matters, and so does the order of options") {
  const KernelKey key = key_of(1);
  std::set<std::string> digests = {digest(key)};
  const auto differs = [&](auto change) {
    KernelKey other = key;
    change(other);
    CHECK(digests.insert(digest(other)).second);
  };
  differs([](KernelKey& k) { k.source += ' '; });
  differs([](KernelKey& k) { k.entry += '2'; });
  differs([](KernelKey& k) { k.arch.pop_back(); });
  differs([](KernelKey& k) { k.compiler += "0"; });
  differs([](KernelKey& k) { k.emitter += '1'; });
  differs([](KernelKey& k) { std::swap(k.options[0], k.options[1]); });
  differs([](KernelKey& k) { k.options.pop_back(); });
  differs([](KernelKey& k) { k.options = {k.options[0] + k.options[1]}; });
  differs([](KernelKey& k) { k.extra["templates"] += '0'; });
  differs([](KernelKey& k) { k.extra.clear(); });
  differs([](KernelKey& k) { k.extra["more"]; });
}

TEST_CASE("cache key: the digest is the same on every machine") {
  CHECK(digest(key_of(1)) == "49d4f637a79c6d580f3a7ff22dc5d7607e4732468e9f207ec584aa96d4fd0895");
}

TEST_CASE("cache key: what is no record is not read as one") {
  const std::string good = record(key_of(1));
  for (std::size_t size = 0; size < good.size(); ++size) {
    // Where an option or an extra field ends, the rest is a record too: of another key.
    const auto parsed = parse_record(good.substr(0, size));
    CHECK((!parsed || record(*parsed).size() == size));
  }
  CHECK_FALSE(parse_record(good + good));
  std::string unknown = good;
  put_string(unknown, "unknown");
  put_string(unknown, "field");
  CHECK_FALSE(parse_record(unknown));
}

TEST_CASE("cache key: fields are shown with the format's version first") {
  const auto shown = fields(key_of(1));
  CHECK(shown[0] == std::pair<std::string, std::string>("format", "1"));
  CHECK(shown.back() == std::pair<std::string, std::string>("extra:templates", "fedcba9876543210"));
}
