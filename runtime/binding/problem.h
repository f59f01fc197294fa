// From what a caller passes to what a backend computes: extents, strides, inputs and params, all checked.
#pragma once

#include <vicinal/vicinal.h>

#include "compiler/analysis/index_bounds.h"
#include "compiler/ir/module.h"

namespace vicinal::runtime {

// Strides of a tensor by role, in elements; one per grid axis (a context tensor has one).
struct Strided {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t batch = 0, head = 0, dim = 0;
  std::vector<std::int64_t> axis;
};

struct GridAxis {
  std::int64_t extent = 0;             // of the whole grid
  std::int64_t local = 0, origin = 0;  // of the tensors at hand
};

struct CapturedInput {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::vector<std::int64_t> extents, strides;
};

struct Problem {
  std::int64_t batch = 0, heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  std::int64_t tokens = 0, keys = 0, context = 0;  // of the whole grid
  std::vector<GridAxis> q_axis, k_axis;            // one for a sequence
  Strided q, k, v, out, lse, context_k, context_v;
  std::vector<CapturedInput> inputs;  // by the module's number; unused ones have no data
  std::vector<ir::Value> params;      // by the module's number
  std::vector<std::int64_t> extents;  // by the module's number
  struct AxisShape {
    std::int64_t window, dilation, stride;  // window 0: all
    bool causal;
  };
  std::vector<AxisShape> axes;  // of the neighborhood, by the module's number

  std::int64_t local_queries() const;
  std::int64_t local_keys() const;
  std::int64_t rows() const { return batch * heads * local_queries(); }
};

// An extent's or param's value; nothing for what changes within a launch.
std::optional<ir::Value> launch_value(const Problem& problem, const ir::Symbol& symbol);

struct BindingRules {
  const ir::Module& module;  // after check
  const std::vector<analysis::LaunchCheck>& checks;
  std::vector<bool> used_inputs, row_inputs, used_extents;  // by number; emit::Uses
  DType dtype;                                              // of q, k, v and out
  std::int64_t head_dim, value_dim;
};

// Errors: kind spec for shapes, extents and dtypes, kind usage for unknown names; each says what to change.
Result<Problem> bind(const BindingRules& rules, const RunArguments& arguments);

// The value as the param's type; an error (usage) when it is of another kind.
Result<ir::Value> convert_param(const std::string& name, ir::Type type, const ParamValue& value);

}  // namespace vicinal::runtime
