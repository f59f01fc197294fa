// The program that plans a variant's tiles on the device: its mask over boxes, and two kernels. The first
// fills tables of what captured inputs hold, the second writes what the attention kernel goes by: the runs of
// tiles that a row visits, or bits of pairs of tiles where both sides' lie on grids.
#pragma once

#include "compiler/emit/cuda/kernel_source.h"
#include "compiler/emit/cuda/set_expression.h"

namespace vicinal::emit {

enum class TileList { runs, pairs };

struct PlannerSource {
  TileList list = TileList::runs;
  // `rows` plans; `rows.parameters` are followed by an InputTable per use, in order.
  KernelSource rows;
  std::string tables_entry;  // empty where there are no tables
  std::vector<TableUse> tables;
  std::vector<int> set_bytes;  // by table: of one entry
  int table_threads = 0;
  bool reads_batch = false, reads_head = false, reads_kv_head = false;  // each another list
};

// Of a variant with a mask; the dtypes of `options` name the elements of its inputs.
PlannerSource emit_planner(const Specialized& variant, const KernelOptions& options,
                           TileList list = TileList::runs);

}  // namespace vicinal::emit
