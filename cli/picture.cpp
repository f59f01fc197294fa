#include "cli/picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#if defined(VICINAL_HAVE_PNG)
#include <png.h>
#endif

namespace vicinal::cli {

Picture Picture::shrunk(std::int64_t max_rows, std::int64_t max_columns) const {
  const std::int64_t down = std::max<std::int64_t>(1, (rows + max_rows - 1) / max_rows),
                     across = std::max<std::int64_t>(1, (columns + max_columns - 1) / max_columns);
  if (down == 1 && across == 1) return *this;
  Picture small((rows + down - 1) / down, (columns + across - 1) / across);
  std::vector<float> cells(small.share.size());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c) {
      small.at(r / down, c / across) += at(r, c);
      cells[static_cast<std::size_t>(r / down * small.columns + c / across)] += 1;
    }
  for (std::size_t i = 0; i < cells.size(); ++i) small.share[i] /= cells[i];
  return small;
}

std::string terminal_text(const Picture& picture) {
  static constexpr const char* shades[] = {"  ", "░░", "▒▒", "▓▓", "██"};
  std::string line;
  for (std::int64_t c = 0; c < picture.columns; ++c) line += "──";
  std::string text = "┌" + line + "┐\n";
  for (std::int64_t r = 0; r < picture.rows; ++r) {
    text += "│";
    for (std::int64_t c = 0; c < picture.columns; ++c) {
      const float share = picture.at(r, c);
      // Only nothing is blank and only everything is solid.
      const int shade = share <= 0 ? 0 : share >= 1 ? 4 : 1 + std::min(2, static_cast<int>(share * 3));
      text += shades[shade];
    }
    text += "│\n";
  }
  return text + "└" + line + "┘\n";
}

#if defined(VICINAL_HAVE_PNG)
Result<std::string> png_file(const Pixels& pixels) {
  if (pixels.rgb.empty())
    return unexpected(ErrorKind::spec, "there is nothing to draw: no queries or no keys");
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(pixels.width);
  image.height = static_cast<png_uint_32>(pixels.height);
  image.format = PNG_FORMAT_RGB;
  std::string file(PNG_IMAGE_PNG_SIZE_MAX(image), '\0');
  png_alloc_size_t size = file.size();
  if (png_image_write_to_memory(&image, file.data(), &size, 0, pixels.rgb.data(), 0, nullptr) == 0)
    return unexpected(ErrorKind::internal, fmt::format("cannot encode the picture: {}", image.message));
  file.resize(size);
  return file;
}
#else
Result<std::string> png_file(const Pixels&) {
  return unexpected(ErrorKind::environment, "this program was built without libpng",
                    "install libpng-dev and build again; the terminal picture needs nothing");
}
#endif

Result<std::string> png_file(const Picture& picture) {
  const std::int64_t longest = std::max<std::int64_t>({picture.rows, picture.columns, 1});
  const std::int64_t scale = std::max<std::int64_t>(1, 768 / longest);
  Pixels pixels(picture.rows * scale, picture.columns * scale);
  for (std::int64_t y = 0; y < pixels.height; ++y)
    for (std::int64_t x = 0; x < pixels.width; ++x) {
      const auto share = static_cast<double>(picture.at(y / scale, x / scale));
      // From white through light blue; a cell's edge is a shade darker where cells are large enough to see.
      const bool edge = scale >= 6 && (x % scale == 0 || y % scale == 0);
      const double target[3] = {24, 78, 168};
      for (std::size_t c = 0; c < 3; ++c) {
        double value = 255 + (target[c] - 255) * (share <= 0 ? 0 : 0.15 + 0.85 * share);
        if (edge) value *= 0.9;
        pixels.at(y, x)[c] = static_cast<unsigned char>(std::lround(value));
      }
    }
  return png_file(pixels);
}

}  // namespace vicinal::cli
