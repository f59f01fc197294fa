// The differential kernels of a variant on the host: what the compiler emits is compiled for the processor
// and run a block at a time, a thread at a time, with the arguments that a device would get. Results are held
// against the interpreter's.
#pragma once

#include <memory>

#include "tests/support/kernel_gradients.h"

namespace vicinal::testing {

enum class Mode { reverse, forward };

struct EmulatedOptions {
  DType dtype = DType::f32;
  std::int64_t head_dim = 16, value_dim = 24;
  std::vector<Mode> modes = {Mode::reverse};  // whose kernels are compiled
};

// How the kernels are told which tiles to visit.
enum class Tiles {
  in_reach,  // no list
  listed,    // as a plan says, where the variant has lists
  none,      // lists that name no tile
};
struct Emulation {
  Tiles tiles = Tiles::in_reach;
  bool backwards = false;  // the last block and thread first
};

class EmulatedVariant {
 public:
  EmulatedVariant(const Spec& spec, const EmulatedOptions& options);
  ~EmulatedVariant();

  const Kernel& kernel() const;  // the interpreter's
  DType dtype() const;
  // Whether a plan of the problem's has lists.
  bool has_lists(const Problem& problem) const;

  // Backward, of a case whose incoming gradients are rounded to what a kernel takes.
  KernelGradients gradients(GradientCase& c, const Emulation& how) const;
  // Forward mode: `tangents` are those of q, k, v, ...
  struct OutputTangents {
    HostTensor out, lse;
  };
  OutputTangents tangents(GradientCase& c, const KernelGradients& tangents, const Emulation& how) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// On a problem, against the interpreter. Results are the same bits in whichever order blocks and threads get
// their turns, and whether tiles are listed or not.
void check_gradients(const EmulatedVariant& variant, Problem problem, std::mt19937& random,
                     Tiles tiles = Tiles::in_reach);
void check_tangents(const EmulatedVariant& variant, Problem problem, std::mt19937& random,
                    Tiles tiles = Tiles::in_reach);

// A block of these statements.
Spec block_of(const std::string& statements);

}  // namespace vicinal::testing
