// The kernel headers of templates/, embedded at build time.
#pragma once

#include <span>
#include <string_view>

namespace vicinal::templates {

struct Header {
  std::string_view name;  // as emitted code includes it: "vicinal/kernel.cuh"
  std::string_view text;
};

std::span<const Header> bundle();
std::string_view bundle_hash();  // SHA-256 over names and texts, in hexadecimal

}  // namespace vicinal::templates
