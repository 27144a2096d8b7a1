#include "headloom/cli/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "headloom/base/check.h"

namespace headloom::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

ComparedRun run_of(const std::string& mechanism, int64_t seed, double accuracy) {
  ComparedRun run{mechanism, seed, train::RunSummary{}, {}, ""};
  train::RunSummary& summary = *run.summary;
  summary.completed = true;
  summary.step = 100;
  summary.parameters = 1234567;
  summary.flops_per_sequence = 2.5e6;
  summary.tokens_per_second = 1000.0 * static_cast<double>(seed);
  summary.peak_memory_bytes = 100 << 20;
  summary.main_metric = "accuracy";
  summary.higher_is_better = true;
  summary.final_metrics = {{"loss", 1.0 - accuracy}, {"accuracy", accuracy}};
  summary.best_metrics = summary.final_metrics;
  summary.best_step = 90;
  run.log.train = {{50, 1.0, 2.0, 0.1, 10.0}, {100, 2.0, 1.0, 0.1, 10.0}};
  run.log.validation = {{100, 2.0, summary.final_metrics}};
  return run;
}

Comparison comparison_of(std::vector<ComparedRun> runs, std::vector<int64_t> seeds) {
  return {"Comparison", {"base", "other"},    std::move(seeds), std::move(runs),
          {},           "headloom compare x", "[task]"};
}

// The seeds differ much more than the mechanisms do.
Comparison paired() {
  return comparison_of(
      {run_of("base", 1, 0.1), run_of("other", 1, 0.08), run_of("base", 2, 0.5),
       run_of("other", 2, 0.485), run_of("base", 3, 0.9), run_of("other", 3, 0.875)},
      {1, 2, 3});
}

ComparedRun failed(const std::string& mechanism, int64_t seed) {
  return {mechanism, seed, {}, {}, "ended by signal 11"};
}

TEST(Comparison, PairsRunsBySeed) {
  const std::vector<MechanismResult> results = results_of(paired());
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].verdict, "baseline");
  EXPECT_NEAR(results[1].difference.mean, -0.02, 1e-12);
  EXPECT_GT(results[1].metric.half_width, 0.5) << "unpaired, nothing could be told";
  EXPECT_LT(results[1].difference.half_width, 0.02);
  EXPECT_EQ(results[1].verdict, "worse") << "a mechanism that loses is shown as losing";
  EXPECT_EQ(results[1].tokens_per_second, 2000.0);
}

TEST(Comparison, VerdictFollowsTheDirectionOfTheMetric) {
  Comparison comparison = paired();
  for (ComparedRun& run : comparison.runs) run.summary->higher_is_better = false;
  EXPECT_EQ(results_of(comparison)[1].verdict, "better");
}

TEST(Comparison, OneSeedDecidesNothing) {
  const Comparison comparison =
      comparison_of({run_of("base", 1, 0.1), run_of("other", 1, 0.9)}, {1});
  EXPECT_EQ(results_of(comparison)[1].verdict, "undecided");
  const std::string text = report::render_text(result_table(comparison));
  EXPECT_THAT(text, HasSubstr("0.9000 (1 seed)"));
  EXPECT_THAT(text, HasSubstr("+0.8000 (1 seed)"));
  EXPECT_THAT(text, HasSubstr("One seed shows no spread"));
}

TEST(Comparison, EqualRunsAreUndecided) {
  const Comparison comparison = comparison_of({run_of("base", 1, 0.5), run_of("other", 1, 0.5),
                                               run_of("base", 2, 0.5), run_of("other", 2, 0.5)},
                                              {1, 2});
  EXPECT_EQ(results_of(comparison)[1].verdict, "undecided");
}

TEST(Comparison, KeepsTheRestWhenARunFails) {
  Comparison comparison = paired();
  comparison.runs[1] = failed("other", 1);
  const std::vector<MechanismResult> results = results_of(comparison);
  EXPECT_EQ(results[0].metric.count, 3u);
  EXPECT_EQ(results[1].metric.count, 2u);
  EXPECT_EQ(results[1].difference.count, 2u) << "over the seeds that both have";
  EXPECT_NEAR(results[1].difference.mean, -0.02, 1e-12);
  EXPECT_THAT(result_table(comparison).note, HasSubstr("other, seed 1: ended by signal 11"));
}

