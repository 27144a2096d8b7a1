#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/tasks/byte_text/byte_text_task.h"
#include "headloom/tasks/classification/classification_task.h"
#include "headloom/tasks/graph/graph_task.h"
#include "headloom/tasks/image/image_task.h"
#include "headloom/tasks/language_model/language_model_task.h"
#include "headloom/tasks/listops/listops_task.h"
#include "headloom/tasks/masked_lm/masked_lm_task.h"
#include "headloom/tasks/pathfinder/pathfinder_task.h"
#include "headloom/tasks/retrieval/retrieval_task.h"
#include "headloom/tasks/span_corruption/span_corruption_task.h"
#include "headloom/tasks/task.h"
#include "headloom/tasks/text_to_text/text_to_text_task.h"
#include "headloom/tasks/translation/translation_task.h"

namespace headloom::tasks {

namespace {

void refuse_parts(const std::string& where, const EncoderDecoderParts& parts) {
  std::vector<std::string> stated;
  for (const auto& [name, mixer] : std::vector<std::pair<std::string, const NamedMixer*>>{
           {"[encoder_mixer]", &parts.encoder_mixer},
           {"[decoder_mixer]", &parts.decoder_mixer},
           {"[cross_mixer]", &parts.cross_mixer}}) {
    if (!mixer->name.empty()) stated.push_back(name);
  }
  if (parts.decoder_layers != 0) stated.emplace_back("model.decoder_layers");
  if (parts.ffn_dropout != 0.0) stated.emplace_back("model.ffn_dropout");
  HEADLOOM_CHECK(stated.empty(), where, "a model without encoder and decoder", join(stated),
                 "They describe encoder-decoder models alone.");
}

}  // namespace

const std::vector<TaskEntry>& all_tasks() {
  static const std::vector<TaskEntry> tasks = {
      byte_text_entry(),      classification_entry(),  graph_entry(),        image_entry(),
      language_model_entry(), listops_entry(),         masked_lm_entry(),    pathfinder_entry(),
      retrieval_entry(),      span_corruption_entry(), text_to_text_entry(), translation_entry()};
  return tasks;
}

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const TaskEntry& entry : all_tasks()) names.push_back(entry.name);
  return names;
}

std::unique_ptr<Task> make_task(const std::string& name, const TaskConfig& config,
                                const Options& options) {
  std::vector<std::string> names;
  for (const TaskEntry& entry : all_tasks()) {
    names.push_back(entry.name);
    if (entry.name != name) continue;
    const std::string where = cat("task ", name);
    HEADLOOM_CHECK(config.batch_size >= 1, where, "a batch size of at least 1",
                   cat(config.batch_size));
    if (!entry.encoder_decoder) refuse_parts(where, config.parts);
    OptionReader reader(where, options);
    std::unique_ptr<Task> task = entry.make(config, reader);
    reader.done();
    return task;
  }
  const std::string nearest = nearest_name(name, names);
  fail("task", cat("a task among ", join(names)), cat('"', name, '"'),
       nearest.empty() ? "" : cat("Did you mean \"", nearest, "\"?"));
}

}  // namespace headloom::tasks
