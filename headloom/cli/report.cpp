#include "headloom/report/report.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"
#include "headloom/cli/run_log.h"
#include "headloom/cli/run_report.h"
#include "headloom/report/event_file.h"

namespace headloom::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDetails =
    R"(Training writes the page at its end; this writes it again, also while a run goes
on. --tensorboard adds the same curves as an event file of TensorBoard. Its clock
counts the seconds of training alone, so that they end when the log was last
written. The file is replaced by the next export of the run.)";

// TensorBoard takes any file with "tfevents" in its name.
constexpr const char* kEventFile = "events.out.tfevents.0.headloom";

struct Arguments {
  std::string folder, output, tensorboard;
};

double seconds_since_1970(const std::string& path) {
  const auto written = std::chrono::file_clock::to_sys(fs::last_write_time(path));
  return std::chrono::duration<double>(written.time_since_epoch()).count();
}

std::vector<report::Scalar> scalars_of(const RunLog& log, double last_written) {
  const double begin = last_written - (log.train.empty() ? 0.0 : log.train.back().seconds);
  std::vector<report::Scalar> scalars;
  for (const TrainPoint& point : log.train) {
    const double time = begin + point.seconds;
    scalars.push_back({"train/loss", point.step, time, point.loss});
    scalars.push_back({"train/lr", point.step, time, point.lr});
    scalars.push_back({"train/tokens_per_second", point.step, time, point.tokens_per_second});
  }
  for (const ValidationPoint& point : log.validation) {
    for (const auto& [name, value] : point.metrics) {
      scalars.push_back({"validation/" + name, point.step, begin + point.seconds, value});
    }
  }
  return scalars;
}

void make_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw RunError(cat(folder, ": expected a folder; ", error.message(), "."));
}

std::string export_events(const Arguments& arguments, const RunLog& log, double last_written) {
  const auto scalars = scalars_of(log, last_written);
  make_folder(arguments.tensorboard);
  const std::string path = arguments.tensorboard + '/' + kEventFile;
  write_file(path, report::render_events(scalars));
  return path;
}

int report_command(const Arguments& arguments) {
  const std::string recipe_path = arguments.folder + "/recipe.toml";
  HEADLOOM_CHECK(fs::exists(recipe_path), arguments.folder, "the folder of a run",
                 "no recipe.toml in it");
  const train::Recipe recipe = train::load_recipe(recipe_path);
  const std::string summary_path = arguments.folder + "/summary.json";
  std::optional<train::RunSummary> summary;
  if (fs::exists(summary_path)) summary = train::read_summary(summary_path);
  const std::string path =
      arguments.output.empty() ? arguments.folder + "/report.html" : arguments.output;
  const std::string log_path = arguments.folder + "/metrics.jsonl";
  const RunLog log = read_run_log(log_path);
  write_file(path, report::render_html(run_page(arguments.folder, recipe, log, summary)));
  std::string text = "Report: " + path + '\n';
  if (!arguments.tensorboard.empty()) {
    text += "TensorBoard: " + export_events(arguments, log, seconds_since_1970(log_path)) + '\n';
  }
  print(text);
  return kDone;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "report",
      "Write the page of a run: curves, cost, the matrices that mix heads; and TensorBoard's "
      "files.",
      {"headloom report runs/tiny_shakespeare",
       "headloom report runs/tiny_shakespeare --tensorboard runs/tensorboard/tiny_shakespeare"},
      kDetails);
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("FOLDER", arguments->folder, "Folder of a run")->required();
  command->add_option("--output", arguments->output,
                      "File to write (default: <FOLDER>/report.html)");
  command->add_option("--tensorboard", arguments->tensorboard,
                      "Folder for an event file of TensorBoard");
  command->callback(
      [arguments, &action] { action = [arguments] { return report_command(*arguments); }; });
}

}  // namespace headloom::cli
