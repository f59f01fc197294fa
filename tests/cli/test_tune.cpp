// `vicinal tune` on a machine without a GPU: it says so, and leaves nothing behind.
#include <doctest/doctest.h>

#include "tests/cli/sandbox.h"

namespace vicinal::testing {

TEST_CASE("tune: without a GPU there is nothing to measure") {
  const Sandbox box;
  const Outcome o = box.run({"tune", gallery_spec("causal"), "--dtype", "bf16"});
  if (o.exit == 0) {
    MESSAGE("skipped: there is a GPU");
    return;
  }
  CHECK(o.exit == 3);
  CHECK(o.out.empty());
  CHECK(has(o.err, "error: "));
  CHECK(box.count_files() == 0);
}

TEST_CASE("tune: mistakes") {
  const Sandbox box;
  CHECK(box.run({"tune"}).exit == 2);
  CHECK(box.run({"tune", box.path("absent.attn")}).exit == 2);
  CHECK(box.run({"tune", gallery_spec("causal"), "--repeat", "0"}).exit == 2);
  CHECK(box.run({"tune", gallery_spec("causal"), "--schedule", "1"}).exit == 2);
}

}  // namespace vicinal::testing
