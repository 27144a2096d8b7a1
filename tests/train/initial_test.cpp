// Fine-tuning: a classifier that starts from a masked language model, its tokenizer included.
#include "headloom/train/initial.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <map>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/train/recipe_changes.h"
#include "headloom/train/run.h"
#include "headloom/train/weights.h"
#include "tests/support/message_of.h"
#include "tests/train/temporary_folder.h"

namespace headloom::train {
namespace {

using headloom::testing::message_of;

namespace fs = std::filesystem;
using at::Tensor;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr const char* kModel = R"(
[model]
dim = 16
layers = 1
heads = 2
ffn = 32
max_length = 32
[mixer]
name = "dot_product"
[train]
steps = 2
batch_size = 4
validate_every = 2
)";

class Initial : public ::testing::Test {
 protected:
  Initial() {
    std::string text, rows = "sentence\tlabel\n";
    for (int i = 0; i < 80; ++i) {
      text += cat("row ", i, " of a text about looms and threads\n");
      rows += cat("row ", i, i % 2 ? " is warm" : " is cold", '\t', i % 2, '\n');
    }
    write("text.txt", text);
    write("rows.tsv", rows);
    write("mlm.toml", cat(R"(
[task]
name = "masked_lm"
path = "text.txt"
vocabulary = 90
context = 16
)",
                          kModel));
    write("spans.toml", cat(R"(
[task]
name = "span_corruption"
path = "text.txt"
vocabulary = 90
sentinels = 5
context = 24
)",
                            kModel));
    write("answer.toml", cat(R"(
[task]
name = "text_to_text"
train_file = "rows.tsv"
validation_file = "rows.tsv"
negative = "looms"
positive = "threads"
vocabulary = 90
sentinels = 5
max_length = 32
)",
                             kModel));
    write("classify.toml", cat(R"(
[task]
name = "classification"
train_file = "rows.tsv"
validation_file = "rows.tsv"
vocabulary = 90
max_length = 32
)",
                               kModel));
  }
  void write(const std::string& name, const std::string& text) {
    tasks::write_file(fs::path(folder_.file(name)), text);
  }
  RunSummary run(const std::string& recipe, const std::string& folder,
                 const std::vector<std::string>& overrides = {}) {
    RunOptions options;
    options.folder = folder_.file(folder);
    options.quiet = true;
    return train::train(load_recipe(folder_.file(recipe), overrides), options);
  }
  std::shared_ptr<tasks::Model> model_of(const std::string& name,
                                         const std::vector<std::string>& overrides = {}) {
    const Recipe recipe = load_recipe(folder_.file(name), overrides);
    return train::make_task(recipe)->make_model(recipe.model);
  }
  std::shared_ptr<tasks::Model> classifier(const std::vector<std::string>& overrides = {}) {
    return model_of("classify.toml", overrides);
  }

  const testing::TemporaryFolder folder_;
};

TEST_F(Initial, TakesTheEncoderAndListsTheRest) {
  run("mlm.toml", "mlm");
  const auto model = classifier();
  const InitialReport report = load_initial(folder_.file("mlm"), *model);
  EXPECT_THAT(report.fresh, UnorderedElementsAre("pooler.weight", "pooler.bias",
                                                 "classifier.weight", "classifier.bias"));
  EXPECT_THAT(report.unused, UnorderedElementsAre("dense.weight", "dense.bias", "norm.weight",
                                                  "norm.bias", "bias"));
  EXPECT_THAT(report.loaded, Contains("encoder.blocks.0.mixer.q_proj.weight"));
  EXPECT_THAT(report.text("x"), HasSubstr("drawn: pooler.weight"));
  const LoadedRun source = load_run(folder_.file("mlm"));
  const auto expected = source.model->named_parameters();
  for (const auto& parameter : model->named_parameters()) {
    const Tensor* same = expected.find(parameter.key());
    if (same) {
      EXPECT_TRUE(at::equal(parameter.value(), *same)) << parameter.key();
    }
  }
}

TEST_F(Initial, TrainsFromARunWithItsTokenizer) {
  run("mlm.toml", "mlm", {"train.ema=0.5"});
  const std::string kept = tasks::read_file(fs::path(folder_.file("mlm")) / "tokenizer.json");
  run("classify.toml", "tuned", {"model.initial=mlm", "optimizer.lr=1e-12"});
  EXPECT_EQ(tasks::read_file(fs::path(folder_.file("tuned")) / "tokenizer.json"), kept);
  // Averaged weights are what the source was validated with, and what is taken.
  const NamedTensors weights = initial_weights(folder_.file("mlm"));
  const std::map<std::string, Tensor> given(weights.begin(), weights.end());
  const LoadedRun tuned = load_run(folder_.file("tuned"));
  for (const auto& parameter : tuned.model->named_parameters()) {
    const auto source = given.find(parameter.key());
    if (source == given.end()) continue;
    EXPECT_TRUE(at::allclose(parameter.value(), source->second, 0, 1e-8)) << parameter.key();
  }
  // The run stands on its own from here on, and goes on from its own weights.
  fs::remove_all(fs::path(folder_.file("mlm")));
  EXPECT_EQ(
      run("classify.toml", "tuned", {"model.initial=mlm", "optimizer.lr=1e-12", "train.steps=3"})
          .step,
      3);
}

