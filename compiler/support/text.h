// Small services on text.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace vicinal::support {

// Insertions, deletions, substitutions and swaps of neighbours that lead from a to b (optimal string
// alignment).
std::size_t edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `name` when it is near enough to be what was meant, else an empty view.
std::string_view nearest(std::string_view name, std::span<const std::string_view> candidates);

// A float that reads back as the same value: "0.125f"-style decimals are not exact, hexadecimal ones are.
std::string hex_float(float value);

// The whole of a file, or nothing when it cannot be read.
std::optional<std::string> read_file(const std::string& path);

}  // namespace vicinal::support
