#pragma once

#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace headloom::report {

// What is wrong with a piece of XML-style markup, or nothing: tags that are not balanced,
// attributes without quotes or given twice, bare < or &.
class MarkupCheck {
 public:
  static std::string problem(std::string_view text) { return MarkupCheck(text).run(); }

 private:
  explicit MarkupCheck(std::string_view text) : text_(text) {}

  std::string run() {
    while (at_ < text_.size() && problem_.empty()) {
      if (text_[at_] == '<') {
        tag();
      } else {
        character();
      }
    }
    if (problem_.empty() && !open_.empty()) problem_ = "not closed: " + open_.back();
    return problem_;
  }

  void character() {
    if (text_[at_] == '&') entity();
    if (text_[at_] == '>') problem_ = "bare >";
    ++at_;
  }

  void entity() {
    const size_t end = text_.find(';', at_);
    if (end == std::string_view::npos || end - at_ > 6) problem_ = "bare &";
  }

  std::string name() {
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                  text_[at_] == '-' || text_[at_] == ':')) {
      ++at_;
    }
    if (begin == at_)
      problem_ = "expected a name at \"" + std::string(text_.substr(at_, 20)) + "\"";
    return std::string(text_.substr(begin, at_ - begin));
  }

  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  void tag() {
    if (take("<!DOCTYPE html>")) return;
    if (take("</")) {
      const std::string closed = name();
      if (!take(">")) problem_ = "end tag of " + closed;
      if (open_.empty() || open_.back() != closed) problem_ = "unexpected end of " + closed;
      if (!open_.empty()) open_.pop_back();
      return;
    }
    ++at_;
    const std::string opened = name();
    std::set<std::string> attributes;
    while (problem_.empty() && take(" ")) attribute(attributes);
    if (take("/>")) return;
    if (!take(">")) problem_ = "start tag of " + opened;
    open_.push_back(opened);
  }

  void attribute(std::set<std::string>& seen) {
    const std::string key = name();
    if (!seen.insert(key).second) problem_ = "attribute twice: " + key;
    if (!take("=\"")) {
      problem_ = "attribute without quotes: " + key;
      return;
    }
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '<') problem_ = "< in attribute " + key;
      if (text_[at_] == '&') entity();
      ++at_;
    }
    ++at_;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<std::string> open_;
  std::string problem_;
};

inline size_t count(std::string_view text, std::string_view word) {
  size_t found = 0;
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    ++found;
  }
  return found;
}

}  // namespace headloom::report
