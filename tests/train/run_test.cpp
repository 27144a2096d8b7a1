#include "headloom/train/run.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>

#include "headloom/base/check.h"
#include "headloom/train/run_lock.h"
#include "headloom/train/step.h"
#include "headloom/train/weights.h"
#include "tests/train/tiny_task.h"

namespace headloom::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

at::Tensor find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [each, tensor] : tensors) {
    if (each == name) return tensor;
  }
  throw std::runtime_error("no tensor " + name);
}

class Run : public ::testing::Test {
 protected:
  ScratchFolder scratch_;
  Recipe recipe_ = tiny_recipe();
  std::string folder_ = scratch_ / "run";
};

TEST_F(Run, SummaryTellsWhatHappened) {
  const RunSummary summary = train(recipe_, TinyTask(), quiet(folder_));
  EXPECT_TRUE(summary.completed);
  EXPECT_EQ(summary.parameters, 8 * 8 + 8 * 2 + 2);
  EXPECT_EQ(summary.flops_per_sequence, 2.0 * kTinyLength);
  EXPECT_GT(summary.tokens_per_second, 0.0);
  EXPECT_GT(summary.peak_memory_bytes, 1 << 20);
  EXPECT_EQ(summary.main_metric, "loss");
  EXPECT_FALSE(summary.higher_is_better);
  const auto lines = read_events(folder_, "validation");
  EXPECT_EQ(to_json(summary.final_metrics), lines.back()["metrics"]);
  double best = lines[0]["metrics"]["loss"];
  for (const Json& line : lines) best = std::min(best, line["metrics"]["loss"].get<double>());
  EXPECT_EQ(summary.best_metrics.at(0).second, best);
  EXPECT_EQ(read_events(folder_, "train").back()["tokens"], 13 * 2 * 4 * kTinyLength);
}

TEST_F(Run, Learns) {
  recipe_.train.steps = 150;
  recipe_.schedule.steps = 0;
  const RunSummary summary = train(recipe_, TinyTask(16), quiet(folder_));
  EXPECT_GT(summary.final_metrics.at(1).second, 0.9);
}

TEST_F(Run, AccumulationEqualsTheBiggerBatch) {
  recipe_.model.dropout = 0.0;
  TinyTask small(4), big(8);
  small.dtype = big.dtype = at::kDouble;
  train(recipe_, small, quiet(scratch_ / "small"));
  recipe_.train.accumulate = 1;
  train(recipe_, big, quiet(scratch_ / "big"));
  const Checkpoint a = newest(scratch_ / "small"), b = newest(scratch_ / "big");
  for (const char* name : {"embedding.weight", "output.weight", "output.bias"}) {
    EXPECT_TRUE(at::allclose(find(a.model, name), find(b.model, name), 1e-9, 1e-12)) << name;
  }
}

TEST_F(Run, ValidationDoesNotChangeTraining) {
  TinyTask task;
  task.on_validation_batch = [](int64_t) { torch::rand({7}); };
  train(recipe_, task, quiet(scratch_ / "often"));
  recipe_.train.validate_every = 100;
  train(recipe_, task, quiet(scratch_ / "seldom"));
  const Checkpoint a = newest(scratch_ / "often"), b = newest(scratch_ / "seldom");
  for (const auto& [name, tensor] : a.model) {
    EXPECT_TRUE(at::equal(tensor, find(b.model, name))) << name;
  }
}

TEST_F(Run, SeedGivesTheModelAlone) {
  TinyTask task;
  auto first_weights = [&](uint64_t seed, const std::string& name) {
    recipe_.train.seed = seed;
    recipe_.train.steps = 1;
    recipe_.optimizer.lr = 1e-30;
    torch::rand({3});
    train(recipe_, task, quiet(scratch_ / name));
    return find(newest(scratch_ / name).model, "output.weight");
  };
  const at::Tensor one = first_weights(1, "a");
  EXPECT_TRUE(at::equal(one, first_weights(1, "b")));
  EXPECT_FALSE(at::equal(one, first_weights(2, "c")));
}

TEST_F(Run, LossThatIsNotFiniteStopsAndKeepsTheCheckpoint) {
  TinyTask task;
  task.nan_loss_at = 15;
  EXPECT_THAT([&] { train(recipe_, task, quiet(folder_)); },
              ThrowsMessage<Error>(AllOf(HasSubstr("step 8 (batches 14 to 15), batch 15"),
                                         HasSubstr("expected a finite loss; found nan"))));
  const Checkpoint checkpoint = newest(folder_);
  EXPECT_EQ(checkpoint.step, 5);
  for (const auto& [name, tensor] : checkpoint.model)
    EXPECT_TRUE(tensor.isfinite().all().item<bool>());
  const auto errors = read_events(folder_, "error");
  ASSERT_EQ(errors.size(), 1);
  EXPECT_EQ(errors[0]["step"], 7);
}

