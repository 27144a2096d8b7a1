#include "headloom/tasks/listops/loader.h"

#include "headloom/tasks/listops/generator.h"
#include "tests/tasks/support.h"

namespace headloom::tasks::listops {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string kHeader = "Source\tTarget\n";

TEST(ListOpsLoader, ReadsBothFormsAlike) {
  GeneratorConfig config;
  config.min_length = 1;
  config.max_length = 200;
  const Examples examples = Generator(config).next(300);
  std::string plain = kHeader, tree = kHeader;
  for (const Example& example : examples) {
    plain += cat(print(example.tokens), '\t', int(example.value), '\n');
    tree += cat(print_tree(example.tokens), '\t', int(example.value), '\n');
  }
  const TempFolder folder;
  for (const std::string& text : {plain, tree}) {
    const Examples loaded = load(folder.write("rows.tsv", text), 200);
    ASSERT_EQ(loaded.size(), examples.size());
    for (size_t i = 0; i < loaded.size(); ++i) {
      EXPECT_EQ(loaded[i].tokens, examples[i].tokens);
      EXPECT_EQ(loaded[i].value, examples[i].value);
    }
  }
}

TEST(ListOpsLoader, AcceptsOtherLineEnds) {
  const TempFolder folder;
  const auto file = folder.write("rows.tsv", "Source\tTarget\r\n[MAX 1 2 ]\t2\r\n7\t7");
  EXPECT_EQ(load(file, 10).size(), 2u);
}

struct Refusal {
  const char* name;
  std::string bytes;
  std::string message;  // after the path of the file
};

class ListOpsFileRefusal : public ::testing::TestWithParam<Refusal> {};

TEST_P(ListOpsFileRefusal, SaysWhereAndWhat) {
  const TempFolder folder;
  const auto file = folder.write("rows.tsv", GetParam().bytes);
  EXPECT_THAT(message_of([&] { load(file, 6); }), HasSubstr(file.string() + GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Files, ListOpsFileRefusal,
    ::testing::Values(
        Refusal{"Empty", "", ": expected a header and rows; found an empty file"},
        Refusal{"OneByte", "S", ":1: expected the header Source<TAB>Target; found \"S\""},
        Refusal{"NoHeader", "[MAX 1 2 ]\t2\n", ":1: expected the header Source<TAB>Target"},
        Refusal{"NoRows", kHeader, ": expected rows below the header; found none"},
        Refusal{"NoTab", kHeader + "7\t7\n[MAX 1 2 ] 2\n", ":3: expected an expression, one tab"},
        Refusal{"TwoTabs", kHeader + "7\t7\t7\n", ":2: expected an expression, one tab"},
        Refusal{"EmptyLine", kHeader + "\n7\t7\n", ":2: expected an expression, one tab"},
        Refusal{"NoValue", kHeader + "7\t\n", ":2: expected a value 0 to 9 after the tab"},
        Refusal{"LargeValue", kHeader + "7\t10\n", ":2: expected a value 0 to 9 after the tab"},
        Refusal{"WordValue", kHeader + "7\tx\n", ":2: expected a value 0 to 9 after the tab"},
        Refusal{"WrongValue", kHeader + "[MAX 1 2 ]\t1\n",
                ":2: expected the value of the expression, 2; found 1"},
        Refusal{"UnknownToken", kHeader + "[MAX 1 two ]\t2\n", ":2: expected tokens among"},
        Refusal{"NotClosed", kHeader + "[MAX 1 2\t2\n", ":2: expected a \"]\" for every operator"},
        Refusal{"TooLong", kHeader + "[MAX 1 2 3 4 5 ]\t5\n",
                ":2: expected at most 6 tokens; found 7. Raise task.max_length."},
        Refusal{"Binary", std::string("\0\x01\xff", 3), ":1: expected the header"}),
    [](const auto& info) { return info.param.name; });

TEST(ListOpsLoader, RefusesMissingAndCompressedFiles) {
  const TempFolder folder;
  EXPECT_THAT(message_of([&] { load(folder.path() / "absent.tsv", 10); }),
              HasSubstr("absent.tsv: expected a readable file; found no such file"));
  EXPECT_THAT(message_of([&] { load(folder.write("rows.tsv.xz", "x"), 10); }),
              AllOf(HasSubstr("found a .xz file"), HasSubstr("xz -dk")));
}

}  // namespace
}  // namespace headloom::tasks::listops
