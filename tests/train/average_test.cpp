#include "headloom/train/average.h"

#include <gmock/gmock.h>

#include "headloom/base/check.h"
#include "headloom/train/weights.h"
#include "tests/train/tiny_task.h"

namespace headloom::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

NamedTensors weights(double value, int64_t count) {
  return {{"w", at::full({2, 3}, value)}, {"n", at::full({1}, count, at::kLong)}};
}

TEST(Average, IsTheMeanOfNumbersAndTheLastOfCounts) {
  const NamedTensors mean =
      average_weights({weights(1.0, 3), weights(2.0, 5), weights(6.0, 9)}, {"a", "b", "c"});
  EXPECT_TRUE(at::equal(mean[0].second, at::full({2, 3}, 3.0)));
  EXPECT_TRUE(at::equal(mean[1].second, at::full({1}, 9, at::kLong)));
  EXPECT_EQ(mean[0].second.scalar_type(), at::kFloat);
}

TEST(Average, KeepsTheDtypeAndSumsWide) {
  std::vector<NamedTensors> many;
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i) {
    many.push_back({{"w", at::full({1}, 1.0 + (i == 0 ? 100.0 : 0.0), at::kBFloat16)}});
    names.push_back(std::to_string(i));
  }
  const at::Tensor mean = average_weights(many, names)[0].second;
  EXPECT_EQ(mean.scalar_type(), at::kBFloat16);
  EXPECT_EQ(mean.item<double>(), 2.0) << "adding in bfloat16 would stop at 128";
}

TEST(Average, RefusesOtherModels) {
  const NamedTensors other = {{"w", at::zeros({2, 2})}, {"n", at::zeros({1}, at::kLong)}};
  EXPECT_THAT(
      [&] {
        average_weights({other, weights(1.0, 1)}, {"first", "second"});
      },
      ThrowsMessage<Error>(HasSubstr("first")));
  EXPECT_THAT([] { average_weights({}, {}); },
              ThrowsMessage<Error>(HasSubstr("at least one checkpoint")));
}

class AverageRun : public ::testing::Test {
 protected:
  AverageRun() {
    Recipe recipe = tiny_recipe();
    recipe.train.keep = 3;
    train(recipe, TinyTask(), quiet(folder_));
  }
  at::Tensor weight_of(const std::string& checkpoint) const {
    for (const auto& [name, tensor] :
         CheckpointFolder::load(folder_ + "/checkpoints/" + checkpoint).model) {
      if (name == "output.weight") return tensor;
    }
    return {};
  }

  ScratchFolder scratch_;
  const std::string folder_ = scratch_ / "run";
};

TEST_F(AverageRun, TakesTheNewestOrTheNamedOnes) {
  AverageOptions options;
  options.last = 2;
  const Averaged averaged = average_run(folder_, options);
  EXPECT_THAT(averaged.checkpoints, ElementsAre(folder_ + "/checkpoints/step_00000010",
                                                folder_ + "/checkpoints/step_00000013"));
  const at::Tensor expected =
      (weight_of("step_00000010").to(at::kDouble) + weight_of("step_00000013").to(at::kDouble))
          .div(2.0)
          .to(at::kFloat);
  const auto find = [](const NamedTensors& tensors) {
    for (const auto& [name, tensor] : tensors) {
      if (name == "output.weight") return tensor;
    }
    return at::Tensor();
  };
  EXPECT_TRUE(at::equal(find(read_safetensors(averaged.output).tensors), expected));

  options.checkpoints = {"step_00000013", averaged.output};
  options.output = scratch_ / "other.safetensors";
  average_run(folder_, options);
  EXPECT_TRUE(at::equal(find(read_safetensors(options.output).tensors),
                        (weight_of("step_00000013").to(at::kDouble) + expected.to(at::kDouble))
                            .div(2.0)
                            .to(at::kFloat)));
}

TEST_F(AverageRun, ItsFileIsWhatARunLoads) {
  const Averaged averaged = average_run(folder_, {{}, 3, ""});
  for (const std::string& weights : {averaged.output, std::string("average.safetensors")}) {
    const LoadedRun run = load_run(folder_, {}, weights, {"tiny"},
                                   [](const Recipe&) { return std::make_unique<TinyTask>(); });
    EXPECT_EQ(run.weights, averaged.output);
    EXPECT_FALSE(
        at::equal(run.model->named_parameters()["output.weight"], weight_of("step_00000013")));
  }
}

TEST_F(AverageRun, RunsLoadTheWeightsThatAreAskedFor) {
  const auto load = [&](const std::string& weights) {
    return load_run(folder_, {}, weights, {"tiny"},
                    [](const Recipe&) { return std::make_unique<TinyTask>(); });
  };
  EXPECT_EQ(load("newest").weights, "newest");
  EXPECT_EQ(load("newest").step, 13);
  EXPECT_EQ(load("best").weights, "best");
  EXPECT_THAT([&] { load("bst"); },
              ThrowsMessage<Error>(HasSubstr("bst: expected \"best\", \"newest\" or a file")));
}

TEST_F(AverageRun, RefusesWhatIsNotThere) {
  EXPECT_THAT(
      [&] {
        average_run(folder_, {{}, 4, ""});
      },
      ThrowsMessage<Error>(HasSubstr("at least 4 checkpoints to average; found 3")));
  EXPECT_THAT(
      [&] {
        average_run(folder_, {{"step_00000011"}, 1, ""});
      },
      ThrowsMessage<Error>(HasSubstr("Did you mean")));
  EXPECT_THAT([&] { average_run(scratch_ / "nothing", {}); },
              ThrowsMessage<Error>(HasSubstr("a run folder")));
}

}  // namespace
}  // namespace headloom::train
