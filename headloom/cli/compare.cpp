#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/comparison.h"
#include "headloom/cli/output.h"
#include "headloom/cli/process.h"
#include "headloom/train/run.h"

namespace headloom::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDetails =
    R"(Each run is a process of its own, so that its speed and memory are its own. The
table shows the main metric with 95 % intervals over seeds, differences to the
first mechanism paired by seed, parameters, operations, tokens per second and
peak memory; FOLDER gets report.html and comparison.json. Finished runs are
kept: the same command goes on after an interruption.

Options of a mechanism come from [compare.<name>] of the recipe, else from
[mixer] when that names it, else they are the defaults. A section of another
name is a variant: mechanism = "..." says what it is one of, and
set = ["section.key=value"] changes anything else, e.g. "alignment.form=adversarial".)";

struct Arguments {
  std::string recipe, folder;
  std::vector<std::string> overrides, mechanisms;
  std::vector<int64_t> seeds;
  bool quiet = false;
};

template <class T>
void check_distinct(std::vector<T> values, const char* what) {
  HEADLOOM_CHECK(!values.empty(), "compare", cat(what, " to compare"), "none",
                 cat("State [compare] ", what, " in the recipe or give --", what, "."));
  std::sort(values.begin(), values.end());
  const auto twice = std::adjacent_find(values.begin(), values.end());
  HEADLOOM_CHECK(twice == values.end(), "compare", cat("distinct ", what), cat(*twice, " twice"));
}

train::Recipe read_recipe(const Arguments& arguments) {
  train::Recipe recipe = train::load_recipe(arguments.recipe, arguments.overrides);
  if (!arguments.mechanisms.empty()) recipe.compare.mechanisms = arguments.mechanisms;
  if (!arguments.seeds.empty()) recipe.compare.seeds = arguments.seeds;
  check_distinct(recipe.compare.mechanisms, "mechanisms");
  check_distinct(recipe.compare.seeds, "seeds");
  for (const int64_t seed : recipe.compare.seeds) {
    HEADLOOM_CHECK(seed >= 0, "compare", "seeds from 0 on", cat(seed));
  }
  HEADLOOM_CHECK(recipe.parts.encoder_mixer.name.empty() || recipe.parts.decoder_mixer.name.empty(),
                 "compare", "a recipe that leaves encoder or decoder to [mixer], which varies",
                 "both [encoder_mixer] and [decoder_mixer]", "Leave one of them out.");
  return recipe;
}

train::Recipe recipe_of_run(const train::Recipe& shared, const std::string& name, int64_t seed) {
  train::Recipe recipe = train::variant_recipe(shared, name);
  recipe.train.seed = static_cast<uint64_t>(seed);
  return recipe;
}

