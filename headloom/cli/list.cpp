#include <CLI/CLI.hpp>
#include <sstream>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/tasks/task.h"

namespace headloom::cli {
namespace {

std::string indent(const std::string& text, const std::string& by) {
  std::istringstream lines(text);
  std::string result;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) result += by + line + '\n';
  }
  return result;
}

std::string entry(const std::string& name, const std::string& summary, const std::string& paper,
                  const std::string& options) {
  std::string text = name + '\n' + indent(summary, "  ");
  if (!paper.empty()) text += indent("Paper: " + paper, "  ");
  if (!options.empty()) text += "  Options:\n" + indent(options, "    ");
  return text + '\n';
}

std::string list_mechanisms() {
  std::string text = "Mechanisms, as a recipe names them in [mixer]:\n\n";
  for (const Mechanism* mechanism : mechanisms()) {
    text += entry(mechanism->name, mechanism->summary, mechanism->paper, mechanism->options);
  }
  return text;
}

std::string list_tasks() {
  std::string text = "Tasks, as a recipe names them in [task]:\n\n";
  for (const tasks::TaskEntry& task : tasks::all_tasks()) {
    text += entry(task.name, task.summary, "", task.options);
  }
  return text;
}

int list_command(const std::string& kind) {
  std::string text;
  if (kind != "tasks") text += list_mechanisms();
  if (kind != "mechanisms") text += list_tasks();
  text.pop_back();
  print(text);
  return kDone;
}

}  // namespace

void add_list(CLI::App& app, Action& action) {
  CLI::App* command =
      add_command(app, "list", "Show the mechanisms and tasks there are, with their options.",
                  {"headloom list", "headloom list mechanisms", "headloom list tasks"});
  const auto kind = std::make_shared<std::string>();
  command->add_option("KIND", *kind, "mechanisms or tasks (default: both)")
      ->check(CLI::IsMember({"mechanisms", "tasks"}));
  command->callback([kind, &action] { action = [kind] { return list_command(*kind); }; });
}

}  // namespace headloom::cli
