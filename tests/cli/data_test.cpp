#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/command.h"

namespace headloom::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kText =
    "the loom and the weaver\nthe weaver and the loom\r\nweaver of the loom\n";

class Data : public testing::Test {
 protected:
  Data() { write_text(folder_ / "text", kText); }

  Outcome run(const std::vector<std::string>& arguments, const std::string& input = "") {
    std::vector<std::string> all{"data"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run_command(all, folder_.path(), input);
  }
  void learn() {
    const Outcome outcome =
        run({"tokenizer", "--size", "280", "--input", "text", "--output", "tok.json"});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  void expect_refusal(const Outcome& outcome, const std::string& part) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, AllOf(StartsWith("headloom: "), HasSubstr(part)));
  }

  TemporaryFolder folder_;
};

TEST_F(Data, LearnsATokenizerFromFilesAndStandardInput) {
  const Outcome outcome = run({"tokenizer", "--algorithm", "wordpiece", "--size", "60", "--input",
                               "text", "-", "--output", "tok.json"},
                              "another loom\n");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(StartsWith("tok.json: "), HasSubstr(" tokens from 16 words"),
                                 HasSubstr("no more pairs to merge for 60")));
  EXPECT_EQ(run({"encode", "--tokenizer", "tok.json", "--tokens", "--special-tokens"},
                "The weaver!\nof\n")
                .out,
            "[CLS] the weaver [UNK] [SEP]\n[CLS] o ##f [SEP]\n");
}

TEST_F(Data, EncodesAndDecodesLineByLine) {
  learn();
  const std::string text = "the loom\n\nunseen \u6a5f words\n";
  const Outcome ids = run({"encode", "--tokenizer", "tok.json"}, text);
  EXPECT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_EQ(run({"decode", "--tokenizer", "tok.json"}, ids.out).out, text);
  const Outcome framed = run({"encode", "--tokenizer", "tok.json", "--special-tokens"}, "loom\n");
  EXPECT_THAT(framed.out, StartsWith("0 "));
  EXPECT_EQ(run({"decode", "--tokenizer", "tok.json"}, framed.out).out, "loom\n");
  EXPECT_EQ(run({"decode", "--tokenizer", "tok.json", "--special-tokens"}, framed.out).out,
            "<s>loom</s>\n");
}

TEST_F(Data, RepairsInvalidTextOrRefusesIt) {
  learn();
  EXPECT_EQ(run({"encode", "--tokenizer", "tok.json"}, "\xFF\n").out,
            run({"encode", "--tokenizer", "tok.json"}, "\uFFFD\n").out);
  expect_refusal(run({"encode", "--tokenizer", "tok.json", "--strict"}, "\xFF\n"),
                 "standard input:1: expected valid UTF-8; found \\xff as byte 1");
  write_text(folder_ / "bad", "good\n\xE2\x82\n");
  expect_refusal(run({"tokenizer", "--strict", "--input", "bad", "--output", "x"}),
                 "bad:2: expected valid UTF-8");
}

TEST_F(Data, RefusesWhatItCannotRead) {
  learn();
  expect_refusal(run({"tokenizer", "--input", "absent", "--output", "x"}), "no such file");
  write_text(folder_ / "text.xz", "x");
  expect_refusal(run({"tokenizer", "--input", "text.xz", "--output", "x"}), "xz -dk text.xz");
  expect_refusal(run({"tokenizer", "--size", "9", "--input", "text", "--output", "x"}),
                 "a size of at least 261");
  expect_refusal(run({"encode", "--tokenizer", "text"}, "a\n"), "text: expected a JSON object");
  expect_refusal(run({"decode", "--tokenizer", "tok.json"}, "1 x\n"),
                 "standard input:1: expected ids with spaces between; found \"x\"");
  expect_refusal(run({"decode", "--tokenizer", "tok.json"}, "99999\n"), "found 99999");
  const Outcome full = run({"tokenizer", "--input", "text", "--output", "/dev/full/x"});
  EXPECT_EQ(full.exit_code, 1);
}

TEST_F(Data, ScoresStandardInput) {
  write_text(folder_ / "one", "The weaver counts the threads.\nShe left.\n");
  write_text(folder_ / "two", "A weaver counted threads.\nShe left us.\n");
  const std::string hypotheses = "The weaver counts threads.\nShe left.\n";
  EXPECT_EQ(run({"score", "--references", "one"}, hypotheses).out,
            "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0 = 50.14 "
            "100.0/83.3/50.0/25.0 (BP = 0.882 ratio = 0.889 hyp_len = 8 ref_len = 9)\n");
  EXPECT_THAT(run({"score", "--metric", "chrf++", "--references", "one", "two"}, hypotheses).out,
              StartsWith("chrF2++|nrefs:2|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.6.0 = "));
  EXPECT_THAT(
      run({"score", "--tokenize", "none", "--split-compounds", "--lowercase", "--smoothing",
           "floor", "--references", "one", "--hypotheses", "two"})
          .out,
      StartsWith("BLEU|nrefs:1|case:lc|eff:no|tok:none|smooth:floor[0.10]|compounds:split"));
}

TEST_F(Data, RefusesScoresOfDifferentTexts) {
  expect_refusal(run({"score", "--references", "text"}, "one line\n"),
                 "expected as many lines as reference 1, 3; found 1 lines");
  expect_refusal(run({"score", "--references", "text", "--metric", "meteor"}), "--metric");
  expect_refusal(
      run({"score", "--references", "text", "--metric", "chrf", "--split-compounds"}, kText),
      "--split-compounds with --metric bleu; found chrf");
}

TEST_F(Data, ImportsAModelAsARun) {
  const std::string model = HEADLOOM_SOURCE_DIR "/tests/golden/bert";
  const Outcome outcome = run({"import", model, "--output", "run"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("run: a run of task masked_lm, 42 tensors, "));
  write_text(folder_ / "text.txt", "a b c d e f g h\na b c d e f g h\na b c d e f g h\n");
  const Outcome eval =
      run_command({"eval", "run", "--set", "task.path=\"../text.txt\"", "--set", "task.context=4"},
                  folder_.path(), "");
  EXPECT_EQ(eval.exit_code, 0) << eval.err;
  expect_refusal(run({"import", model, "--output", "run"}), "a folder that does not exist yet");
  expect_refusal(run({"import", "nowhere", "--output", "other"}), "no such folder");
}

}  // namespace
}  // namespace headloom::cli
