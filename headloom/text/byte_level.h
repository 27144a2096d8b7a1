#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace headloom::text {

// GPT-2's writing of bytes as printable characters: printable bytes of Latin-1 stand for
// themselves, the 68 others for U+0100 and on, in order. A space is "\u0120".
const std::array<std::string, 256>& byte_characters();

std::string to_byte_level(std::string_view bytes);
// Nothing when a character of `text` stands for no byte.
std::optional<std::string> from_byte_level(std::string_view text);

}  // namespace headloom::text
