#include "headloom/text/tokenizer.h"

#include <thread>

#include "tests/text/support.h"

namespace headloom::text {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Ids = std::vector<int64_t>;
using Json = nlohmann::json;
using Role = Tokenizer::Role;

std::string golden_file(size_t i) {
  return golden()["tokenizers"][i]["file"].get<std::string>();
}

std::string refusal_of(const std::string& file) {
  return message_of([&] { Tokenizer::parse(file, "tokenizer.json"); });
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer = Tokenizer::parse(golden_file(0), "golden");
  EXPECT_EQ(tokenizer.id("<s>"), 0);
  EXPECT_EQ(tokenizer.token(2), "</s>");
  EXPECT_EQ(tokenizer.id("not a token"), std::nullopt);
  EXPECT_EQ(tokenizer.token(tokenizer.size()), std::nullopt);
  EXPECT_EQ(tokenizer.token(-1), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(100));
  EXPECT_EQ(tokenizer.id(Role::kPad), 1);
  EXPECT_EQ(tokenizer.id(Role::kBegin), 0);
  EXPECT_EQ(tokenizer.id(Role::kEnd), 2);
  EXPECT_EQ(tokenizer.id(Role::kMask), tokenizer.size() - 1);
  EXPECT_EQ(tokenizer.id(Role::kUnknown), 3);
}

TEST(Tokenizer, NamesTheSpecialTokenThatIsMissing) {
  const Tokenizer tokenizer = Tokenizer::parse(small_file(), "small");
  EXPECT_EQ(tokenizer.id(Role::kMask), std::nullopt);
  EXPECT_THAT(message_of([&] { tokenizer.need_id(Role::kMask, "task masked_lm"); }),
              HasSubstr("task masked_lm: expected a tokenizer with a token for masking, [MASK] or "
                        "<mask>; found none"));
}

TEST(Tokenizer, DecodesBytesAsTheyAreWhenAskedTo) {
  const Tokenizer tokenizer = Tokenizer::parse(golden_file(0), "golden");
  const Ids ids = tokenizer.encode("\u00e9");  // two bytes, two tokens
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(tokenizer.decode({ids[0]}), "\uFFFD");
  EXPECT_EQ(tokenizer.decode_bytes({ids[0]}), "\xC3");
  EXPECT_THAT(message_of([&] { tokenizer.decode({tokenizer.size()}); }),
              HasSubstr("expected ids of tokens, below"));
}

TEST(Tokenizer, ReadsOlderFiles) {
  const std::string expected = Tokenizer::parse(golden_file(0), "golden").to_json();
  Json file = Json::parse(golden_file(0));
  file["model"].erase("type");
  for (Json& merge : file["model"]["merges"]) {
    merge = merge[0].get<std::string>() + ' ' + merge[1].get<std::string>();
  }
  EXPECT_EQ(Tokenizer::parse(file.dump(), "older").to_json(), expected);
  file = Json::parse(golden_file(2));
  file["model"].erase("type");
  EXPECT_EQ(Tokenizer::parse(file.dump(), "older").to_json(),
            Tokenizer::parse(golden_file(2), "golden").to_json());
}

TEST(Tokenizer, ReadsItselfFromAWindowsEditor) {
  EXPECT_TRUE(Tokenizer::parse("\uFEFF" + golden_file(2), "with a mark").to_json() ==
              golden_file(2));
}

TEST(Tokenizer, KeepsWhatItDoesNotApply) {
  const Json padding = {{"strategy", {{"Fixed", 8}}}, {"pad_id", 1}};
  const std::string file = small_file([&](Json& file) { file["padding"] = padding; });
  const Tokenizer tokenizer = Tokenizer::parse(file, "small");
  EXPECT_EQ(Json::parse(tokenizer.to_json())["padding"], padding);
  EXPECT_EQ(tokenizer.encode("a").size(), 1u);
}

TEST(Tokenizer, LeavesGapsBetweenIds) {
  const std::string file = small_file([](Json& file) { file["model"]["vocab"]["c"] = 50; });
  const Tokenizer tokenizer = Tokenizer::parse(file, "small");
  EXPECT_EQ(tokenizer.size(), 51);
  EXPECT_EQ(tokenizer.token(20), std::nullopt);
  EXPECT_EQ(tokenizer.encode("c"), (Ids{50}));
}

TEST(Tokenizer, ServesSeveralThreads) {
  const Tokenizer tokenizer = Tokenizer::parse(golden_file(2), "golden");
  const auto samples = golden_lines("samples");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 200; ++i) {
        const size_t sample = (i + t) % samples.size();
        wrong[t] += tokenizer.encode(samples[sample]) !=
                    golden()["tokenizers"][2]["ids"][sample].get<Ids>();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

struct Refusal {
  const char* name;
  std::function<void(Json&)> change;
  std::string message;
};

class TokenizerRefusals : public ::testing::TestWithParam<Refusal> {};

TEST_P(TokenizerRefusals, SayWhereAndWhat) {
  EXPECT_THAT(refusal_of(small_file(GetParam().change)),
              AllOf(HasSubstr("tokenizer.json"), HasSubstr(GetParam().message)));
}

Refusal set(const char* name, const char* pointer, const Json& value, const char* message) {
  return {name, [=](Json& file) { file[Json::json_pointer(pointer)] = value; }, message};
}

INSTANTIATE_TEST_SUITE_P(
    Files, TokenizerRefusals,
    ::testing::Values(
        Refusal{"NoModel", [](Json& f) { f.erase("model"); }, "\"model\": the model of a tokeni"},
        Refusal{"NoVocabulary", [](Json& f) { f["model"].erase("vocab"); },
                "\"vocab\"; found none"},
        set("Model", "/model/type", "Unigram", "a type among BPE, WordPiece; found \"Unigram\""),
        set("ModelWithATypo", "/model/type", "WordPeice", "The nearest is \"WordPiece\""),
        set("Normalizer", "/normalizer", {{"type", "Precompiled"}},
            ": normalizer: expected a type"),
        set("PreTokenizer", "/pre_tokenizer", {{"type", "Metaspace"}}, ": pre_tokenizer: expected"),
        set("PostProcessor", "/post_processor", {{"type", "X"}},
            ": post_processor: expected a type"),
        set("Decoder", "/decoder", {{"type", "Fuse"}}, ": decoder: expected a type"),
        set("PartWithoutType", "/decoder", Json::object(), ": decoder: expected \"type\""),
        set("PartThatIsNone", "/decoder", 3, ": decoder: expected an object; found number"),
        set("Dropout", "/model/dropout", 0.1, "Ids would be random"),
        set("ByteFallback", "/model/byte_fallback", true, "\"byte_fallback\": false; found true"),
        set("FlagOfAnotherKind", "/model/fuse_unk", "yes", "\"fuse_unk\": true or false"),
        set("UnknownOfNoId", "/model/unk_token", "<unk>", "unk_token in the vocabulary"),
        set("MergeOfNoToken", "/model/merges/0", "a x", "\"x\", which is not"),
        set("MergeIntoNoToken", "/model/merges/0", "c a", "\"ca\", which is not"),
        set("MergeOfThree", "/model/merges/0", "a b c", "merges as [\"a\", \"b\"] or \"a b\""),
        set("IdTwice", "/model/vocab/b", 0, "one token for each id"),
        set("NegativeId", "/model/vocab/b", -1, "ids from 0 to"),
        set("HugeId", "/model/vocab/b", int64_t{1} << 40, "ids from 0 to"),
        set("IdThatIsText", "/model/vocab/b", "1", "an integer id of \"b\""),
        set("AddedIdOfAnother", "/added_tokens/0", {{"id", 0}, {"content", "x"}}, "the same id"),
        set("AddedOtherId", "/added_tokens/0", {{"id", 9}, {"content", "a"}}, "the same id"),
        set("AddedEmpty", "/added_tokens/0", {{"id", 9}, {"content", ""}}, "that is not empty"),
        set("AddedTwice", "/added_tokens",
            {{{"id", 9}, {"content", "x"}}, {{"id", 9}, {"content", "y"}}},
            "id 9 for \"x\" and \"y\""),
        set("SpecialIdTooLarge", "/post_processor",
            {{"type", "BertProcessing"}, {"sep", {"s", 99}}, {"cls", {"c", 1}}}, "ids below 7"),
        set("SpecialOfAnotherShape", "/post_processor",
            {{"type", "BertProcessing"}, {"sep", "s"}, {"cls", {"c", 1}}}, "\"sep\": [token, id]"),
        set("TemplateOfNoToken", "/post_processor",
            {{"type", "TemplateProcessing"},
             {"single", {{{"SpecialToken", {{"id", "x"}, {"type_id", 0}}}}}},
             {"pair", Json::array()}},
            "special_tokens: expected \"x\"")),
    [](const auto& info) { return info.param.name; });

TEST(Tokenizer, RefusesWhatIsNotJson) {
  EXPECT_THAT(refusal_of("{\"model\": "),
              AllOf(HasSubstr("expected a JSON object"), HasSubstr("line 1")));
  EXPECT_THAT(refusal_of(""), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refusal_of("[]"), HasSubstr("expected a JSON object; found array"));
  EXPECT_THAT(refusal_of("{\"model\": \"\xFF\"}"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refusal_of(std::string(2'000'000, '[')), HasSubstr("expected a JSON object"));
}

TEST(Tokenizer, RefusesAWordPieceWithoutUnknown) {
  const std::string file = small_file([](Json& file) {
    file["model"] = {{"type", "WordPiece"}, {"vocab", {{"a", 0}}}};
  });
  EXPECT_THAT(refusal_of(file), HasSubstr("unk_token in the vocabulary; found \"[UNK]\""));
}

}  // namespace
}  // namespace headloom::text
