// Every recipe of the repository loads, and builds its task and a model of each mechanism it names.
#include <torch/torch.h>

#include <algorithm>
#include <cctype>

#include "headloom/tasks/files.h"
#include "headloom/tasks/task.h"
#include "headloom/train/run.h"
#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> recipes() {
  const fs::path folder = fs::path(HEADLOOM_SOURCE_DIR) / "recipes";
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".toml") {
      names.push_back(fs::relative(entry.path(), folder).string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The tokenizer of a recipe may be a file that its user makes: another one stands in for it.
train::Recipe load(const std::string& name) {
  const fs::path folder = fs::path(HEADLOOM_SOURCE_DIR) / "recipes";
  train::Recipe recipe = train::load_recipe((folder / name).string());
  const auto tokenizer = recipe.task_options.find("tokenizer");
  if (tokenizer != recipe.task_options.end()) {
    const fs::path stated = fs::path(recipe.base_folder) / std::get<std::string>(tokenizer->second);
    if (!fs::exists(stated)) {
      tokenizer->second = (folder / "smoke/translation/tokenizer.json").string();
    }
  }
  return recipe;
}

std::unique_ptr<Task> make(const train::Recipe& recipe) {
  return train::make_task(recipe);
}

class Recipes : public ::testing::TestWithParam<std::string> {};

TEST_P(Recipes, BuildTheirTasksAndModels) {
  const train::Recipe recipe = load(GetParam());
  const auto task = make(recipe);
  if (recipe.task == "graph") {
    const auto folder = std::get<std::string>(recipe.task_options.at("folder"));
    if (!fs::exists(resolve(recipe.base_folder, folder))) GTEST_SKIP() << "its data is not here";
  }
  EXPECT_NE(task->make_model(recipe.model), nullptr);
  for (const std::string& mechanism : recipe.compare.mechanisms) {
    const train::Recipe variant = train::variant_recipe(recipe, mechanism);
    EXPECT_NE(task->make_model(variant.model), nullptr) << mechanism;
  }
}

TEST_P(Recipes, TrainAStepWhenSmall) {
  if (GetParam().rfind("smoke/", 0) != 0) GTEST_SKIP() << "not a smoke recipe";
  const train::Recipe recipe = load(GetParam());
  const auto task = make(recipe);
  const auto model = task->make_model(recipe.model);
  const Batch batch = task->train_batch(0);
  const Loss loss = task->loss(model->forward(batch), batch);
  loss.sum.backward();
  EXPECT_GT(loss.weight, 0.0);
  for (const auto& parameter : model->named_parameters()) {
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }
  EXPECT_GE(task->validation_batches(), 1);
}

INSTANTIATE_TEST_SUITE_P(Files, Recipes, ::testing::ValuesIn(recipes()), [](const auto& info) {
  std::string name = info.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace headloom::tasks
