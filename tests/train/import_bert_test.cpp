// Models of the transformers package (tests/golden/make_bert.py) against what it computes.
#include "headloom/train/import_bert.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <filesystem>

#include "headloom/base/check.h"
#include "headloom/tasks/files.h"
#include "headloom/train/initial.h"
#include "headloom/train/run.h"
#include "headloom/train/weights.h"
#include "tests/support/golden.h"
#include "tests/support/message_of.h"
#include "tests/train/temporary_folder.h"

namespace headloom::train {
namespace {

namespace fs = std::filesystem;
using at::Tensor;
using ::testing::HasSubstr;

std::string golden_folder(const std::string& kind) {
  return cat(HEADLOOM_SOURCE_DIR, "/tests/golden/", kind);
}

using headloom::testing::message_of;

// An import promises logits within 1e-4.
TEST(ImportBert, ComputesWhatTheOriginalComputes) {
  for (const auto& golden : testing::read_golden("bert.txt")) {
    SCOPED_TRACE(golden.id);
    const testing::TemporaryFolder folder;
    const std::string run = folder.file("run");
    EXPECT_TRUE(import_bert(golden_folder(golden.id), run).pooler.empty());
    const LoadedRun loaded = load_run(run);
    tasks::Batch batch;
    batch.tokens = golden.arguments["tokens"].to(at::kLong);
    batch.segments = golden.arguments["types"].to(at::kLong);
    batch.masks.key_padding_mask = golden.arguments["padding"];
    const at::NoGradGuard no_grad;
    const Tensor found = loaded.model->forward(batch).to(at::kDouble);
    const Tensor kept = batch.masks.key_padding_mask.logical_not().unsqueeze(2);
    const Tensor difference = (found - golden.expected.at("logits")).abs().masked_select(kept);
    EXPECT_LT(difference.max().item<double>(), 1e-4);
    EXPECT_TRUE(fs::exists(fs::path(run) / "tokenizer.json"));
  }
}

// A copy of the BERT folder, to spoil.
class SpoiledBert : public ::testing::Test {
 protected:
  SpoiledBert() { fs::copy(golden_folder("bert"), bert_); }

  void change_config(const std::string& from, const std::string& to) {
    const fs::path path = fs::path(bert_) / "config.json";
    std::string text = tasks::read_file(path);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    tasks::write_file(path, text.replace(at, from.size(), to));
  }
  std::string refusal() {
    return message_of([&] { import_bert(bert_, folder_.file("run")); });
  }

  const testing::TemporaryFolder folder_;
  const std::string bert_ = folder_.file("bert");
};

TEST_F(SpoiledBert, RefusesOtherArchitectures) {
  change_config("\"model_type\": \"bert\"", "\"model_type\": \"gpt2\"");
  EXPECT_THAT(refusal(), HasSubstr("expected model_type \"bert\" or \"roberta\"; found \"gpt2\""));
}

TEST_F(SpoiledBert, RefusesRelativePositions) {
  change_config("\"model_type\"", "\"position_embedding_type\": \"relative_key\", \"model_type\"");
  EXPECT_THAT(refusal(), HasSubstr("position_embedding_type \"absolute\"; found \"relative_key\""));
}

TEST_F(SpoiledBert, RefusesOtherActivations) {
  change_config("\"gelu\"", "\"silu\"");
  EXPECT_THAT(refusal(), HasSubstr("hidden_act \"gelu\"; found \"silu\""));
}

TEST_F(SpoiledBert, RefusesDecoders) {
  change_config("\"is_decoder\": false", "\"is_decoder\": true");
  EXPECT_THAT(refusal(), HasSubstr("an encoder; found is_decoder = true"));
}

TEST_F(SpoiledBert, RefusesMissingTensors) {
  change_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
  EXPECT_THAT(refusal(), HasSubstr("a tensor bert.encoder.layer.2.attention.self.query.weight; "
                                   "found none"));
}

TEST_F(SpoiledBert, RefusesSurplusTensors) {
  change_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
  EXPECT_THAT(refusal(), HasSubstr("16 more, e.g. bert.encoder.layer.1."));
}

TEST_F(SpoiledBert, RefusesOtherShapes) {
  change_config("\"intermediate_size\": 20", "\"intermediate_size\": 21");
  EXPECT_THAT(refusal(), HasSubstr("intermediate.dense.weight of shape [21, 16], as config.json "
                                   "has it; found shape [20, 16]"));
}

TEST_F(SpoiledBert, RefusesFoldersWithoutTheFiles) {
  fs::remove(fs::path(bert_) / "tokenizer.json");
  EXPECT_THAT(refusal(), HasSubstr("tokenizer.json"));
  fs::remove(fs::path(bert_) / "model.safetensors");
  EXPECT_THAT(refusal(), HasSubstr("a file of weights in safetensors form; found no such file"));
  EXPECT_FALSE(fs::exists(fs::path(folder_.file("run"))));
  fs::create_directory(folder_.file("run"));
  EXPECT_THAT(refusal(), HasSubstr("a folder that does not exist yet"));
  EXPECT_THAT(message_of([&] { read_bert(folder_.file("nowhere")); }), HasSubstr("no such folder"));
}

}  // namespace
}  // namespace headloom::train
