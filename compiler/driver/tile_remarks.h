// What the compiler found out about tiles, for who asks: masks that cost nothing, and places where a tile has
// to be masked pair by pair because nothing sharper is known of it.
#pragma once

#include "compiler/check/check.h"
#include "compiler/diagnostics/sink.h"
#include "compiler/emit/specialized.h"

namespace vicinal::driver {

void remark_on_tiles(const check::CheckedSpec& checked, const emit::Specialized& specialized,
                     diagnostics::Sink& sink);

}  // namespace vicinal::driver
