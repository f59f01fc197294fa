// What a tile plan visits and costs, in words and as JSON.
#pragma once

#include "cli/tiles/explained.h"

namespace vicinal::cli {

void print_tile_report(const ExplainedTiles& explained);
void print_tile_json(const ExplainedTiles& explained);

}  // namespace vicinal::cli
