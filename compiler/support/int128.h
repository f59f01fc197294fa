// 128-bit integers, an extension of every compiler this builds with.
#pragma once

namespace vicinal::support {
__extension__ typedef __int128 int128;
}
