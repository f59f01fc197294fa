// Every attention block of specs/ and of the tests' own specs, found by walking the folders.
#pragma once

#include <vicinal/vicinal.h>

#include <string>
#include <vector>

namespace vicinal::testing {

struct GalleryBlock {
  std::string name;  // "gemma2:local"
  Spec spec;
};

// From VICINAL_SPECS_DIR (a copy of specs/) or else the source tree, and from tests/specs beside it where
// there is one. Files of functions alone have no block and are left out; a spec with errors throws them.
std::vector<GalleryBlock> gallery();
// The same with every float param and input declared learnable, where the language lets it be.
std::vector<GalleryBlock> learnable_gallery();

}  // namespace vicinal::testing
