#include "headloom/tasks/labelled_bytes.h"

#include "tests/tasks/support.h"

namespace headloom::tasks {
namespace {

using ::testing::HasSubstr;

class LabelledBytes : public ::testing::Test {
 protected:
  Examples read(const std::string& bytes, LabelledForm form = {.longest = 100}) {
    return read_labelled_bytes(folder_.write("rows.tsv", bytes), form);
  }
  TempFolder folder_;
};

TEST_F(LabelledBytes, KeepsTheBytesOfTheLastColumn) {
  const Examples rows = read("1\t17\t9\ta \"b\"\xff<br />\r\n0\t18\t2\tc");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(std::string(rows[0].tokens.begin(), rows[0].tokens.end()), "a \"b\"\xff<br />");
  EXPECT_EQ(rows[0].value, 1);
  EXPECT_EQ(rows[1].value, 0);
  EXPECT_TRUE(rows[0].second.empty());
}

TEST_F(LabelledBytes, ReadsPairsAndCuts) {
  const Examples rows =
      read("1.0\tx\ty\tabcdef\tgh\n", {.columns = 5, .pairs = true, .longest = 4});
  EXPECT_EQ(std::string(rows[0].tokens.begin(), rows[0].tokens.end()), "abcd");
  EXPECT_EQ(std::string(rows[0].second.begin(), rows[0].second.end()), "gh");
  EXPECT_EQ(rows[0].value, 1);
}

TEST_F(LabelledBytes, RefusesOtherRowsByLine) {
  const auto refusal = [&](const std::string& bytes, LabelledForm form = {.longest = 100}) {
    return message_of([&] { read(bytes, form); });
  };
  EXPECT_THAT(refusal("1\ta\n1\tb\tc\n"), HasSubstr("rows.tsv:2: expected 2 columns"));
  EXPECT_THAT(refusal("1\ta\n", {.columns = 5, .longest = 9}), HasSubstr("expected 5 columns"));
  EXPECT_THAT(refusal("no tab\n"), HasSubstr("expected 2 columns"));
  EXPECT_THAT(refusal("2\ta\n"), HasSubstr("a class 0 or 1 in the first column; found \"2\""));
  EXPECT_THAT(refusal("1\t\n"), HasSubstr("expected a text; found an empty column"));
  EXPECT_THAT(refusal(""), HasSubstr("expected rows; found an empty file"));
}

}  // namespace
}  // namespace headloom::tasks
