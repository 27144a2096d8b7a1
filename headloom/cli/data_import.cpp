#include <CLI/CLI.hpp>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/cli/app.h"
#include "headloom/cli/data.h"
#include "headloom/cli/output.h"
#include "headloom/train/import_bert.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string folder, output;
};

int import_command(const Arguments& arguments) {
  const train::ImportedModel model = train::import_bert(arguments.folder, arguments.output);
  int64_t parameters = 0;
  for (const auto& [name, tensor] : model.weights) parameters += tensor.numel();
  std::string text = cat(arguments.output, ": a run of task masked_lm, ", model.weights.size(),
                         " tensors, ", parameters, " parameters");
  if (!model.pooler.empty()) text += ", and a pooler";
  if (!model.dropped.empty()) text += cat("; left out: ", join(model.dropped));
  print(text + '\n');
  return kDone;
}

}  // namespace

void add_data_import(CLI::App& data, Action& action) {
  CLI::App* command =
      add_command(data, "import", "Turn a BERT or RoBERTa model of Hugging Face into a run.",
                  {"headloom data import bert-base-uncased --output runs/bert",
                   "headloom eval runs/bert --set task.path=/data/wiki.txt",
                   "headloom train recipes/sst2.toml --set model.initial=../runs/bert ..."},
                  "The folder holds config.json, model.safetensors (with the "
                  "masked-language-model head) and\n"
                  "tokenizer.json. The run evaluates with a text of yours, --set "
                  "task.path=FILE, and is what\n"
                  "model.initial of another recipe names.");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("FOLDER", arguments->folder, "Folder of the model")->required();
  command->add_option("--output", arguments->output, "Folder of the run to write")->required();
  command->callback(
      [arguments, &action] { action = [arguments] { return import_command(*arguments); }; });
}

}  // namespace headloom::cli
