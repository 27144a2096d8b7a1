#include "headloom/tasks/glue.h"

#include <cmath>

#include "headloom/tasks/binary_metrics.h"
#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kSst2 = 0, kMrpc = 1, kRte = 2;

class Glue : public ::testing::Test {
 protected:
  std::vector<ClassifiedTexts> read(int format, const std::string& bytes) {
    return load_glue(folder_.write("file.tsv", bytes), glue_formats()[format]);
  }
  std::string refusal(int format, const std::string& bytes) {
    return message_of([&] { read(format, bytes); });
  }
  TempFolder folder_;
};

TEST_F(Glue, ReadsSingleSentencesWithoutQuoting) {
  const auto rows = read(kSst2, "sentence\tlabel\na \"fine loom \t1\r\nno\"t\t0\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_THAT(rows[0].sentences, ElementsAre("a \"fine loom "));
  EXPECT_EQ(rows[0].label, 1);
  EXPECT_THAT(rows[1].sentences, ElementsAre("no\"t"));
  EXPECT_EQ(rows[1].label, 0);
}

TEST_F(Glue, ReadsPairs) {
  const auto mrpc = read(kMrpc,
                         "\uFEFFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
                         "1\t7\t8\tthe first\tthe second\n");
  EXPECT_THAT(mrpc[0].sentences, ElementsAre("the first", "the second"));
  EXPECT_EQ(mrpc[0].label, 1);
  const auto rte = read(kRte,
                        "index\tsentence1\tsentence2\tlabel\n"
                        "0\ta\tb\tentailment\n1\tc\t\tnot_entailment\n");
  EXPECT_THAT(rte[1].sentences, ElementsAre("c", ""));
  EXPECT_EQ(rte[0].label, 1);
  EXPECT_EQ(rte[1].label, 0);
}

TEST_F(Glue, TakesColumnsByName) {
  EXPECT_EQ(read(kSst2, "label\tsource\tsentence\n1\tx\ta loom\n")[0].sentences[0], "a loom");
}

TEST_F(Glue, RefusesRowsOfAnotherForm) {
  EXPECT_THAT(refusal(kSst2, ""), HasSubstr("a header and rows; found an empty file"));
  EXPECT_THAT(refusal(kSst2, "sentence\tlabel\n"), HasSubstr("rows below the header"));
  EXPECT_THAT(refusal(kSst2, "index\tsentence\n"),
              AllOf(HasSubstr("file.tsv:1"), HasSubstr("the column \"label\"")));
  EXPECT_THAT(refusal(kSst2, "sentence\tlabel\na\tb\t1\n"),
              AllOf(HasSubstr("file.tsv:2"), HasSubstr("2 columns, as in the header; found 3")));
  EXPECT_THAT(refusal(kSst2, "sentence\tlabel\na\t1\n\n"), HasSubstr("file.tsv:3"));
  EXPECT_THAT(refusal(kSst2, "sentence\tlabel\na\t2\n"),
              HasSubstr("a label among 0, 1; found \"2\""));
  EXPECT_THAT(refusal(kRte, "sentence1\tsentence2\tlabel\na\tb\t1\n"),
              HasSubstr("a label among not_entailment, entailment"));
}

TEST(BinaryMetrics, FollowTheirDefinitions) {
  const Confusion counts{6, 1, 2, 3};
  EXPECT_DOUBLE_EQ(accuracy(counts), 9.0 / 12.0);
  EXPECT_DOUBLE_EQ(f1(counts), 12.0 / 15.0);
  EXPECT_DOUBLE_EQ(matthews(counts), (6.0 * 3 - 1 * 2) / std::sqrt(7.0 * 8 * 4 * 5));
  const Confusion right{5, 0, 0, 5}, wrong{0, 5, 5, 0};
  EXPECT_DOUBLE_EQ(matthews(right), 1.0);
  EXPECT_DOUBLE_EQ(matthews(wrong), -1.0);
  EXPECT_DOUBLE_EQ(f1(right), 1.0);
}

TEST(BinaryMetrics, AreZeroWhereTheyAreNotDefined) {
  EXPECT_EQ(f1({0, 0, 3, 7}), 0.0);
  EXPECT_EQ(f1({0, 0, 0, 7}), 0.0);
  EXPECT_EQ(matthews({7, 3, 0, 0}), 0.0) << "always positive";
  EXPECT_EQ(matthews({0, 0, 0, 7}), 0.0);
}

}  // namespace
}  // namespace headloom::tasks
