#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "headloom/mechanisms/registry.h"
#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

Outcome bench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"bench", "--seconds", "0.001", "--rounds", "2"});
  return run_command(arguments);
}

const std::vector<std::string> kSmall{"--batch",      "2",     "--length",     "12", "--set",
                                      "model.dim=16", "--set", "model.heads=2"};

std::vector<std::string> small(std::vector<std::string> more) {
  more.insert(more.begin(), kSmall.begin(), kSmall.end());
  return more;
}

TEST(Bench, MeasuresEachMechanismBesideTorch) {
  const Outcome outcome = bench(small({"--json", "--threads", "1"}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json found = Json::parse(outcome.out);
  EXPECT_EQ(found["dim"], 16);
  EXPECT_EQ(found["batch"], 2);
  EXPECT_EQ(found["threads"], 1);
  std::vector<std::string> names{"torch"};
  for (const Mechanism* mechanism : mechanisms()) names.push_back(mechanism->name);
  ASSERT_EQ(found["rows"].size(), names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const Json& row = found["rows"][i];
    EXPECT_EQ(row["mechanism"], names[i]);
    EXPECT_GT(row["forward_ms"], 0.0) << row;
    EXPECT_GT(row["forward_backward_ms"], row["forward_ms"]) << row;
    EXPECT_GT(row["flops"], 0.0) << row;
  }
  // 4 (16 * 16 + 16) parameters, and the operations of 2 sequences: 8 T C^2 + 4 T^2 C each.
  EXPECT_EQ(found["rows"][0]["parameters"], 1088);
  EXPECT_EQ(found["rows"][0]["flops"], 2 * (8 * 12 * 256 + 4 * 12 * 12 * 16));
  EXPECT_EQ(found["rows"][1]["mechanism"], "dot_product");
  EXPECT_EQ(found["rows"][1]["flops"], found["rows"][0]["flops"]);
}

TEST(Bench, TakesAllTypesAndCausalSequences) {
  for (const char* type : {"float32", "bfloat16"}) {
    const Outcome outcome =
        bench(small({"--causal", "--dtype", type, "--mechanisms", "light_conv,talking_heads"}));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("\ntalking_heads "));
    EXPECT_THAT(outcome.out, HasSubstr(std::string("causal, ") + type));
  }
}

TEST(Bench, TakesWidthAndVariantsFromARecipe) {
  const TemporaryFolder folder;
  write_text(folder / "narrow.toml", R"([task]
name = "listops"
[model]
dim = 24
heads = 3
[compare]
mechanisms = ["wide", "dot_product"]
[compare.wide]
mechanism = "light_conv"
kernel_sizes = [5]
)");
  const Outcome outcome = bench({folder / "narrow.toml", "--length", "9", "--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json found = Json::parse(outcome.out);
  EXPECT_EQ(found["dim"], 24);
  EXPECT_EQ(found["heads"], 3);
  ASSERT_EQ(found["rows"].size(), 3);
  EXPECT_EQ(found["rows"][1]["mechanism"], "wide");
}

TEST(Bench, RefusesWhatCannotBeMeasured) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong{
      {{"--length", "0"}, "length"},
      {{"--batch", "-1"}, "batch"},
      {{"--threads", "-2"}, "threads"},
      {{"--dtype", "float8"}, "float32"},
      {{"--mechanisms", "light_con"}, "light_conv"},
      {{"--set", "model.dim=0"}, "dim"},
      {{"--set", "model.dim=20"}, "divide model.dim"},
      {{"--mechanisms", "light_conv", "--set", "compare.light_conv.kernel_size=4"}, "kernel_sizes"},
      {{"missing.toml"}, "missing.toml"},
  };
  for (const auto& [arguments, part] : wrong) {
    const Outcome outcome = bench(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << part << ": " << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, HasSubstr(part));
  }
}

}  // namespace
}  // namespace headloom::cli
