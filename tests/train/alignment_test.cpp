#include "headloom/train/alignment.h"

#include <gmock/gmock.h>

#include <csignal>

#include "headloom/base/check.h"
#include "headloom/train/weights.h"
#include "tests/train/tiny_task.h"

namespace headloom::train {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

// A Transformer in the place of the tiny model.
class AttentiveModel : public tasks::Model {
 public:
  explicit AttentiveModel(const nn::TransformerConfig& config) {
    encoder_ = register_module("encoder", std::make_shared<nn::Transformer>(config));
    output_ = register_module("output", torch::nn::Linear(config.dim, kTinyClasses));
  }
  at::Tensor forward(const tasks::Batch& batch) override {
    return output_(encoder_->forward(batch.tokens, batch.masks).mean(1));
  }
  double flops(int64_t length) const override { return encoder_->flops(length); }

 private:
  std::shared_ptr<nn::Transformer> encoder_;
  torch::nn::Linear output_{nullptr};
};

class AttentiveTask : public TinyTask {
 public:
  std::shared_ptr<tasks::Model> make_model(nn::TransformerConfig config) const override {
    config.vocabulary = kTinyTokens;
    return std::make_shared<AttentiveModel>(config);
  }
};

Recipe recipe_of(const std::string& form) {
  Recipe recipe = tiny_recipe();
  recipe.model.layers = 2;
  recipe.model.heads = 2;
  recipe.model.ffn = 8;
  recipe.alignment.form = form;
  recipe.alignment.hidden = 4;
  recipe.alignment.weight = 0.1;
  return recipe;
}

std::vector<std::string> names(const NamedTensors& tensors) {
  std::vector<std::string> all;
  for (const auto& [name, tensor] : tensors) all.push_back(name);
  return all;
}

LoadedRun load(const std::string& folder) {
  return load_run(folder, {}, "", {"tiny"},
                  [](const Recipe&) { return std::make_unique<AttentiveTask>(); });
}

class AlignedRun : public ::testing::TestWithParam<const char*> {
 protected:
  ScratchFolder scratch_;
};

// The objective trains with the model, and is gone when the model is loaded.
TEST_P(AlignedRun, LeavesAModelWithoutTheObjective) {
  const Recipe recipe = recipe_of(GetParam());
  const std::string folder = scratch_ / "run", plain_folder = scratch_ / "plain";
  ASSERT_TRUE(train(recipe, AttentiveTask(), quiet(folder)).completed);
  ASSERT_TRUE(train(recipe_of("none"), AttentiveTask(), quiet(plain_folder)).completed);

  const LoadedRun run = load(folder);
  const auto parameters = unique_parameters(*run.model);
  EXPECT_THAT(names(parameters), Not(Contains(HasSubstr("alignment"))));
  // It did something: the weights are not those of the run without it.
  EXPECT_FALSE(at::equal(parameters.front().second,
                         unique_parameters(*load(plain_folder).model).front().second));

  // The same outputs, bit for bit, as the model that carries the objective.
  const auto carrier = AttentiveTask().make_model(recipe.model);
  Alignment::attach(recipe.alignment, *carrier);
  copy_strictly("test", parameters, Alignment::dropped(unique_parameters(*carrier)));
  carrier->eval();
  const tasks::Batch batch = AttentiveTask().train_batch(0);
  EXPECT_TRUE(at::equal(carrier->forward(batch), run.model->forward(batch)));
}

TEST_P(AlignedRun, ResumesExactly) {
  Recipe recipe = recipe_of(GetParam());
  const std::string whole = scratch_ / "whole", pieces = scratch_ / "pieces";
  train(recipe, AttentiveTask(), quiet(whole));
  AttentiveTask task;
  task.on_train_batch = [](int64_t index) {
    if (index == 13) std::raise(SIGTERM);
  };
  EXPECT_FALSE(train(recipe, task, quiet(pieces)).completed);
  EXPECT_TRUE(train(recipe, AttentiveTask(), quiet(pieces)).completed);
  const Checkpoint a = newest(whole), b = newest(pieces);
  ASSERT_EQ(names(a.model), names(b.model));
  for (size_t i = 0; i < a.model.size(); ++i) {
    EXPECT_TRUE(at::equal(a.model[i].second, b.model[i].second)) << a.model[i].first;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, AlignedRun,
                         ::testing::Values("adversarial", "optimal_transport",
                                           "conditional_transport", "discrepancy"),
                         [](const auto& info) { return std::string(info.param); });

// Symmetric attention trains with its folded queries against its keys, and the loaded model gives
// the bits of a plain one with the same weights.
TEST(AlignedModel, OfSymmetricAttention) {
  ScratchFolder scratch;
  const auto recipe_with = [](const std::string& form) {
    Recipe recipe = recipe_of(form);
    recipe.model.mixer = "symmetric";
    return recipe;
  };
  const Recipe recipe = recipe_with("conditional_transport");
  const std::string folder = scratch / "run", plain_folder = scratch / "plain";
  ASSERT_TRUE(train(recipe, AttentiveTask(), quiet(folder)).completed);
  ASSERT_TRUE(train(recipe_with("none"), AttentiveTask(), quiet(plain_folder)).completed);
  const auto parameters = unique_parameters(*load(folder).model);
  const auto plain_parameters = unique_parameters(*load(plain_folder).model);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].first;
    if (name.find("pairwise") == std::string::npos &&
        name.find("q_proj.weight") == std::string::npos)
      continue;
    EXPECT_FALSE(at::equal(parameters[i].second, plain_parameters[i].second)) << name;
  }

