#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/tasks/classification/classification_task.h"
#include "headloom/tasks/graph/graph_task.h"
#include "headloom/tasks/language_model/language_model_task.h"
#include "headloom/tasks/listops/listops_task.h"
#include "headloom/tasks/masked_lm/masked_lm_task.h"
#include "headloom/tasks/task.h"

namespace headloom::tasks {

const std::vector<TaskEntry>& all_tasks() {
  static const std::vector<TaskEntry> tasks = {classification_entry(), graph_entry(), language_model_entry(),
                                               listops_entry(), masked_lm_entry()};
  return tasks;
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
