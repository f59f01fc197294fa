// Tests of generated code for the CPU: whether there is a generator to test.
#pragma once

#include <doctest/doctest.h>

#include "runtime/engine.h"

namespace vicinal::testing {

// Says why, where there is none.
inline bool lacks_code_generator() {
  const Result<runtime::Engine*> engine = runtime::Engine::process();
  REQUIRE(engine.has_value());
  const Result<const cpu::CodeGeneratorApi*> generator = (*engine)->code_generator();
  if (!generator) MESSAGE("skipped: ", generator.error().message);
  return !generator;
}

}  // namespace vicinal::testing
