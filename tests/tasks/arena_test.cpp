// The tasks of the Long Range Arena that read bytes: what their recipes build, and how they split,
// mask and pool.
#include <ATen/ATen.h>

#include "headloom/tasks/image/image_task.h"
#include "headloom/tasks/sequence_task.h"
#include "headloom/train/run.h"
#include "tests/support/closeness.h"
#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::HasSubstr;

struct Published {
  const char* recipe;
  std::vector<std::string> overrides;
  int64_t parameters;
};

// Of the published base models (Tay et al., 2021).
TEST(Arena, RecipesHaveThePublishedParameterTotals) {
  const std::vector<std::string> path_x = {"task.size=128", "model.layers=1", "model.heads=2",
                                           "model.max_length=16384", "model.positions=learned"};
  for (const Published& published : std::vector<Published>{{"listops_lra", {}, 8'948'746},
                                                           {"lra_text", {}, 3'486'722},
                                                           {"lra_retrieval", {}, 1'087'618},
                                                           {"lra_image", {}, 248'458},
                                                           {"lra_pathfinder", {}, 26'530},
                                                           {"lra_pathfinder", path_x, 537'954}}) {
    const train::Recipe recipe = train::load_recipe(
        cat(HEADLOOM_SOURCE_DIR, "/recipes/", published.recipe, ".toml"), published.overrides);
    const auto model = train::make_task(recipe)->make_model(recipe.model);
    int64_t total = 0;
    for (const at::Tensor& parameter : model->parameters()) total += parameter.numel();
    EXPECT_EQ(total, published.parameters) << published.recipe;
  }
}

train::Recipe smoke(const std::string& name, const std::vector<std::string>& overrides = {}) {
  return train::load_recipe(cat(HEADLOOM_SOURCE_DIR, "/recipes/smoke/", name, ".toml"), overrides);
}

const SequenceTask& as_sequences(const Task& task) {
  return dynamic_cast<const SequenceTask&>(task);
}

TEST(Arena, BytesAreShiftedAndPaddedAtTheEnd) {
  for (const char* name : {"byte_text", "retrieval"}) {
    const auto task = train::make_task(smoke(name));
    const Batch batch = task->train_batch(0);
    const at::Tensor padding = batch.tokens == 0;
    EXPECT_LE(batch.tokens.max().item<int64_t>(), 256);
    EXPECT_LE(batch.tokens.size(1), 48);
    // Padding never comes before a token.
    const at::Tensor steps =
        padding.slice(1, 1).to(at::kInt) - padding.slice(1, 0, -1).to(at::kInt);
    EXPECT_GE(steps.min().item<int>(), 0) << name;
    EXPECT_EQ(batch.tokens.size(0), (std::string(name) == "retrieval" ? 2 : 1) * 8);
    EXPECT_EQ(batch.targets.size(0), 8);
  }
}

TEST(Arena, TheFirstReviewIsItsBytes) {
  const auto task = train::make_task(smoke("byte_text"));
  const Example& first = as_sequences(*task).training()[0];
  const std::string text(first.tokens.begin(), first.tokens.end());
  EXPECT_EQ(text, "A noisy song, slow from start to end.");
}

TEST(Arena, LogitsDoNotDependOnPaddingOrOnOtherRows) {
  for (const char* pooling : {"cls", "mean"}) {
    const train::Recipe recipe = smoke("byte_text", {cat("task.pooling=", pooling)});
    const auto task = train::make_task(recipe);
    const auto model = task->make_model(recipe.model);
    model->eval();
    const at::NoGradGuard no_grad;
    const Examples& rows = as_sequences(*task).evaluation();
    Examples mixed(rows.begin(), rows.begin() + 3);
    mixed[1].tokens.resize(11);
    const at::Tensor together = model->forward(make_batch(mixed, {0, 1, 2}, {.shift = 1}));
    for (int64_t row = 0; row < 3; ++row) {
      const at::Tensor alone = model->forward(make_batch(mixed, {row}, {.shift = 1}));
      EXPECT_EQ(
          headloom::testing::differs_by_more_than_rounding(together[row], alone[0].to(at::kDouble)),
          std::nullopt)
          << pooling;
    }
  }
}

// The towers share their weights and see one text each: the first text alone decides its vector.
TEST(Arena, RetrievalTowersSeeOneTextEach) {
  const train::Recipe recipe = smoke("retrieval", {"task.interactions=true"});
  const auto task = train::make_task(recipe);
  const auto model = task->make_model(recipe.model);
  model->eval();
  const at::NoGradGuard no_grad;
  const Batch batch = task->validation_batch(0);
  const at::Tensor logits = model->forward(batch);
  EXPECT_EQ(logits.sizes(), (at::IntArrayRef{batch.targets.size(0), 2}));
  Batch swapped = batch;
  const auto roll = [](const at::Tensor& x) { return at::cat({x.chunk(2)[1], x.chunk(2)[0]}); };
  swapped.tokens = roll(batch.tokens);
  if (batch.masks.key_padding_mask.defined()) {
    swapped.masks.key_padding_mask = roll(batch.masks.key_padding_mask);
  }
  EXPECT_FALSE(at::allclose(model->forward(swapped), logits)) << "the head knows which is which";
  EXPECT_EQ(model->named_parameters()["head_in.weight"].size(1), 4 * recipe.model.dim);
}

// Published: black pixels are padding. What stands in their embedding reaches nobody else.
TEST(Arena, BlackPixelsAreNotAttendedTo) {
  const train::Recipe recipe = smoke("image", {"task.mask_zeros=true", "task.pooling=cls"});
  const auto task = train::make_task(recipe);
  const auto model = task->make_model(recipe.model);
  model->eval();
  const at::NoGradGuard no_grad;
  const Batch batch = task->validation_batch(0);
  ASSERT_TRUE((batch.tokens == 0).any().item<bool>());
  const at::Tensor before = model->forward(batch);
  model->named_parameters()["encoder.embedding.weight"][0].add_(1.0);
  EXPECT_TRUE(at::equal(model->forward(batch), before));
  Batch open = batch;
  open.masks.key_padding_mask = at::Tensor();
  EXPECT_FALSE(at::equal(model->forward(open), before));
}

TEST(Arena, ImagesSplitTheTrainingFile) {
  const auto task = train::make_task(smoke("image"));
  const auto tested = train::make_task(smoke("image", {"task.evaluate_on=test"}));
  EXPECT_EQ(as_sequences(*task).training().size(), 54u);
  EXPECT_EQ(as_sequences(*task).evaluation().size(), 6u);
  EXPECT_EQ(as_sequences(*tested).evaluation().size(), 20u);
  EXPECT_EQ(task->typical_length(), 36);
}

TEST(Arena, ReadsCifarAsGreyPixels) {
  EXPECT_EQ(image::grey_of(0, 0, 0), 0);
  EXPECT_EQ(image::grey_of(255, 255, 255), 255);
  EXPECT_EQ(image::grey_of(255, 0, 0), 76);
  EXPECT_EQ(image::grey_of(10, 200, 30), 124);
  const TempFolder folder;
  std::string records;
  for (int record = 0; record < 20; ++record) {
    records += static_cast<char>(record % 10);
    for (int i = 0; i < 3072; ++i) records += static_cast<char>(i == record ? 255 : 0);
  }
  folder.write("data_batch_1.bin", records);
  folder.write("data_batch_2.bin", records.substr(0, 3073));
  folder.write("test_batch.bin", records.substr(3073));
  const Examples training = image::read_cifar(folder.path(), true);
  ASSERT_EQ(training.size(), 21u);
  EXPECT_EQ(training[13].value, 3);
  EXPECT_EQ(training[13].tokens[13], 76);
  EXPECT_EQ(training[13].tokens[12], 0);
  EXPECT_EQ(training[20].value, 0);
  EXPECT_EQ(image::read_cifar(folder.path(), false).size(), 19u);
  folder.write("test_batch.bin", "x" + records);
  EXPECT_THAT(message_of([&] { image::read_cifar(folder.path(), false); }),
              HasSubstr("records of 3073 bytes"));
  folder.write("test_batch.bin", std::string(3073, '\x0b'));
  EXPECT_THAT(message_of([&] { image::read_cifar(folder.path(), false); }),
              HasSubstr("record 0: expected a class 0 to 9; found 11"));
  EXPECT_THAT(message_of([&] { image::read_cifar(folder.path() / "none", true); }),
              HasSubstr("data_batch_1.bin"));
}

TEST(Arena, RefusesOtherPictures) {
  const TempFolder folder;
  const auto refusal = [&](const std::string& rows) {
    return message_of([&] { image::read_csv(folder.write("a.csv", rows), 2); });
  };
  EXPECT_THAT(refusal("1,2,3\n1,2\n"),
              HasSubstr("a.csv:2: expected 2 pixels and a class; found 2"));
  EXPECT_THAT(refusal("1,256,3\n"), HasSubstr("whole numbers 0 to 255 with commas; found \"256\""));
  EXPECT_THAT(refusal("1,,3\n"), HasSubstr("found \"\""));
  EXPECT_THAT(refusal("1,2,10\n"), HasSubstr("a class 0 to 9 last; found 10"));
  EXPECT_THAT(refusal(""), HasSubstr("expected rows; found none"));
}

TEST(Arena, RefusesWhatCannotBe) {
  const auto refusal = [](const std::string& task, const Options& options) {
    return message_of([&] { make_task(task, {}, options)->make_model({}); });
  };
  const std::string file = "a.tsv";
  EXPECT_THAT(refusal("byte_text", {}), HasSubstr("task byte_text: expected train_file"));
  EXPECT_THAT(refusal("byte_text", {{"train_file", file}}), HasSubstr("expected validation_file"));
  EXPECT_THAT(
      refusal("byte_text",
              {{"train_file", file}, {"validation_file", file}, {"max_length", int64_t{1024}}}),
      HasSubstr("model.max_length of at least 1025 for texts of up to 1024 tokens and the "
                "vector in front; found 1024"));
  EXPECT_THAT(
      refusal("byte_text",
              {{"train_file", file}, {"validation_file", file}, {"max_length", int64_t{0}}}),
      HasSubstr("max_length of at least 1; found 0"));
  EXPECT_THAT(refusal("retrieval", {{"train_file", file},
                                    {"validation_file", file},
                                    {"evaluate_on", std::string("test")}}),
              HasSubstr("task retrieval: expected test_file; found none"));
  EXPECT_THAT(refusal("image", {}), HasSubstr("task image: expected folder"));
  EXPECT_THAT(refusal("image", {{"folder", file}, {"pixels", int64_t{4}}}), HasSubstr("pixels"));
  EXPECT_THAT(refusal("pathfinder", {{"size", int64_t{48}}}),
              HasSubstr("expected size 32, 64, 128 or 256; found 48"));
  EXPECT_THAT(refusal("pathfinder", {{"train_size", int64_t{0}}}),
              HasSubstr("train_size of at least 1; found 0"));
}

}  // namespace
}  // namespace headloom::tasks
