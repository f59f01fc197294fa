// The program that plans a variant's tiles on the device: its mask over boxes, and two kernels. The first
// fills tables of what captured inputs hold, the second writes the list that the attention kernel walks.
#pragma once

#include "compiler/emit/cuda/kernel_source.h"
#include "compiler/emit/cuda/set_expression.h"

namespace vicinal::emit {

struct PlannerSource {
  // `rows` plans; `rows.parameters` are followed by an InputTable per use, in order.
  KernelSource rows;
  std::string tables_entry;  // empty where there are no tables
  std::vector<TableUse> tables;
  std::vector<int> set_bytes;  // by table: of one entry
  int table_threads = 0;
  bool reads_batch = false, reads_head = false, reads_kv_head = false;  // each another list
};

// Of a variant with a mask; the dtypes of `options` name the elements of its inputs.
PlannerSource emit_planner(const Specialized& variant, const KernelOptions& options);

}  // namespace vicinal::emit
