// What the compiler makes of scores, for who asks.
#pragma once

#include "compiler/check/check.h"
#include "compiler/diagnostics/sink.h"
#include "compiler/emit/specialized.h"

namespace vicinal::driver {

void remark_on_scores(const check::CheckedSpec& checked, const emit::Specialized& specialized,
                      diagnostics::Sink& sink);

}  // namespace vicinal::driver
