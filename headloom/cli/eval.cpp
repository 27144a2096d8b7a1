#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"
#include "headloom/report/report.h"
#include "headloom/tasks/text_attack.h"
#include "headloom/train/run.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string folder, weights;
  std::vector<std::string> overrides;
  bool json = false;
  tasks::AttackPlan plan;
};

const tasks::TextClassifier* victim_of(const train::LoadedRun& run, const Arguments& arguments) {
  if (arguments.plan.attack.empty()) return nullptr;
  const auto* victim = dynamic_cast<const tasks::TextClassifier*>(run.task.get());
  HEADLOOM_CHECK(victim, "eval --attack", "a run of a task that classifies texts",
                 cat("task ", run.task->name()), "Leave --attack out, or name such a run.");
  return victim;
}

tasks::Metrics rates(const tasks::AttackReport& report) {
  return {{"clean_accuracy", report.clean_accuracy()},
          {"accuracy_under_attack", report.accuracy_under_attack()},
          {"attack_failure_rate", report.failure_rate()},
          {"mean_queries", report.mean_queries()},
          {"words_changed", report.words_changed()}};
}

nlohmann::ordered_json as_json(const train::LoadedRun& run, const tasks::Metrics& metrics) {
  nlohmann::ordered_json object{{"step", run.step}, {"weights", run.weights}};
  const std::string note = run.task->metrics_note();
  if (!note.empty()) object["note"] = note;
  for (const auto& [name, value] : metrics) object["metrics"][name] = value;
  return object;
}

nlohmann::ordered_json as_json(const tasks::AttackPlan& plan, const tasks::AttackReport& report) {
  nlohmann::ordered_json object{{"name", plan.attack},       {"examples", report.examples()},
                                {"seed", plan.seed},         {"budget", plan.budget},
                                {"skipped", report.skipped}, {"succeeded", report.succeeded},
                                {"failed", report.failed}};
  for (const auto& [name, value] : rates(report)) object[name] = value;
  return object;
}

report::Table table_of(const tasks::Metrics& metrics) {
  report::Table table{"", {"metric", "value"}, {}, ""};
  for (const auto& [name, value] : metrics) {
    table.rows.push_back({name, report::format_number(value, 6)});
  }
  return table;
}

std::string as_text(const train::LoadedRun& run, const tasks::Metrics& metrics) {
  report::Table table = table_of(metrics);
  const bool of_file = run.weights != "best" && run.weights != "newest";
  table.note =
      cat("Task ", run.task->name(), ", ",
          of_file ? cat("weights ", run.weights) : cat(run.weights, " weights, step ", run.step));
  const std::string note = run.task->metrics_note();
  if (!note.empty()) table.note += "; " + note;
  return report::render_text(table);
}

std::string as_text(const tasks::AttackPlan& plan, const tasks::AttackReport& report) {
  report::Table table = table_of(rates(report));
  table.note = cat("Attack ", plan.attack, " on ", report.examples(), " examples, seed ", plan.seed,
                   ": ", report.skipped, " wrong before it and skipped, ", report.succeeded,
                   " succeeded, ", report.failed, " failed");
  return report::render_text(table);
}

int eval_command(const Arguments& arguments) {
  const train::LoadedRun run =
      train::load_run(arguments.folder, arguments.overrides, arguments.weights);
  const tasks::TextClassifier* victim = victim_of(run, arguments);
  const tasks::Metrics metrics = train::evaluate(*run.model, *run.task, run.recipe);
  std::optional<tasks::AttackReport> report;
  if (victim) report = tasks::attack_model(*run.model, *victim, arguments.plan);
  if (arguments.json) {
    nlohmann::ordered_json object = as_json(run, metrics);
    if (report) object["attack"] = as_json(arguments.plan, *report);
    print(object.dump(2) + '\n');
  } else {
    print(as_text(run, metrics));
    if (report) print('\n' + as_text(arguments.plan, *report));
  }
  return kDone;
}

constexpr const char* kDetails =
    R"(Attacks take texts of the validation data that are classified correctly and change words until they
no longer are:
  character  edits of characters: a space, a letter less, two exchanged, a look-alike, a key beside it
  embedding  neighbours of words by the model's own embedding
  hotflip    tokens by the gradient, at most 2 of them, in a beam of 10
They need nothing but the model, and their rates are comparable with each other only. Of a pair the
second text is attacked. Reported, in per cent but for the queries:
  clean_accuracy         of the examples, those that are right before the attack, and are attacked
  accuracy_under_attack  of the examples, those that are right after it as well
  attack_failure_rate    of those that are attacked, those that are right after it
  mean_queries           texts (hotflip: also gradients) that the model was asked about, for each
                         that is attacked
  words_changed          of the words (hotflip: tokens) of a text, mean over the attacks that succeeded
)";

void add_attack_options(CLI::App* command, tasks::AttackPlan& plan) {
  plan.attack.clear();
  CLI::Option* attack =
      command->add_option("--attack", plan.attack, "Attack a classifier of texts as well")
          ->check(CLI::IsMember(tasks::attack_names()));
  command
      ->add_option("--examples", plan.examples,
                   "Examples that are drawn for the attack; 0: all of the validation data")
      ->needs(attack)
      ->capture_default_str();
  command
      ->add_option("--budget", plan.budget,
                   "Queries for an example, after which its attack has failed; 0: no limit")
      ->needs(attack)
      ->capture_default_str();
  command
      ->add_option("--seed", plan.seed,
                   "Of the examples that are drawn, and of the places of character edits")
      ->needs(attack)
      ->capture_default_str();
  command
      ->add_option("--least-cosine", plan.least,
                   "Between what is exchanged (default: 0.5 for embedding, 0.8 for hotflip)")
      ->needs(attack);
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  CLI::App* command =
      add_command(app, "eval", "Measure the model of a run on the validation data of its task.",
                  {"headloom eval runs/listops", "headloom eval runs/listops --json",
                   "headloom eval runs/listops --set train.batch_size=8",
                   "headloom eval runs/multi30k --weights average.safetensors --set "
                   "task.evaluate_on=test",
                   "headloom eval runs/sst2 --attack character --examples 200 --seed 1 --json"},
                  kDetails);
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("FOLDER", arguments->folder, "Folder of a run")->required();
  command->add_option("--weights", arguments->weights,
                      "best, newest or a safetensors file (default: best)");
  add_overrides(command, arguments->overrides);
  add_attack_options(command, arguments->plan);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return eval_command(*arguments); }; });
}

}  // namespace headloom::cli
