// What captured inputs hold over ranges of indices: least and greatest elements of blocks, so that a question
// about a tile is answered from a few of them.
#pragma once

#include <vicinal/dtype.h>

#include <memory>

#include "compiler/analysis/box_program.h"
#include "runtime/binding/problem.h"

namespace vicinal::plan {

class CapturedRanges final : public analysis::InputRanges {
 public:
  // `ranged`: by input, the dimensions that are asked about by more than one index at a time. Inputs that no
  // one asks about may be anything. Reads host memory; the problem must outlive this object.
  CapturedRanges(const ir::Module& module, const runtime::Problem& problem,
                 const std::vector<analysis::RangedDimensions>& ranged, unsigned threads);
  ~CapturedRanges() override;

  ranges::Range integers(std::uint32_t input, std::span<const ranges::Range> indices) const override;
  ranges::RealRange reals(std::uint32_t input, std::span<const ranges::Range> indices) const override;
  ranges::Truth truths(std::uint32_t input, std::span<const ranges::Range> indices) const override;
  ranges::RealRange dot(std::uint32_t first, std::span<const ranges::Range> first_indices,
                        std::uint32_t second, std::span<const ranges::Range> second_indices) const override;

  struct Table;
  struct Source;

 private:
  std::vector<Source> sources_;  // by input
};

}  // namespace vicinal::plan
