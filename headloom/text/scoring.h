#pragma once

#include <string>
#include <string_view>
#include <vector>

// What BLEU (bleu.h) and chrF (chrf.h) share.
namespace headloom::text {

// The version of sacreBLEU (Post, 2018) whose figures and signatures are reproduced.
constexpr const char* kSacrebleuVersion = "2.6.0";

// One text a segment.
using Segments = std::vector<std::string>;

// Parts between white space as Python's str.split() sees it: White_Space and U+001C to U+001F.
std::vector<std::string_view> words_of(std::string_view text);

// mteval-v13a's tokenization as sacreBLEU writes it: words and signs with single spaces between.
std::string tokenize_13a(std::string_view text);

// The compound splitting of published English-German figures (Vaswani et al., 2017, and after): a
// hyphen between two characters that are not spaces becomes " ##AT##-##AT## ". As in the script in
// use, s{(\S)-(\S)}{$1 ##AT##-##AT## $2}g, a character is taken by one hyphen only: "a-b-c" becomes
// "a ##AT##-##AT## b-c".
std::string split_compounds(std::string_view text);

// Refuses no reference, references of another number of segments than the hypotheses, and no
// segment. `where` starts the message.
void check_segments(const Segments& hypotheses, const std::vector<Segments>& references,
                    const std::string& where);

}  // namespace headloom::text