// Builds every model once, so that a mistake in the last mechanism's options shows before the first
// one has trained for hours.
void check_models(const train::Recipe& recipe) {
  const auto shared = train::make_task(recipe);
  for (const std::string& name : recipe.compare.mechanisms) {
    const train::Recipe run = train::variant_recipe(recipe, name);
    const bool same = run.task == recipe.task && run.task_options == recipe.task_options;
    (same ? *shared : *train::make_task(run)).make_model(run.model);
  }
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string run_folder(const std::string& folder, const std::string& mechanism, int64_t seed) {
  return cat(folder, "/", mechanism, "/seed_", seed);
}

// Puts the recipe beside the run's folder, or refuses a folder that has runs of another one.
std::string place_recipe(const std::string& folder, const train::Recipe& recipe) {
  const std::string path = folder + ".toml", text = train::to_toml(recipe);
  if (fs::exists(path)) {
    HEADLOOM_CHECK(!fs::exists(folder) || read_text(path) == text, path,
                   "the recipe that this comparison trains with",
                   "another one, which the run beside it was made with",
                   "Give another --folder, or remove this one.");
  }
  fs::create_directories(fs::path(path).parent_path());
  write_file(path, text);
  return path;
}

bool is_finished(const std::string& folder) {
  const std::string path = folder + "/summary.json";
  return fs::exists(path) && train::read_summary(path).completed;
}

std::string describe_failure(const ChildEnd& end) {
  if (end.signal != 0) return cat("ended by signal ", end.signal);
  return cat("ended with exit code ", end.exit_code);
}

struct Job {
  std::string mechanism, folder, recipe;
  int64_t seed;
};

// Seed by seed, so that a machine that grows slower during the day does so for all mechanisms.
std::vector<Job> place_jobs(const train::Recipe& recipe, const std::string& folder) {
  std::vector<Job> jobs;
  for (const int64_t seed : recipe.compare.seeds) {
    for (const std::string& mechanism : recipe.compare.mechanisms) {
      const std::string place = run_folder(folder, mechanism, seed);
      jobs.push_back(
          {mechanism, place, place_recipe(place, recipe_of_run(recipe, mechanism, seed)), seed});
    }
  }
  return jobs;
}

ComparedRun run_job(const Job& job, const std::string& progress, bool quiet) {
  ComparedRun run{job.mechanism, job.seed, {}, {}, ""};
  if (!is_finished(job.folder)) {
    const std::string label = cat(progress, " ", job.mechanism, ", seed ", job.seed);
    std::vector<std::string> words{own_executable(), "train",   job.recipe, "--folder",
                                   job.folder,       "--label", label};
    if (quiet) words.push_back("--quiet");
    const ChildEnd end = run_child(words);
    if (end.exit_code != kDone) run.failure = describe_failure(end);
  }
  if (run.failure.empty()) {
    run.summary = train::read_summary(job.folder + "/summary.json");
    run.log = read_run_log(job.folder + "/metrics.jsonl");
  }
  return run;
}

std::string command_line(const Arguments& arguments, const std::string& folder) {
  std::vector<std::string> words{"headloom", "compare", arguments.recipe, "--folder", folder};
  for (const std::string& text : arguments.overrides) words.insert(words.end(), {"--set", text});
  if (!arguments.mechanisms.empty()) {
    words.insert(words.end(), {"--mechanisms", join(arguments.mechanisms, ",")});
  }
  std::vector<std::string> seeds;
  for (const int64_t seed : arguments.seeds) seeds.push_back(std::to_string(seed));
  if (!seeds.empty()) words.insert(words.end(), {"--seeds", join(seeds, ",")});
  return shell_line(words);
}

int publish(const Comparison& comparison, const std::string& folder) {
  const std::string report = folder + "/report.html";
  write_file(folder + "/comparison.json", comparison_json(comparison));
  write_file(report, report::render_html(comparison_page(comparison)));
  print(cat(report::render_text(result_table(comparison)), "Report: ", report, "\n"));
  const auto failed = std::count_if(comparison.runs.begin(), comparison.runs.end(),
                                    [](const ComparedRun& run) { return !run.summary; });
  return failed == 0 ? kDone : kFailed;
}

int compare_command(const Arguments& arguments) {
  const train::Recipe recipe = read_recipe(arguments);
  const std::string folder = arguments.folder.empty()
                                 ? default_folder("runs", arguments.recipe, "_compare")
                                 : arguments.folder;
  check_models(recipe);
  const std::vector<Job> jobs = place_jobs(recipe, folder);
  Comparison comparison{cat("Comparison: ", recipe.task),
                        recipe.compare.mechanisms,
                        recipe.compare.seeds,
                        {},
                        describe_machine(recipe.train.threads),
                        command_line(arguments, folder),
                        train::to_toml(recipe)};
  SignalRelay relay;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const std::string progress = cat("[", i + 1, "/", jobs.size(), "]");
    comparison.runs.push_back(run_job(jobs[i], progress, arguments.quiet));
    const ComparedRun& run = comparison.runs.back();
    if (SignalRelay::interrupted()) {
      complain("interrupted; the same command goes on where this one stopped");
      return kInterrupted;
    }
    if (!run.failure.empty()) complain(cat(run.mechanism, ", seed ", run.seed, ": ", run.failure));
  }
  return publish(comparison, folder);
}

}  // namespace

void add_compare(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "compare", "Train several mechanisms under the same seeds and data, and compare them.",
      {"headloom compare recipes/demo.toml",
       "headloom compare recipes/demo.toml --mechanisms dot_product,talking_heads --seeds 1,2,3",
       "headloom compare recipes/demo.toml --folder runs/short --set train.steps=200"},
      kDetails);
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("RECIPE", arguments->recipe, "TOML file that states the runs")->required();
  command->add_option("--folder", arguments->folder,
                      "Where the runs are kept (default: runs/<name of the recipe>_compare)");
  add_overrides(command, arguments->overrides);
  add_mechanisms(command, arguments->mechanisms,
                 "Mechanisms or variants; the first is what the others are compared with "
                 "(default: [compare] mechanisms)");
  command->add_option("--seeds", arguments->seeds, "Default: [compare] seeds")
      ->type_name("N,N")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_flag("--quiet", arguments->quiet, "No progress; warnings still show");
  command->callback(
      [arguments, &action] { action = [arguments] { return compare_command(*arguments); }; });
}

}  // namespace headloom::cli
