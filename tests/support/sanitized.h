// Whether a sanitizer watches this build: LLVM, the interpreter and allocations then take several times as
// long.
#pragma once

namespace vicinal::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace vicinal::testing