TEST(Comparison, ShowsAMechanismWhoseRunsAllFailed) {
  const Comparison comparison = comparison_of({run_of("base", 1, 0.1), failed("other", 1)}, {1});
  EXPECT_EQ(result_table(comparison).rows[1], (std::vector<std::string>{"other", "failed"}));
  EXPECT_EQ(results_of(comparison)[1].verdict, "undecided");
  EXPECT_NO_THROW(comparison_page(comparison));
}

TEST(Comparison, ComparesWithoutItsBaseline) {
  const Comparison comparison = comparison_of({failed("base", 1), run_of("other", 1, 0.5)}, {1});
  EXPECT_EQ(results_of(comparison)[1].difference.count, 0u);
  EXPECT_THAT(report::render_text(result_table(comparison)), HasSubstr("n/a"));
}

TEST(Comparison, IsAFailureWithoutAnyFinishedRun) {
  const Comparison comparison = comparison_of({failed("base", 1), failed("other", 1)}, {1});
  try {
    result_table(comparison);
    FAIL() << "expected a failure";
  } catch (const RunError& error) {
    EXPECT_THAT(error.what(), HasSubstr("base seed 1: ended by signal 11"));
  }
}

TEST(Comparison, TableHasAColumnForEachCost) {
  const std::string text = report::render_text(result_table(paired()));
  for (const char* part :
       {"difference to base", "parameters", "1,234,567", "forward MFLOPs", "2.500", "tokens/s",
        "2,000", "peak memory MiB", "100", "worse", "loss"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(Comparison, PageShowsCurvesByStepAndByTime) {
  const report::Page page = comparison_page(paired());
  std::vector<std::string> titles;
  for (const report::Chart& chart : page.charts) titles.push_back(chart.title);
  EXPECT_THAT(titles,
              testing::ElementsAre("Training loss by step", "Training loss by time",
                                   "Validation loss by step", "Validation loss by time",
                                   "Validation accuracy by step", "Validation accuracy by time"));
  ASSERT_EQ(page.charts[0].series.size(), 2u);
  EXPECT_EQ(page.charts[0].series[1].name, "other");
  EXPECT_EQ(page.charts[0].series[1].points.size(), 2u);
  const std::string html = report::render_html(page);
  EXPECT_THAT(html, HasSubstr("headloom compare x"));
  EXPECT_THAT(html, Not(HasSubstr("http")));
}

TEST(Comparison, JsonHoldsTheNumbers) {
  Comparison comparison = paired();
  comparison.runs[1] = failed("other", 1);
  const auto object = nlohmann::json::parse(comparison_json(comparison));
  EXPECT_EQ(object["main_metric"], "accuracy");
  EXPECT_EQ(object["baseline"], "base");
  const auto& other = object["mechanisms"][1];
  EXPECT_EQ(other["mechanism"], "other");
  EXPECT_NEAR(other["difference"]["mean"].get<double>(), -0.02, 1e-12);
  EXPECT_EQ(other["runs"].size(), 3u);
  EXPECT_EQ(other["runs"][0]["failure"], "ended by signal 11");
  EXPECT_EQ(other["runs"][1]["final_metrics"]["accuracy"], 0.485);
  EXPECT_EQ(object["recipe"], "[task]");
}

TEST(FormatEstimate, ShowsTwoDigitsOfTheInterval) {
  EXPECT_EQ(format_estimate({0.41234, 0.0134, 3}), "0.412 \u00b1 0.013");
  EXPECT_EQ(format_estimate({0.02, 0.0134, 3}, true), "+0.020 \u00b1 0.013");
  EXPECT_EQ(format_estimate({-0.02, 0.0134, 3}, true), "-0.020 \u00b1 0.013");
  EXPECT_EQ(format_estimate({1234.5, 321.0, 3}), "1234 \u00b1 321");
  EXPECT_EQ(format_estimate({0.5, 0.0, 3}), "0.5000 \u00b1 0");
  EXPECT_EQ(format_estimate({0.5, 0.0, 1}), "0.5000 (1 seed)");
}

}  // namespace
}  // namespace headloom::cli
