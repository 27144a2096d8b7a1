#include "headloom/text/scoring.h"

#include "headloom/base/check.h"
#include "headloom/text/unicode.h"
#include "headloom/text/utf8.h"

namespace headloom::text {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_stop(char c) {
  return c == '.' || c == ',';
}

// ASCII signs, but for those whose meaning depends on digits beside them, and the apostrophe.
bool is_sign(char c) {
  return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
         (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// Rewrites each pair of neighbours for which `matches`, from the left, no character twice.
template <class Matches, class Write>
std::string rewrite_pairs(const std::string& text, const Matches& matches, const Write& write) {
  std::string result;
  result.reserve(text.size() + text.size() / 4);
  for (size_t at = 0; at < text.size();) {
    if (at + 1 < text.size() && matches(text[at], text[at + 1])) {
      write(result, text[at], text[at + 1]);
      at += 2;
    } else {
      result += text[at++];
    }
  }
  return result;
}

bool is_ascii_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

}  // namespace

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t point = next_character(text, at);
    if (!is_white_space(point) && (point < 0x1C || point > 0x1F)) continue;
    if (start > begin) words.push_back(text.substr(begin, start - begin));
    begin = at;
  }
  if (begin < text.size()) words.push_back(text.substr(begin));
  return words;
}

std::string tokenize_13a(std::string_view text) {
  std::string line = ' ' + std::string(text) + ' ';
  replace_all(line, "<skipped>", "");
  replace_all(line, "-\n", "");
  replace_all(line, "\n", " ");
  replace_all(line, "&quot;", "\"");
  replace_all(line, "&amp;", "&");
  replace_all(line, "&lt;", "<");
  replace_all(line, "&gt;", ">");

  std::string spaced;
  for (const char c : line) {
    if (is_sign(c)) {
      spaced += {' ', c, ' '};
    } else {
      spaced += c;
    }
  }
  const auto part_second = [](std::string& out, char a, char b) { out += {a, ' ', b, ' '}; };
  const auto part_first = [](std::string& out, char a, char b) { out += {' ', a, ' ', b}; };
  line = rewrite_pairs(
      spaced, [](char a, char b) { return !is_digit(a) && is_stop(b); }, part_second);
  line = rewrite_pairs(
      line, [](char a, char b) { return is_stop(a) && !is_digit(b); }, part_first);
  line = rewrite_pairs(
      line, [](char a, char b) { return is_digit(a) && b == '-'; }, part_second);

  std::string result;
  for (const std::string_view word : words_of(line)) {
    if (!result.empty()) result += ' ';
    result += word;
  }
  return result;
}

std::string split_compounds(std::string_view text) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    if (at + 2 < text.size() && text[at + 1] == '-' && !is_ascii_space(text[at]) &&
        !is_ascii_space(text[at + 2])) {
      result += text[at];
      result += " ##AT##-##AT## ";
      result += text[at + 2];
      at += 3;
    } else {
      result += text[at++];
    }
  }
  return result;
}

void check_segments(const Segments& hypotheses, const std::vector<Segments>& references,
                    const std::string& where) {
  HEADLOOM_CHECK(!references.empty(), where, "at least one reference", "none");
  for (size_t i = 0; i < references.size(); ++i) {
    HEADLOOM_CHECK(references[i].size() == hypotheses.size(), where,
                   cat("as many lines as reference ", i + 1, ", ", references[i].size()),
                   cat(hypotheses.size(), " lines of hypotheses"));
  }
  HEADLOOM_CHECK(!hypotheses.empty(), where, "at least one line", "none");
}

}  // namespace headloom::text
