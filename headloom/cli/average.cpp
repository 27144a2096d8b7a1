#include "headloom/train/average.h"

#include <CLI/CLI.hpp>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string folder;
  std::optional<int64_t> last;
  train::AverageOptions average;
};

int average_command(Arguments arguments) {
  HEADLOOM_CHECK(!arguments.last || arguments.average.checkpoints.empty(), "average",
                 "--last or the names of checkpoints", "both");
  HEADLOOM_CHECK(arguments.last.value_or(1) >= 1, "average", "--last from 1 on",
                 cat(*arguments.last));
  if (arguments.last) arguments.average.last = *arguments.last;
  const train::Averaged averaged = train::average_run(arguments.folder, arguments.average);
  std::string text = "Averaged\n";
  for (const std::string& name : averaged.checkpoints) text += "  " + name + '\n';
  print(text + "into " + averaged.output + '\n');
  return kDone;
}

}  // namespace

void add_average(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "average", "Average the weights of checkpoints of a run into one file.",
      {"headloom average runs/multi30k --last 10",
       "headloom average runs/multi30k step_00007000 step_00008000 --output mean.safetensors",
       "headloom eval runs/multi30k --weights average.safetensors"});
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("FOLDER", arguments->folder, "Folder of a run")->required();
  command->add_option("CHECKPOINTS", arguments->average.checkpoints,
                      "Their names or paths (default: the newest)");
  command->add_option("--last", arguments->last, "How many of the newest (default: 5)");
  command->add_option("--output", arguments->average.output,
                      "File to write (default: <FOLDER>/average.safetensors)");
  command->callback(
      [arguments, &action] { action = [arguments] { return average_command(*arguments); }; });
}

}  // namespace headloom::cli