TEST_F(Run, GradientThatIsNotFiniteStops) {
  recipe_.train.accumulate = 1;
  TinyTask task;
  task.nan_gradient_at = 6;
  EXPECT_THAT([&] { train(recipe_, task, quiet(folder_)); },
              ThrowsMessage<Error>(HasSubstr("step 7 (batch 6): expected a finite gradient")));
  EXPECT_EQ(newest(folder_).step, 5);
}

TEST_F(Run, PatienceStopsEarlyAndKeepsTheBest) {
  double worse = 1.0;
  TinyTask task;
  task.change_metric = [&](double) { return worse += 1.0; };
  recipe_.train.patience = 2;
  const RunSummary summary = train(recipe_, task, quiet(folder_));
  EXPECT_TRUE(summary.completed);
  EXPECT_EQ(summary.step, 12);
  EXPECT_EQ(summary.best_step, 4);
  EXPECT_EQ(read_events(folder_, "end").back()["reason"], "patience");
  EXPECT_EQ(CheckpointFolder(folder_ + "/checkpoints").load_best().step, 4);
  EXPECT_EQ(train(recipe_, task, quiet(folder_)).step, 12);
  recipe_.train.patience = 9;
  EXPECT_EQ(train(recipe_, task, quiet(folder_)).step, 13);
}

TEST_F(Run, MetricThatIsNotANumberIsNeverBest) {
  TinyTask task;
  task.change_metric = [](double) { return std::numeric_limits<double>::quiet_NaN(); };
  const RunSummary summary = train(recipe_, task, quiet(folder_));
  EXPECT_EQ(summary.best_step, 0);
  EXPECT_FALSE(CheckpointFolder(folder_ + "/checkpoints").has_best());
  EXPECT_TRUE(read_events(folder_, "validation")[0]["metrics"]["loss"].is_null());
}

// Files cannot grow beyond this while it lives, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &old_); }

 private:
  rlimit old_;
};

// The generator's state alone is larger than this; the small files are not.
constexpr rlim_t kNoRoomForCheckpoints = 4096;

TEST_F(Run, FullDiskAtACheckpointIsAWarning) {
  std::unique_ptr<FileSizeLimit> limit;
  TinyTask task;
  task.on_train_batch = [&](int64_t index) {
    if (index == 8) limit = std::make_unique<FileSizeLimit>(kNoRoomForCheckpoints);
    if (index == 12) limit.reset();
  };
  ::testing::internal::CaptureStderr();
  const RunSummary summary = train(recipe_, task, quiet(folder_));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("warning: checkpoint of step 5 not saved"));
  EXPECT_TRUE(summary.completed);
  const auto warnings = read_events(folder_, "warning");
  ASSERT_EQ(warnings.size(), 1);
  EXPECT_EQ(warnings[0]["step"], 5);
  EXPECT_EQ(newest(folder_).step, 13);
}

TEST_F(Run, FullDiskAtTheEndIsAnErrorAndKeepsTheMetrics) {
  std::unique_ptr<FileSizeLimit> limit;
  TinyTask task;
  task.on_train_batch = [&](int64_t index) {
    if (index == 24) limit = std::make_unique<FileSizeLimit>(kNoRoomForCheckpoints);
  };
  ::testing::internal::CaptureStderr();
  EXPECT_THAT([&] { train(recipe_, task, quiet(folder_)); },
              ThrowsMessage<Error>(HasSubstr("expected to save the last checkpoint")));
  ::testing::internal::GetCapturedStderr();
  limit.reset();
  EXPECT_EQ(read_events(folder_, "train").back()["step"], 13);
  EXPECT_EQ(newest(folder_).step, 10);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/summary.json"));
  EXPECT_TRUE(train(recipe_, TinyTask(), quiet(folder_)).completed);
}

TEST_F(Run, AFolderServesOneProcess) {
  std::filesystem::create_directories(folder_);
  const RunLock lock(folder_);
  EXPECT_THAT([&] { train(recipe_, TinyTask(), quiet(folder_)); },
              ThrowsMessage<Error>(AllOf(HasSubstr("no other process uses"),
                                         HasSubstr(std::to_string(::getpid())))));
}

TEST_F(Run, AFileIsNotAFolder) {
  std::ofstream(folder_) << "text";
  EXPECT_THROW(train(recipe_, TinyTask(), quiet(folder_)), Error);
}

TEST_F(Run, CudaWithoutAGpuIsRefused) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "there is a GPU";
  recipe_.train.device = "cuda";
  EXPECT_THAT([&] { train(recipe_, TinyTask(), quiet(folder_)); },
              ThrowsMessage<Error>(HasSubstr("--set train.device=cpu")));
}

