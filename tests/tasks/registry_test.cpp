#include "headloom/tasks/task.h"
#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(TaskRegistry, NamesEveryTask) {
  std::vector<std::string> names;
  for (const TaskEntry& entry : all_tasks()) {
    names.push_back(entry.name);
    EXPECT_FALSE(entry.summary.empty()) << entry.name;
    EXPECT_FALSE(entry.options.empty()) << entry.name;
  }
  EXPECT_THAT(
      names, ::testing::ElementsAre("byte_text", "classification", "graph", "image",
                                    "language_model", "listops", "masked_lm", "pathfinder",
                                    "retrieval", "span_corruption", "text_to_text", "translation"));
}

TEST(TaskRegistry, MakesTasksByName) {
  EXPECT_EQ(make_task("listops", {}, {})->name(), "listops");
  EXPECT_EQ(make_task("language_model", {}, {{"path", std::string("absent")}})->name(),
            "language_model");
}

TEST(TaskRegistry, RefusesUnknownNames) {
  EXPECT_THAT(message_of([] { make_task("listop", {}, {}); }),
              AllOf(HasSubstr("a task among byte_text, classification, graph"),
                    HasSubstr("Did you mean \"listops\"?")));
}

TEST(TaskRegistry, RefusesUnknownOptionsBeforeMissingOnes) {
  EXPECT_THAT(message_of([] {
                make_task("language_model", {}, {{"pth", std::string("a")}});
              }),
              HasSubstr("Did you mean \"path\"?"));
  EXPECT_THAT(message_of([] {
                make_task("listops", {}, {{"max_dept", int64_t{3}}});
              }),
              HasSubstr("Did you mean \"max_depth\"?"));
}

TEST(TaskRegistry, RefusesAnEmptyBatch) {
  TaskConfig config;
  config.batch_size = 0;
  EXPECT_THAT(message_of([&] { make_task("listops", config, {}); }),
              HasSubstr("task listops: expected a batch size of at least 1; found 0"));
}

TEST(Batch, MovesWithItsMasks) {
  Batch batch;
  batch.tokens = at::ones({2, 3}, at::kLong);
  batch.targets = at::ones({2}, at::kLong);
  batch.masks.key_padding_mask = at::zeros({2, 3}, at::kBool);
  batch.token_count = 6;
  const Batch moved = batch.to(at::kMeta);
  EXPECT_TRUE(moved.tokens.is_meta());
  EXPECT_TRUE(moved.targets.is_meta());
  EXPECT_TRUE(moved.masks.key_padding_mask.is_meta());
  EXPECT_FALSE(moved.masks.cu_seqlens.defined());
  EXPECT_EQ(moved.token_count, 6);
  EXPECT_FALSE(batch.tokens.is_meta());
}

}  // namespace
}  // namespace headloom::tasks