  const auto plain = AttentiveTask().make_model(recipe.model);
  copy_strictly("test", parameters, unique_parameters(*plain));
  plain->eval();
  const tasks::Batch batch = AttentiveTask().train_batch(0);
  EXPECT_TRUE(at::equal(plain->forward(batch), load(folder).model->forward(batch)));
}

TEST(AlignedModel, RefusesQueriesThatAreTheKeys) {
  Recipe recipe = recipe_of("conditional_transport");
  recipe.model.mixer = "symmetric";
  recipe.model.mixer_options = {{"form", std::string("symmetric")}};
  const auto model = AttentiveTask().make_model(recipe.model);
  EXPECT_THAT([&] { Alignment::attach(recipe.alignment, *model); },
              ThrowsMessage<Error>(HasSubstr("form \"symmetric\", whose queries are its keys")));
}

TEST(AlignedModel, StartsFromTheWeightsOfThePlainOne) {
  const auto initial = [](const std::string& form) {
    torch::manual_seed(4);
    const Recipe recipe = recipe_of(form);
    const auto model = AttentiveTask().make_model(recipe.model);
    Alignment::attach(recipe.alignment, *model);
    return Alignment::dropped(model_tensors(*model));
  };
  const NamedTensors plain = initial("none"), aligned = initial("conditional_transport");
  ASSERT_EQ(names(plain), names(aligned));
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_TRUE(at::equal(plain[i].second, aligned[i].second)) << plain[i].first;
  }
}

TEST(AlignedModel, NeedsQueriesAndKeys) {
  TinyModel model(8, 0.0);
  AlignmentConfig config;
  config.form = "discrepancy";
  EXPECT_THAT([&] { Alignment::attach(config, model); },
              ThrowsMessage<Error>(HasSubstr("queries and keys")));
}

TEST(AlignmentRecipe, IsReadAndWritten) {
  const Recipe recipe = parse_recipe(
      "[task]\nname = \"tiny\"\n[alignment]\nform = \"adversarial\"\nlearn_temperature = true\n",
      "r.toml", {}, {"tiny"});
  EXPECT_EQ(recipe.alignment.form, "adversarial");
  EXPECT_TRUE(recipe.alignment.learn_temperature);
  EXPECT_EQ(to_toml(parse_recipe(to_toml(recipe), "r.toml", {}, {"tiny"})), to_toml(recipe));
  EXPECT_THAT(
      [] {
        parse_recipe("[task]\nname = \"tiny\"\n[alignment]\nmasks = 1\n", "r.toml", {}, {"tiny"});
      },
      ThrowsMessage<Error>(HasSubstr("alignment.masks to be true or false")));
}

}  // namespace
}  // namespace headloom::train
