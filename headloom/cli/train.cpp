#include "headloom/train/run.h"

#include <CLI/CLI.hpp>

#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"
#include "headloom/cli/run_report.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string recipe;
  std::vector<std::string> overrides;
  train::RunOptions run;
};

int train_command(Arguments arguments) {
  const train::Recipe recipe = train::load_recipe(arguments.recipe, arguments.overrides);
  train::RunOptions& run = arguments.run;
  if (run.folder.empty()) run.folder = default_folder("runs", arguments.recipe);
  const train::RunSummary summary = train::train(recipe, run);
  if (!summary.completed) return kInterrupted;
  const std::string report = write_run_report(run.folder, recipe, summary);
  if (!run.quiet) print(report::render_text(summary_table(summary)) + "Report: " + report + '\n');
  return kDone;
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "train",
      "Train the model of a recipe, or go on where the run in the folder was stopped.",
      {"headloom train recipes/demo.toml",
       "headloom train recipes/demo.toml --folder runs/wide --set model.dim=256",
       "headloom train recipes/demo.toml --set mixer.name=talking_heads --set train.seed=2"});
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("RECIPE", arguments->recipe, "TOML file that states the run")->required();
  command->add_option("--folder", arguments->run.folder,
                      "Where the run is kept (default: runs/<name of the recipe>)");
  add_overrides(command, arguments->overrides);
  command->add_flag("--fresh", arguments->run.fresh,
                    "Refuse a folder that holds a checkpoint instead of going on with it");
  command->add_flag("--quiet", arguments->run.quiet, "No progress; warnings still show");
  command->add_option("--label", arguments->run.label, "Text in front of the progress line");
  command->callback(
      [arguments, &action] { action = [arguments] { return train_command(*arguments); }; });
}

}  // namespace headloom::cli
