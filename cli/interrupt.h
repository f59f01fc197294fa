// Ctrl-C and its like end the command as they end any other, and leave no temporary file behind.
#pragma once

namespace vicinal::cli {

// From here on. Call it before any thread starts: what it blocks, later threads have blocked too.
void clean_up_on_interrupt();

}  // namespace vicinal::cli
