// What compiles with NVRTC, and `vicinal cache` on what it leaves: skipped, with a reason, where there is no
// NVRTC.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {
namespace {

namespace fs = std::filesystem;

bool has_nvrtc(const Sandbox& box) {
  if (std::getenv("VICINAL_SKIP_NVRTC") == nullptr && box.run({"targets"}).exit == 0) return true;
  MESSAGE("skipped: there is no NVRTC here");
  return false;
}

void fill(const Sandbox& box, const char* spec) {
  const Outcome o =
      box.run({"emit", "cubin", gallery_spec(spec), "-o", box.path(fmt::format("{}.cubin", spec))});
  CAPTURE(o.err);
  REQUIRE(o.exit == 0);
}

nlohmann::json entries(const Sandbox& box) {
  return box.run({"cache", "ls", "--json"}).json("vicinal.cache.ls.v1").at("entries");
}

// The largest file of the cache is an entry.
fs::path an_entry(const Sandbox& box) {
  fs::path largest;
  std::uintmax_t size = 0;
  for (const auto& entry : fs::recursive_directory_iterator(box.cache()))
    if (entry.is_regular_file() && entry.file_size() > size) largest = entry.path(), size = entry.file_size();
  return largest;
}

void flip_byte(const fs::path& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
  stream.seekg(middle);
  const int byte = stream.get();
  stream.seekp(middle);
  stream.put(static_cast<char>(byte ^ 1));
}

TEST_CASE("cache: empty, off, and where it is") {
  const Sandbox box;
  CHECK(box.run({"cache", "path"}).out == box.cache().string() + "\n");
  CHECK(entries(box).empty());
  CHECK(box.run({"cache", "verify"}).exit == 0);
  CHECK(box.run({"cache", "clear"}).exit == 0);
  CHECK(box.run({"cache", "info", "abcdef"}).exit != 0);
  const Outcome off = box.run({"cache", "ls", "--no-cache"});
  CHECK(off.exit == 3);
  CHECK(has(off.err, "there is no cache on disk"));
  CHECK(box.run({"cache"}).exit == 2);
  CHECK(box.run({"cache", "import", box.path("absent"), "--trust"}).exit == 2);
}

TEST_CASE("emit: ptx, cubin and key") {
  const Sandbox box;
  if (!has_nvrtc(box)) return;
  const std::string spec = gallery_spec("causal");
  const Outcome ptx = box.run({"emit", "ptx", spec, "--arch", "sm_90a"});
  CHECK(ptx.exit == 0);
  CHECK(has(ptx.out, ".target sm_90a"));
  const Outcome cubin = box.run({"emit", "cubin", spec});
  CHECK(cubin.exit == 0);
  CHECK(
      cubin.out.starts_with("\x7f"
                            "ELF"));
  CHECK(box.run({"emit", "cubin", spec}).out == cubin.out);  // from the cache
  const nlohmann::json key = box.run({"emit", "key", spec}).json("vicinal.key.v1");
  CHECK(key.at("digest").get<std::string>().size() == 64);
  CHECK(key.at("fields").size() > 3);
  CHECK(entries(box).size() == 1);
  CHECK(entries(box)[0].at("digest") == key.at("digest"));
  CHECK(box.run({"emit", "key", spec}).out == box.run({"emit", "key", spec}).out);
  CHECK(box.run({"emit", "key", spec, "--arch", "sm_80"}).json("vicinal.key.v1").at("digest") !=
        key.at("digest"));
  const Outcome unknown = box.run({"emit", "cubin", spec, "--arch", "sm_12"});
  CHECK(unknown.exit != 0);
  CHECK(unknown.exit != 70);
  CHECK(unknown.out.empty());
}

TEST_CASE("cache: a flipped byte is found and the entry removed") {
  const Sandbox box;
  if (!has_nvrtc(box)) return;
  fill(box, "causal");
  fill(box, "alibi");
  CHECK(box.run({"cache", "verify"}).out == "2 intact, 0 damaged, 0 of other versions\n");
  flip_byte(an_entry(box));
  const Outcome kept = box.run({"cache", "verify", "--keep", "--json"});
  CHECK(kept.exit == 4);
  CHECK(kept.json("vicinal.cache.verify.v1").at("damaged").size() == 1);
  const Outcome removed = box.run({"cache", "verify"});
  CHECK(removed.exit == 4);
  CHECK(has(removed.out, "(removed)"));
  CHECK(box.run({"cache", "verify"}).exit == 0);
  CHECK(entries(box).size() == 1);
}

TEST_CASE("cache: a damaged entry costs a compilation, nothing else") {
  const Sandbox box;
  if (!has_nvrtc(box)) return;
  fill(box, "causal");
  const std::string cubin = box.read("causal.cubin");
  flip_byte(an_entry(box));
  const Outcome again = box.run({"emit", "cubin", gallery_spec("causal")});
  CHECK(again.exit == 0);
  CHECK(has(again.err, "is compiled again"));
  CHECK(again.out == cubin);
  CHECK(box.run({"cache", "verify"}).exit == 0);
}

TEST_CASE("cache: info, export, clear, import, prune") {
  const Sandbox box;
  if (!has_nvrtc(box)) return;
  fill(box, "causal");
  const std::string digest = entries(box)[0].at("digest");
  const Outcome info = box.run({"cache", "info", digest.substr(0, 8), "--json"});
  CHECK(info.exit == 0);
  CHECK(info.json("vicinal.cache.info.v1").at("digest") == digest);
  CHECK(has(box.run({"cache", "info", digest}).out, "#include \"vicinal/kernel.cuh\""));

  CHECK(box.run({"cache", "export", box.path("kernels")}).out == "1 entries, 0 skipped\n");
  CHECK(box.run({"cache", "clear", "--json"}).json("vicinal.cache.clear.v1").at("removed") == 1);
  CHECK(entries(box).empty());
  // Machine code of others runs only when its user says so.
  const Outcome untrusted = box.run({"cache", "import", box.path("kernels")});
  CHECK(untrusted.exit != 0);
  CHECK(has(untrusted.err, "--trust"));
  CHECK(entries(box).empty());
  CHECK(box.run({"cache", "import", box.path("kernels"), "--trust"}).exit == 0);
  CHECK(entries(box).size() == 1);
  CHECK(box.run({"cache", "verify"}).exit == 0);

  Given small;
  small.environment = {{"VICINAL_CACHE_MAX_BYTES", "1"}};
  CHECK(box.run({"cache", "prune"}).exit == 0);
  CHECK(entries(box).size() == 1);
  CHECK(box.run({"cache", "prune", "--json"}, small).json("vicinal.cache.prune.v1").at("evicted") == 1);
  CHECK(entries(box).empty());

  Given offline;
  offline.environment = {{"VICINAL_CACHE", "offline"}};
  const Outcome missing = box.run({"emit", "cubin", gallery_spec("causal")}, offline);
  CHECK(missing.exit == 3);
  CHECK(missing.out.empty());
}

}  // namespace
}  // namespace vicinal::testing
