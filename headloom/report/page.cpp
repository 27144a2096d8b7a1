#include "headloom/base/check.h"
#include "headloom/report/chart.h"
#include "headloom/report/escape.h"
#include "headloom/report/heat_map.h"
#include "headloom/report/report.h"
#include "headloom/report/table.h"

namespace headloom::report {
namespace {

constexpr const char* kPageStyle =
    ":root{color-scheme:light dark;--paper:#fff;--ground:#f4f4f5;--ink:#18181b;--quiet:#52525b;"
    "--rule:#e4e4e7}"
    "@media (prefers-color-scheme:dark){:root{--paper:#1c1c20;--ground:#121214;--ink:#f4f4f5;"
    "--quiet:#b4b4bd;--rule:#34343b}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--ground);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Ubuntu,sans-serif}"
    "main{max-width:1240px;margin:0 auto;padding:32px 20px 64px}"
    "h1{font-size:28px;line-height:1.2;margin:0;overflow-wrap:anywhere}"
    "h2{font-size:17px;margin:0 0 10px}"
    ".subtitle,.note{color:var(--quiet);overflow-wrap:anywhere}"
    ".subtitle{margin:8px 0 0}.note{font-size:13px;margin:10px 0 0}"
    "section,details{background:var(--paper);border:1px solid var(--rule);border-radius:10px;"
    "padding:18px 20px;margin-top:20px}"
    ".scroll{overflow-x:auto}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:6px 18px 6px 0;text-align:left;border-bottom:1px solid var(--rule);"
    "white-space:nowrap}"
    "th{font-size:13px;font-weight:600;color:var(--quiet);white-space:normal;vertical-align:bottom}"
    "tbody tr:last-child td{border-bottom:0}.number{text-align:right}"
    ".charts{display:grid;gap:20px;margin-top:20px;"
    "grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr))}"
    "figure{margin:0}.chart{display:block;width:100%;height:auto}"
    "figure .chart{border:1px solid var(--rule);border-radius:10px}"
    "summary{cursor:pointer;font-weight:600}"
    "pre{overflow-x:auto;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
    "margin:12px 0 0}"
    "@media print{body{background:none}section,details,figure{break-inside:avoid}}";

std::string html_row(const std::vector<std::string>& row, const std::vector<bool>& numeric,
                     const char* tag) {
  std::string html = "<tr>";
  for (size_t i = 0; i < numeric.size(); ++i) {
    html += cat("<", tag, numeric[i] ? " class=\"number\">" : ">",
                i < row.size() ? escape(row[i]) : "", "</", tag, ">");
  }
  return html + "</tr>\n";
}

std::string html_table(const Table& table) {
  std::vector<bool> numeric;
  for (size_t i = 0; i < column_count(table); ++i) numeric.push_back(is_numeric_column(table, i));
  std::string html = "<section>\n";
  if (!table.title.empty()) html += cat("<h2>", escape(table.title), "</h2>\n");
  html += "<div class=\"scroll\"><table>\n";
  if (!table.columns.empty()) {
    html += cat("<thead>", html_row(table.columns, numeric, "th"), "</thead>\n");
  }
  html += "<tbody>\n";
  for (const auto& row : table.rows) html += html_row(row, numeric, "td");
  html += "</tbody></table></div>\n";
  if (!table.note.empty()) html += cat("<p class=\"note\">", escape(table.note), "</p>\n");
  return html + "</section>\n";
}

}  // namespace

std::string render_html(const Page& page) {
  std::string html =
      cat("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n",
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>",
          escape(page.title), "</title>\n<style>", kPageStyle, chart_style(),
          "</style>\n</head>\n<body>\n<main>\n<header>\n<h1>", escape(page.title), "</h1>\n");
  if (!page.subtitle.empty()) {
    html += cat("<p class=\"subtitle\">", escape(page.subtitle), "</p>\n");
  }
  html += "</header>\n";
  for (const Table& table : page.tables) html += html_table(table);
  if (!page.charts.empty() || !page.heat_maps.empty()) {
    html += "<div class=\"charts\">\n";
    for (const Chart& chart : page.charts) {
      html += cat("<figure>\n", draw_chart(chart, /*stands_alone=*/false), "</figure>\n");
    }
    for (const HeatMap& map : page.heat_maps) {
      html += cat("<figure>\n", draw_heat_map(map), "</figure>\n");
    }
    html += "</div>\n";
  }
  for (const Table& table : page.more_tables) html += html_table(table);
  for (const auto& [title, text] : page.listings) {
    html += cat("<details>\n<summary>", escape(title), "</summary>\n<pre>", escape(text),
                "</pre>\n</details>\n");
  }
  return html + "</main>\n</body>\n</html>\n";
}

}  // namespace headloom::report