TEST_F(Initial, SinusoidalPositionsMayHaveAnotherLength) {
  run("mlm.toml", "mlm", {"model.positions=sinusoidal"});
  const auto longer = classifier({"model.positions=sinusoidal", "model.max_length=48"});
  EXPECT_THAT(load_initial(folder_.file("mlm"), *longer).loaded, Contains("encoder.positions"));
  EXPECT_EQ(longer->named_buffers()["encoder.positions"].size(0), 48);
  // Learned ones are weights.
  const auto learned = classifier({"model.max_length=48"});
  EXPECT_THAT(message_of([&] { load_initial(folder_.file("mlm"), *learned); }),
              HasSubstr("encoder.positions is Float [32, 16] instead of Float [48, 16]"));
}

TEST_F(Initial, AnEncoderDecoderLoadsWhole) {
  run("spans.toml", "spans");
  const auto model = model_of("answer.toml");
  const InitialReport report = load_initial(folder_.file("spans"), *model);
  EXPECT_THAT(report.fresh, IsEmpty());
  EXPECT_THAT(report.unused, IsEmpty());
  EXPECT_THAT(report.loaded, Contains("model.decoder.0.cross.q_proj.weight"));
  const std::string kept = tasks::read_file(fs::path(folder_.file("spans")) / "tokenizer.json");
  run("answer.toml", "answers", {"model.initial=spans"});
  EXPECT_EQ(tasks::read_file(fs::path(folder_.file("answers")) / "tokenizer.json"), kept);
  EXPECT_THAT(
      message_of([&] {
        load_initial(folder_.file("spans"), *model_of("answer.toml", {"task.sentinels=6"}));
      }),
      HasSubstr("model.source_embedding.weight is Float [95, 16] instead of Float [96, 16]"));
}

TEST_F(Initial, TakesASafetensorsFile) {
  const auto source = classifier(), target = classifier();
  write_safetensors(folder_.file("weights.safetensors"), model_tensors(*source));
  const InitialReport report = load_initial(folder_.file("weights.safetensors"), *target);
  EXPECT_TRUE(report.fresh.empty());
  EXPECT_TRUE(at::equal(source->named_parameters()["pooler.weight"],
                        target->named_parameters()["pooler.weight"]));
}

TEST_F(Initial, RefusesWhatDoesNotFit) {
  run("mlm.toml", "mlm");
  const auto narrow = classifier({"model.ffn=24"});
  const Tensor before = narrow->named_parameters()["encoder.embedding.weight"].clone();
  EXPECT_THAT(message_of([&] { load_initial(folder_.file("mlm"), *narrow); }),
              HasSubstr("encoder.blocks.0.ffn_in.weight is Float [32, 16] "
                        "instead of Float [24, 16]"));
  EXPECT_TRUE(at::equal(narrow->named_parameters()["encoder.embedding.weight"], before));
  const auto model = classifier();
  EXPECT_THAT(message_of([&] { load_initial(folder_.file("nowhere"), *model); }),
              HasSubstr("expected a run folder or a safetensors file; found no such file"));
  EXPECT_THAT(message_of([&] { load_initial(folder_.path(), *model); }),
              HasSubstr("expected a run folder with a checkpoint; found none"));
  write_safetensors(folder_.file("other.safetensors"), {{"x", at::ones({2})}});
  EXPECT_THAT(message_of([&] { load_initial(folder_.file("other.safetensors"), *model); }),
              HasSubstr("found others, e.g. x"));
}

Recipe parse(const std::string& model) {
  return parse_recipe("[task]\nname = \"tiny\"\n" + model, "folder/r.toml", {}, {"tiny"});
}

TEST(InitialRecipe, NamesTheFirstWeights) {
  EXPECT_EQ(to_toml(parse("")).find("initial"), std::string::npos);
  const Recipe recipe = parse("[model]\ninitial = \"../runs/a\"\n");
  EXPECT_EQ(recipe.initial, "../runs/a");
  EXPECT_EQ(initial_path(recipe), (fs::current_path() / "runs/a").string());
  EXPECT_THAT(to_toml(recipe), HasSubstr("initial = \"../runs/a\""));
  try {
    parse("[model]\ninitial = 3\n");
    ADD_FAILURE() << "a number was taken";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("expected model.initial to be a text; found 3"));
  }
}

TEST(InitialRecipe, KeysOfLaterVersionsStandAtTheirDefaults) {
  Recipe recipe = parse("");
  std::string earlier = to_toml(recipe);
  const std::string line = "segments = 0\n";
  earlier.erase(earlier.find(line), line.size());
  EXPECT_TRUE(recipe_changes(earlier, to_toml(recipe)).empty());
  recipe.model.segments = 2;
  const auto changes = recipe_changes(earlier, to_toml(recipe));
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].key, "model.segments");
}

}  // namespace
}  // namespace headloom::train
