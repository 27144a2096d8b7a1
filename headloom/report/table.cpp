#include "headloom/report/table.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <sstream>
#include <string_view>

#include "headloom/report/escape.h"

namespace headloom::report {
namespace {

constexpr std::string_view kGap = "  ";
constexpr size_t kNoteWidth = 100;

bool starts_as_number(std::string_view cell) {
  if (!cell.empty() && (cell[0] == '+' || cell[0] == '-')) cell.remove_prefix(1);
  return !cell.empty() && std::isdigit(static_cast<unsigned char>(cell[0]));
}

std::vector<size_t> column_widths(const Table& table) {
  std::vector<size_t> widths(column_count(table), 0);
  const auto widen = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], character_count(row[i]));
    }
  };
  widen(table.columns);
  for (const auto& row : table.rows) widen(row);
  return widths;
}

std::string text_line(const std::vector<std::string>& row, const std::vector<size_t>& widths,
                      const std::vector<bool>& right) {
  std::string line;
  for (size_t i = 0; i < widths.size(); ++i) {
    const std::string cell = i < row.size() ? row[i] : "";
    const std::string padding(widths[i] - character_count(cell), ' ');
    if (i > 0) line += kGap;
    line += right[i] ? padding + cell : cell + padding;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + '\n';
}

std::string wrap(const std::string& text) {
  std::istringstream words(text);
  std::string lines;
  size_t used = 0;
  for (std::string word; words >> word;) {
    const size_t length = character_count(word);
    const bool fits = used > 0 && used + 1 + length <= kNoteWidth;
    if (!lines.empty()) lines += fits ? ' ' : '\n';
    used = fits ? used + 1 + length : length;
    lines += word;
  }
  return lines.empty() ? "" : lines + '\n';
}

}  // namespace

size_t column_count(const Table& table) {
  size_t count = table.columns.size();
  for (const auto& row : table.rows) count = std::max(count, row.size());
  return count;
}

bool is_numeric_column(const Table& table, size_t column) {
  if (table.columns.empty()) return false;
  size_t filled = 0, numbers = 0;
  for (const auto& row : table.rows) {
    if (column >= row.size() || row[column].empty()) continue;
    ++filled;
    numbers += starts_as_number(row[column]);
  }
  return numbers > 0 && 2 * numbers >= filled;
}

std::string render_text(const Table& table) {
  const std::vector<size_t> widths = column_widths(table);
  std::vector<bool> right;
  std::vector<std::string> rules;
  for (size_t i = 0; i < widths.size(); ++i) {
    right.push_back(is_numeric_column(table, i));
    rules.emplace_back(widths[i], '-');
  }
  std::string text = table.title.empty() ? "" : table.title + '\n';
  if (!table.columns.empty()) {
    text += text_line(table.columns, widths, right) + text_line(rules, widths, right);
  }
  for (const auto& row : table.rows) text += text_line(row, widths, right);
  return text + wrap(table.note);
}

std::string format_number(double value, int digits) {
  if (!std::isfinite(value)) return "n/a";
  const double magnitude = std::abs(value);
  char buffer[64];
  if (magnitude != 0.0 && (magnitude < 1e-4 || magnitude >= 1e15)) {
    std::snprintf(buffer, sizeof buffer, "%.*g", digits, value);
    return buffer;
  }
  const int exponent = magnitude == 0.0 ? 0 : static_cast<int>(std::floor(std::log10(magnitude)));
  std::snprintf(buffer, sizeof buffer, "%.*f", std::max(0, digits - 1 - exponent), value);
  return buffer;
}

}  // namespace headloom::report
