#include "headloom/text/utf8.h"

#include "tests/text/support.h"

namespace headloom::text {
namespace {

TEST(Utf8, ReadsWhatItWrites) {
  std::string text;
  std::vector<char32_t> points;
  for (char32_t point = 0; point < 0x110000; point += 0x35) {
    if (point >= 0xD800 && point < 0xE000) continue;
    points.push_back(point);
    append(text, point);
  }
  EXPECT_FALSE(first_invalid(text));
  EXPECT_EQ(count_characters(text), points.size());
  std::vector<char32_t> read;
  for (size_t at = 0; at < text.size();) read.push_back(next_character(text, at));
  EXPECT_EQ(read, points);
}

struct Repair {
  const char* name;
  std::string bytes, repaired;
  size_t first;
};

class Repairs : public ::testing::TestWithParam<Repair> {};

// The expected texts are Python's bytes.decode("utf-8", errors="replace").
TEST_P(Repairs, AreThoseOfPython) {
  EXPECT_EQ(repair(GetParam().bytes), GetParam().repaired);
  ASSERT_TRUE(first_invalid(GetParam().bytes));
  EXPECT_EQ(*first_invalid(GetParam().bytes), GetParam().first);
  std::string storage;
  EXPECT_EQ(valid_text(GetParam().bytes, storage), GetParam().repaired);
}

const std::string kR = "\uFFFD";

INSTANTIATE_TEST_SUITE_P(Bytes, Repairs,
                         ::testing::Values(Repair{"LoneContinuation", "a\x80z", "a" + kR + "z", 1},
                                           Repair{"CutShort", "ab\xE2\x82", "ab" + kR, 2},
                                           Repair{"CutShortInside", "\xE2\x82x", kR + "x", 0},
                                           Repair{"Overlong", "\xC0\xAF", kR + kR, 0},
                                           Repair{"OverlongThree", "\xE0\x80\xAF", kR + kR + kR, 0},
                                           Repair{"Surrogate", "\xED\xA0\x80", kR + kR + kR, 0},
                                           Repair{"TooLarge", "\xF4\x90\x80\x80", kR + kR + kR + kR,
                                                  0},
                                           Repair{"FourCutShort", "\xF0\x9F\x98!", kR + "!", 0},
                                           Repair{"NoStart", "12345678\xFF", "12345678" + kR, 8}),
                         [](const auto& info) { return info.param.name; });

TEST(Utf8, LeavesValidTextWhereItIs) {
  const std::string text = std::string("nul\0and \uFEFF mark", 16);
  std::string storage;
  EXPECT_EQ(valid_text(text, storage).data(), text.data());
  EXPECT_EQ(repair(text), text);
}

}  // namespace
}  // namespace headloom::text
