#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/layer_bench.h"
#include "headloom/cli/machine.h"
#include "headloom/cli/output.h"
#include "headloom/mechanisms/registry.h"
#include "headloom/report/report.h"

namespace headloom::cli {
namespace {

struct Arguments {
  std::string recipe;
  std::vector<std::string> overrides, mechanisms;
  LayerBenchPlan plan;
  int64_t threads = 0;
  bool json = false;
};

constexpr const char* kDetails =
    R"(A layer is what [mixer] names as the last of the model, its projections included, of the recipe's
width and heads, without dropout; its input is [batch, length, width]. The first row is multi-head
attention as people write it in torch: a projection, scaled_dot_product_attention and a projection
back; the last two columns say how many times as long that takes. All layers are timed in turn, and
times are medians. Without a recipe the width is 512, with 8 heads, and all mechanisms are measured
with their default options; the width, the heads and options can be set: --set model.dim=256,
--set compare.light_conv.kernel_sizes=[7]. "Of peak" counts the multiply-adds of the mathematics
against what the processor does in float32.)";

// The recipe of a bench without one: what [task] says is not looked at.
std::string built_in_recipe() {
  std::vector<std::string> names;
  for (const Mechanism* mechanism : mechanisms()) {
    names.push_back(cat('"', mechanism->name, '"'));
  }
  return cat(
      "[task]\nname = \"language_model\"\n[model]\ndim = 512\nheads = 8\n[compare]\nmechanisms = [",
      join(names), "]\n");
}

train::Recipe read_recipe(const Arguments& arguments) {
  train::Recipe recipe = arguments.recipe.empty()
                             ? train::parse_recipe(built_in_recipe(), "bench", arguments.overrides,
                                                   tasks::task_names())
                             : train::load_recipe(arguments.recipe, arguments.overrides);
  if (!arguments.mechanisms.empty()) recipe.compare.mechanisms = arguments.mechanisms;
  if (recipe.compare.mechanisms.empty()) recipe.compare.mechanisms = {recipe.model.mixer};
  return recipe;
}

double of_peak(const LayerBench& bench, const LayerRow& row) {
  return row.flops / (row.times.forward_ms * 1e6 * bench.peak_gflops);
}

double tokens_per_second(const LayerBench& bench, const LayerRow& row) {
  return static_cast<double>(bench.plan.batch * bench.plan.length) / (row.times.both_ms * 1e-3);
}

report::Table table_of(const LayerBench& bench, const Machine& machine) {
  report::Table table;
  table.columns = {"mechanism", "parameters", "forward ms",      "of peak, %",
                   "both ms",   "tokens/s",   "torch / forward", "torch / both"};
  const LayerTimes& torch = bench.rows[0].times;
  for (const LayerRow& row : bench.rows) {
    table.rows.push_back({row.name, std::to_string(row.parameters),
                          report::format_number(row.times.forward_ms),
                          report::format_number(100.0 * of_peak(bench, row), 3),
                          report::format_number(row.times.both_ms),
                          report::format_number(tokens_per_second(bench, row), 3),
                          report::format_number(torch.forward_ms / row.times.forward_ms, 3),
                          report::format_number(torch.both_ms / row.times.both_ms, 3)});
  }
  table.note =
      cat("One layer of width ", bench.dim, " with ", bench.heads, " heads, batch ",
          bench.plan.batch, ", length ", bench.plan.length, bench.plan.causal ? ", causal, " : ", ",
          bench.plan.type, "; peak ", report::format_number(bench.peak_gflops, 3), " GFLOP/s. ",
          to_string(machine), '.');
  return table;
}

nlohmann::ordered_json json_of(const LayerBench& bench, const Machine& machine) {
  nlohmann::ordered_json object{{"dim", bench.dim},
                                {"heads", bench.heads},
                                {"batch", bench.plan.batch},
                                {"length", bench.plan.length},
                                {"causal", bench.plan.causal},
                                {"dtype", bench.plan.type},
                                {"threads", machine.threads},
                                {"machine", to_string(machine)},
                                {"peak_gflops", bench.peak_gflops},
                                {"rows", nlohmann::ordered_json::array()}};
  for (const LayerRow& row : bench.rows) {
    object["rows"].push_back({{"mechanism", row.name},
                              {"parameters", row.parameters},
                              {"flops", row.flops},
                              {"forward_ms", row.times.forward_ms},
                              {"forward_backward_ms", row.times.both_ms},
                              {"of_peak", of_peak(bench, row)}});
  }
  return object;
}

int bench_command(const Arguments& arguments) {
  const train::Recipe recipe = read_recipe(arguments);
  HEADLOOM_CHECK(arguments.threads >= 0, "bench --threads",
                 "a number of threads, or 0 for torch's default", cat(arguments.threads));
  if (arguments.threads > 0) at::set_num_threads(static_cast<int>(arguments.threads));
  const LayerBench bench = run_layer_bench(recipe, arguments.plan);
  const Machine machine = describe_machine(arguments.threads);
  if (arguments.json) {
    print(json_of(bench, machine).dump(2) + '\n');
  } else {
    print(report::render_text(table_of(bench, machine)));
  }
  return kDone;
}

void add_plan(CLI::App* command, Arguments& arguments) {
  LayerBenchPlan& plan = arguments.plan;
  command->add_option("--batch", plan.batch, "Sequences")->capture_default_str();
  command->add_option("--length", plan.length, "Tokens of each")->capture_default_str();
  command->add_flag("--causal", plan.causal, "No token sees a later one");
  command->add_option("--dtype", plan.type, "float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  command->add_option("--threads", arguments.threads, "Threads (default: torch's)");
  command->add_option("--rounds", plan.rounds, "Times that all layers are gone through")
      ->capture_default_str();
  command->add_option("--seconds", plan.seconds, "Of timing for each layer and pass")
      ->capture_default_str();
  command->add_option("--seed", plan.seed, "Of inputs and weights")->capture_default_str();
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "bench", "Time one layer of each mechanism on this machine, beside torch's attention.",
      {"headloom bench",
       "headloom bench --length 4096 --causal --mechanisms h_transformer,light_conv",
       "headloom bench recipes/multi30k.toml --batch 32 --length 32",
       "headloom bench --set model.dim=256 --set model.heads=4 --dtype bfloat16 --json"},
      kDetails);
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("RECIPE", arguments->recipe,
                      "A recipe, for the width, the heads and the mechanisms of [compare]");
  add_mechanisms(command, arguments->mechanisms,
                 "Mechanisms or variants (default: [compare] mechanisms)");
  add_plan(command, *arguments);
  add_overrides(command, arguments->overrides);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_command(*arguments); }; });
}

}  // namespace headloom::cli
