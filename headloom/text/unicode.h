#pragma once

#include <string>
#include <string_view>

// Properties of characters, from utf8proc (Unicode 15 in Debian 12). The tokenizers package asks
// tables of other versions: a character that one of the versions does not know (some 600 of rare
// scripts and punctuation, and the ideographs of Unicode 16 and later) may be classed otherwise
// there. All others agree; a test compares every code point when the package is installed.
namespace headloom::text {

enum class CharacterClass : unsigned char { kOther, kLetter, kNumber, kSpace };

// Letters are general category L*, numbers N*, spaces the property White_Space.
CharacterClass class_of(char32_t point);

bool is_white_space(char32_t point);
// ASCII that is neither letter, digit nor space, and the categories P*: BERT's definition.
bool is_punctuation(char32_t point);
// Categories Cc, Cf, Co, Cs, without tab, line feed and carriage return: BERT's definition.
bool is_control(char32_t point);
bool is_combining_mark(char32_t point);  // category Mn
bool is_word_character(char32_t point);  // letters, marks, Nd, Nl, Pc: \w of regular expressions

// Of each character by itself: no final sigma.
std::string lower_case(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normal_form(std::string_view text, NormalForm form);  // of valid text

}  // namespace headloom::text