TEST_F(Run, Bfloat16ComputesInHalfAndReturnsFloat) {
  TinyTask task;
  const auto model = task.make_model(recipe_.model);
  model->eval();
  const tasks::Batch batch = task.train_batch(0);
  const at::Tensor plain = compute_logits(*model, batch, "float32");
  const at::Tensor mixed = compute_logits(*model, batch, "bfloat16");
  EXPECT_EQ(mixed.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(mixed, mixed.to(at::kBFloat16).to(at::kFloat)));
  EXPECT_FALSE(at::equal(mixed, plain));
  EXPECT_EQ(model->forward(batch).scalar_type(), at::kFloat) << "autocast must be off again";
  recipe_.train.precision = "bfloat16";
  EXPECT_TRUE(train(recipe_, task, quiet(folder_)).completed);
}

LoadedRun load_tiny(const std::string& folder, const std::vector<std::string>& overrides = {}) {
  return load_run(folder, overrides, "", {"tiny"},
                  [](const Recipe&) { return std::make_unique<TinyTask>(); });
}

TEST_F(Run, LoadsTheBestModelThatValidationSaw) {
  const RunSummary summary = train(recipe_, TinyTask(), quiet(folder_));
  const LoadedRun run = load_tiny(folder_);
  EXPECT_EQ(run.weights, "best");
  EXPECT_EQ(run.step, summary.best_step);
  EXPECT_FALSE(run.model->is_training());
  EXPECT_EQ(to_toml(run.recipe), to_toml(recipe_));
  EXPECT_EQ(validate(*run.model, *run.task, run.recipe), summary.best_metrics);
}

TEST_F(Run, LoadsTheNewestModelWithoutABest) {
  TinyTask task;
  task.change_metric = [](double) { return std::numeric_limits<double>::quiet_NaN(); };
  recipe_.train.ema = 0.0;
  train(recipe_, task, quiet(folder_));
  const LoadedRun run = load_tiny(folder_);
  EXPECT_EQ(run.weights, "newest");
  EXPECT_EQ(run.step, 13);
  const at::Tensor weight = run.model->named_parameters()["output.weight"];
  EXPECT_TRUE(at::equal(weight, find(newest(folder_).model, "output.weight")));
}

TEST_F(Run, LoadingRefusesWhatIsNotARunOrAnotherModel) {
  EXPECT_THAT([&] { load_tiny(folder_); }, ThrowsMessage<Error>(HasSubstr("no such folder")));
  std::filesystem::create_directories(folder_);
  EXPECT_THAT([&] { load_tiny(folder_); },
              ThrowsMessage<Error>(HasSubstr("expected a run folder with a checkpoint")));
  train(recipe_, TinyTask(), quiet(folder_));
  EXPECT_THAT([&] { load_tiny(folder_, {"model.dim=16"}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("embedding.weight is Float [8, 8]"),
                                         HasSubstr("instead of Float [8, 16]"))));
}

TEST(Summary, ReadsBackAsWritten) {
  const ScratchFolder scratch;
  RunSummary summary;
  summary.completed = summary.higher_is_better = true;
  summary.step = 7;
  summary.parameters = 1234567890123;
  summary.flops_per_sequence = 1.0 / 3.0;
  summary.tokens_per_second = 1e300;
  summary.main_metric = "z";
  summary.final_metrics = {{"z", 0.1}, {"a", std::numeric_limits<double>::quiet_NaN()}};
  summary.best_metrics = {{"z", 0.2}};
  summary.best_step = 3;
  write_summary(scratch / "summary.json", summary);
  const RunSummary read = read_summary(scratch / "summary.json");
  EXPECT_TRUE(read.completed && read.higher_is_better);
  EXPECT_EQ(read.step, 7);
  EXPECT_EQ(read.parameters, summary.parameters);
  EXPECT_EQ(read.flops_per_sequence, summary.flops_per_sequence);
  EXPECT_EQ(read.tokens_per_second, summary.tokens_per_second);
  EXPECT_EQ(read.main_metric, "z");
  EXPECT_EQ(read.final_metrics[0], summary.final_metrics[0]);
  EXPECT_EQ(read.final_metrics[1].first, "a");
  EXPECT_TRUE(std::isnan(read.final_metrics[1].second));
  EXPECT_EQ(read.best_metrics, summary.best_metrics);
  EXPECT_EQ(read.best_step, 3);
}

TEST(Summary, RefusesWhatIsNone) {
  const ScratchFolder scratch;
  EXPECT_THROW(read_summary(scratch / "missing.json"), Error);
  std::ofstream(scratch / "torn.json") << "{\"completed\": tr";
  EXPECT_THAT([&] { read_summary(scratch / "torn.json"); },
              ThrowsMessage<Error>(HasSubstr("expected the summary of a run")));
}

}  // namespace
}  // namespace headloom::train
