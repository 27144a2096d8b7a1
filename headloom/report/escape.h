#pragma once

#include <string>
#include <string_view>

namespace headloom::report {

// Text for an element or a quoted attribute of XML and HTML. Bytes that are not UTF-8 and control
// characters that XML forbids become U+FFFD, so that the result is well-formed whatever comes in.
std::string escape(std::string_view text);

// Characters (code points) of UTF-8 text, and its first `count` of them.
size_t character_count(std::string_view text);
std::string_view first_characters(std::string_view text, size_t count);

}  // namespace headloom::report
