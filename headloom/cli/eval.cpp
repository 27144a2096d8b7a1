#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"
#include "headloom/report/report.h"
#include "headloom/train/run.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string folder, weights;
  std::vector<std::string> overrides;
  bool json = false;
};

std::string as_json(const train::LoadedRun& run, const tasks::Metrics& metrics) {
  nlohmann::ordered_json object{{"step", run.step}, {"weights", run.weights}};
  const std::string note = run.task->metrics_note();
  if (!note.empty()) object["note"] = note;
  for (const auto& [name, value] : metrics) object["metrics"][name] = value;
  return object.dump(2) + '\n';
}

std::string as_text(const train::LoadedRun& run, const tasks::Metrics& metrics) {
  report::Table table{"", {"metric", "value"}, {}, ""};
  for (const auto& [name, value] : metrics) {
    table.rows.push_back({name, report::format_number(value, 6)});
  }
  const bool of_file = run.weights != "best" && run.weights != "newest";
  table.note =
      cat("Task ", run.task->name(), ", ",
          of_file ? cat("weights ", run.weights) : cat(run.weights, " weights, step ", run.step));
  const std::string note = run.task->metrics_note();
  if (!note.empty()) table.note += "; " + note;
  return report::render_text(table);
}

int eval_command(const Arguments& arguments) {
  const train::LoadedRun run =
      train::load_run(arguments.folder, arguments.overrides, arguments.weights);
  const tasks::Metrics metrics = train::evaluate(*run.model, *run.task, run.recipe);
  print(arguments.json ? as_json(run, metrics) : as_text(run, metrics));
  return kDone;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  CLI::App* command =
      add_command(app, "eval", "Measure the model of a run on the validation data of its task.",
                  {"headloom eval runs/listops", "headloom eval runs/listops --json",
                   "headloom eval runs/listops --set train.batch_size=8",
                   "headloom eval runs/multi30k --weights average.safetensors --set "
                   "task.evaluate_on=test"});
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("FOLDER", arguments->folder, "Folder of a run")->required();
  command->add_option("--weights", arguments->weights,
                      "best, newest or a safetensors file (default: best)");
  add_overrides(command, arguments->overrides);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return eval_command(*arguments); }; });
}

}  // namespace headloom::cli
