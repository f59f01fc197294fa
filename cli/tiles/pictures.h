// Pictures of a tile plan: all tiles of a sequence or of one axis, one row of them where there are more axes.
#pragma once

#include "cli/tiles/explained.h"
#include "cli/tiles/tile_picture.h"

namespace vicinal::cli {

// On the terminal, with captions and a legend.
void print_tile_pictures(const ExplainedTiles& explained);
// For a file; none where there is nothing to draw.
std::vector<TilePicture> tile_picture_sheet(const ExplainedTiles& explained);

}  // namespace vicinal::cli
