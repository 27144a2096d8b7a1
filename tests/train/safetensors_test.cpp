#include "headloom/train/safetensors.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cstring>

#include "headloom/base/check.h"
#include "tests/train/temporary_folder.h"

namespace headloom::train {
namespace {

namespace fs = std::filesystem;
using headloom::testing::message_of;
using headloom::testing::read_bytes;
using headloom::testing::TemporaryFolder;
using headloom::testing::write_bytes;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const at::ScalarType kAllDtypes[] = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                     at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

// A file as its format describes it: length, header, data.
std::string file_bytes(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

std::string raw(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  return {static_cast<const char*>(dense.const_data_ptr()), dense.nbytes()};
}

void expect_same(const NamedTensors& actual, const NamedTensors& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].first, expected[i].first);
    EXPECT_EQ(actual[i].second.scalar_type(), expected[i].second.scalar_type());
    EXPECT_EQ(actual[i].second.sizes(), expected[i].second.sizes()) << actual[i].first;
    EXPECT_EQ(raw(actual[i].second), raw(expected[i].second)) << actual[i].first;
  }
}

TEST(Safetensors, BytesAreThoseOfTheFormat) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.safetensors");
  const FileSum sum =
      write_safetensors(path, {{"w", torch::tensor({1.0f, -2.0f})}}, {{"format", "pt"}});
  std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string data("\x00\x00\x80\x3f\x00\x00\x00\xc0", 8);
  EXPECT_EQ(read_bytes(path), file_bytes(header, data));
  EXPECT_EQ(sum, sum_file(path));
  EXPECT_FALSE(fs::exists(path + ".tmp"));
}

TEST(Safetensors, RoundTripKeepsEveryBitNameAndOrder) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  NamedTensors tensors;
  for (at::ScalarType dtype : kAllDtypes) {
    const std::string name = c10::toString(dtype);
    const auto high = dtype == at::kBool ? 2 : 127;
    tensors.emplace_back(name, torch::randint(0, high, {3, 5}).to(dtype));
    tensors.emplace_back(name + " scalar", torch::ones({}, dtype));
    tensors.emplace_back(name + " empty", torch::empty({2, 0, 3}, dtype));
  }
  tensors.emplace_back("", torch::tensor({0.1}));
  tensors.emplace_back(std::string("\"\\\n\0/", 5), torch::tensor({1}));
  tensors.emplace_back("gew\xc3\xb6hnlich \xe6\xb3\xa8\xe6\x84\x8f \xf0\x9f\xa7\xb5",
                       torch::tensor({NAN, -0.0f, INFINITY}));
  const std::map<std::string, std::string> metadata = {{"", ""}, {"\xe6\xb3\xa8", "\"\n\xc3\xb6"}};
  write_safetensors(path, tensors, metadata);
  const SafetensorsFile file = read_safetensors(path);
  expect_same(file.tensors, tensors);
  EXPECT_EQ(file.metadata, metadata);
}

TEST(Safetensors, RoundTripOfNothing) {
  const TemporaryFolder folder;
  write_safetensors(folder.file("a"), {});
  const SafetensorsFile file = read_safetensors(folder.file("a"));
  EXPECT_TRUE(file.tensors.empty());
  EXPECT_TRUE(file.metadata.empty());
}

TEST(Safetensors, WritesValuesNotMemory) {
  const TemporaryFolder folder;
  const at::Tensor base = torch::randn({4, 6}, torch::requires_grad());
  write_safetensors(folder.file("a"), {{"transposed", base.t()},
                                       {"slice", base.slice(1, 1, 6, 2)},
                                       {"broadcast", torch::tensor({1, 2}).expand({3, 2})}});
  const auto tensors = read_safetensors(folder.file("a")).tensors;
  EXPECT_TRUE(torch::equal(tensors[0].second, base.t()));
  EXPECT_TRUE(torch::equal(tensors[1].second, base.slice(1, 1, 6, 2)));
  EXPECT_TRUE(torch::equal(tensors[2].second, torch::tensor({1, 2}).expand({3, 2})));
  EXPECT_FALSE(tensors[0].second.requires_grad());
}

TEST(Safetensors, DataOfEveryTensorIsAligned) {
  const TemporaryFolder folder;
  write_safetensors(folder.file("a"), {{"u8", torch::ones({3}, at::kByte)},
                                       {"i16", torch::ones({3}, at::kShort)},
                                       {"f64", torch::ones({1}, at::kDouble)},
                                       {"f32", torch::ones({1}, at::kFloat)}});
  const std::string bytes = read_bytes(folder.file("a"));
  EXPECT_THAT(bytes, HasSubstr(R"("f64":{"dtype":"F64","shape":[1],"data_offsets":[0,8]})"));
  EXPECT_THAT(bytes, HasSubstr(R"("f32":{"dtype":"F32","shape":[1],"data_offsets":[8,12]})"));
  EXPECT_THAT(bytes, HasSubstr(R"("i16":{"dtype":"I16","shape":[3],"data_offsets":[12,18]})"));
  EXPECT_THAT(bytes, HasSubstr(R"("u8":{"dtype":"U8","shape":[3],"data_offsets":[18,21]})"));
}

TEST(Safetensors, ReadsDescriptionsAndFieldsInAnyOrder) {
  const TemporaryFolder folder;
  const std::string header =
      R"({"b":{"data_offsets":[2,3],"shape":[1],"dtype":"U8"},)"
      R"("none":{"dtype":"I64","shape":[0],"data_offsets":[2,2]},)"
      R"("a":{"shape":[2,1],"dtype":"I8","data_offsets":[0,2]},"__metadata__":{}} )";
  write_bytes(folder.file("a"), file_bytes(header, "\x01\xff\x07"));
  expect_same(read_safetensors(folder.file("a")).tensors,
              {{"b", torch::tensor({7}, at::kByte)},
               {"none", torch::empty({0}, at::kLong)},
               {"a", torch::tensor({{1}, {-1}}, at::kChar)}});
}

struct Refusal {
  const char* name;
  std::string header;
  size_t data_bytes;
  std::string expected;  // part of the message
};

std::string entry(const std::string& dtype, const std::string& shape, const std::string& span) {
  return R"({"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + span + "}";
}

std::vector<Refusal> refusals() {
  const std::string good = entry("\"U8\"", "[2]", "[0,2]");
  const std::string four = "4611686018427387904";  // 2^62
  std::string deep = R"({"w":)";
  for (int i = 0; i < 100000; ++i) deep += "[";
  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  const auto w = [](const std::string& value) { return R"({"w":)" + value + "}"; };
  return {
      {"Empty", "", 0, "expected a header that begins with {; found an empty one"},
      {"Space", " {}", 0, R"(begins with {; found " ")"},
      {"List", "[]", 0, R"(begins with {; found "[")"},
      {"Unfinished", "{", 0, "a syntax error at byte "},
      {"Trailing", "{}{}", 0, "a syntax error"},
      {"Nul", std::string("{}\0", 3), 0, "found a NUL at byte 2 of it"},
      {"NotUtf8", "{\"\xff\":" + good + "}", 2, "a syntax error"},
      {"DuplicateName", R"({"w":)" + good + R"(,"w":)" + good + "}", 2, R"("w" again)"},
      {"DuplicateEscaped", R"({"w":)" + good + R"(,"\u0077":)" + good + "}", 2, R"("w" again)"},
      {"DuplicateField", w(R"({"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]})"), 2,
       R"(expected one dtype of tensor "w"; found two)"},
      {"DuplicateMetadata", R"({"__metadata__":{"a":"1","a":"1"}})", 0, R"("a" again)"},
      {"TwoMetadata", R"({"__metadata__":{},"__metadata__":{}})", 0, R"("__metadata__" again)"},
      {"MetadataNumber", R"({"__metadata__":{"a":1}})", 0,
       R"(expected text as the value of "a" in __metadata__; found 1)"},
      {"MetadataNested", R"({"__metadata__":{"a":{}}})", 0, "found an object"},
      {"MetadataText", R"({"__metadata__":"a"})", 0, "expected an object as __metadata__"},
      {"EntryText", w("\"a\""), 0, R"(an object as the description of tensor "w"; found "a")"},
      {"EntryNull", w("null"), 0, "found null"},
      {"Deep", deep, 0, "found a list"},
      {"UnknownField", w(R"({"dtype":"U8","shape":[2],"data_offsets":[0,2],"x":1})"), 2,
       R"(found a field "x")"},
      {"MissingField", w(R"({"dtype":"U8","shape":[2]})"), 2, "found not all of them"},
      {"UnknownDtype", w(entry("\"F8_E4M3\"", "[2]", "[0,2]")), 2,
       R"(I8, U8, BOOL as the dtype of tensor "w"; found "F8_E4M3")"},
      {"LowerCaseDtype", w(entry("\"u8\"", "[2]", "[0,2]")), 2, R"(found "u8")"},
      {"DtypeNumber", w(entry("1", "[2]", "[0,2]")), 2, "found 1"},
      {"ShapeNumber", w(entry("\"U8\"", "2", "[0,2]")), 2, "found 2"},
      {"NegativeSize", w(entry("\"U8\"", "[-2]", "[0,2]")), 2, "found -2"},
      {"FractionalSize", w(entry("\"U8\"", "[2.0]", "[0,2]")), 2, "found 2.0"},
      {"BooleanSize", w(entry("\"U8\"", "[true]", "[0,2]")), 2, "found true"},
      {"NestedShape", w(entry("\"U8\"", "[[2]]", "[0,2]")), 2, "found a list"},
      {"HugeSize", w(entry("\"U8\"", "[9223372036854775808]", "[0,2]")), 2,
       "found 9223372036854775808"},
      {"ManyDimensions", w(entry("\"U8\"", ones + "]", "[0,1]")), 1, "found more than 64 of them"},
      {"ProductWrapsToZero", w(entry("\"U8\"", "[" + four + ",4]", "[0,0]")), 0,
       "that fits 63 bits"},
      {"BytesWrap", w(entry("\"F64\"", "[" + four + "]", "[0,0]")), 0, "that fits 63 bits"},
      {"WrapsBesideZero", w(entry("\"U8\"", "[0," + four + ",4]", "[0,0]")), 0,
       "that fits 63 bits"},
      {"OneOffset", w(entry("\"U8\"", "[2]", "[2]")), 2, "found 1 of them"},
      {"ThreeOffsets", w(entry("\"U8\"", "[2]", "[0,2,2]")), 2, "data_offsets of tensor"},
      {"NegativeOffset", w(entry("\"U8\"", "[2]", "[-1,1]")), 2, "found -1"},
      {"Backwards", w(entry("\"U8\"", "[2]", "[2,0]")), 2, "found data_offsets [2, 0]"},
      {"BeyondTheEnd", w(entry("\"U8\"", "[3]", "[0,3]")), 2,
       R"(tensor "w" within the 2 bytes after the header; found data_offsets [0, 3])"},
      {"OffsetOverflow", w(entry("\"U8\"", "[2]", "[0,18446744073709551618]")), 2, "expected two"},
      {"UnsignedDtype", w(entry("\"U16\"", "[2]", "[0,2]")), 2, "as the dtype"},
      {"SpanTooShort", w(entry("\"I16\"", "[2]", "[0,2]")), 2,
       R"(expected 4 bytes for tensor "w" of shape [2]; found data_offsets [0, 2])"},
      {"Hole", w(entry("\"U8\"", "[2]", "[1,3]")), 3, "to begin at byte 0"},
      {"Overlap", R"({"a":)" + good + R"(,"b":)" + entry("\"U8\"", "[2]", "[1,3]") + "}", 3,
       R"(tensor "b" to begin at byte 2, where the one before it ends; found it at byte 1)"},
      {"SameSpanTwice", R"({"a":)" + good + R"(,"b":)" + good + "}", 2, "to begin at byte 2"},
      {"DataLeftOver", w(good), 3, "expected 2 bytes after the header"},
      {"BooleanTwo", w(entry("\"BOOL\"", "[2]", "[0,2]")), 2, "0 and 1 in BOOL tensor \"w\""},
  };
}

class SafetensorsRefuses : public ::testing::TestWithParam<Refusal> {};

TEST_P(SafetensorsRefuses, WithFileExpectedAndFound) {
  const TemporaryFolder folder;
  const Refusal& refusal = GetParam();
  write_bytes(folder.file("a"),
              file_bytes(refusal.header, std::string(refusal.data_bytes, '\x02')));
  const std::string message = message_of<Error>([&] { read_safetensors(folder.file("a")); });
  EXPECT_THAT(message, StartsWith(folder.file("a") + ": expected "));
  EXPECT_THAT(message, HasSubstr(refusal.expected));
}

INSTANTIATE_TEST_SUITE_P(Headers, SafetensorsRefuses, ::testing::ValuesIn(refusals()),
                         [](const auto& info) { return info.param.name; });

TEST(Safetensors, RefusesFilesThatCannotHoldTheirHeader) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  const auto message = [&] { return message_of<Error>([&] { read_safetensors(path); }); };
  EXPECT_THAT(message(), HasSubstr("No such file or directory"));
  write_bytes(path, "1234567");
  EXPECT_THAT(message(), HasSubstr("at least 8 bytes; found 7 bytes"));
  write_bytes(path, file_bytes("{} ", "").substr(0, 10));
  EXPECT_THAT(message(), HasSubstr("a header of at most 2 bytes; found one of 3 bytes"));
  write_bytes(path, std::string(8, '\xff') + "{}");
  EXPECT_THAT(message(), HasSubstr("found one of 18446744073709551615 bytes"));
  // A sparse file: as long as the header that it announces.
  const uint64_t length = 100'000'001;
  write_bytes(path, std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + "{");
  fs::resize_file(path, length + 8);
  EXPECT_THAT(message(), HasSubstr("at most 100000000 bytes; found one of 100000001 bytes"));
}

TEST(Safetensors, RefusesToWriteWhatTheFormatLacks) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_bytes(path, "before");
  const auto message = [&](const NamedTensors& tensors,
                           const std::map<std::string, std::string>& metadata = {}) {
    return message_of<Error>([&] { write_safetensors(path, tensors, metadata); });
  };
  const at::Tensor one = torch::ones({1});
  EXPECT_THAT(message({{"w", one}, {"w", one}}), HasSubstr(R"(found "w" again)"));
  EXPECT_THAT(message({{"__metadata__", one}}), HasSubstr("that the format leaves free"));
  EXPECT_THAT(message({{"w", at::Tensor()}}), HasSubstr(R"(tensor "w"; found none)"));
  EXPECT_THAT(message({{"w", one.to_sparse()}}), HasSubstr("found Sparse"));
  EXPECT_THAT(message({{"w", one.to(at::kComplexFloat)}}), HasSubstr("found ComplexFloat"));
  EXPECT_THAT(message({{"\xff", one}}), HasSubstr("expected UTF-8 text"));
  EXPECT_THAT(message({{"w", one}}, {{"a", "\xff"}}), HasSubstr("expected UTF-8 text"));
  EXPECT_EQ(read_bytes(path), "before");
  EXPECT_FALSE(fs::exists(path + ".tmp"));
}

TEST(Safetensors, FullDiskLeavesWhatWasThere) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_safetensors(path, {{"w", torch::ones({2})}});
  fs::create_symlink("/dev/full", path + ".tmp");
  const std::string message = message_of<Error>([&] {
    write_safetensors(path, {{"w", torch::zeros({2})}});
  });
  EXPECT_THAT(message, AllOf(StartsWith(path), HasSubstr("No space left on device")));
  expect_same(read_safetensors(path).tensors, {{"w", torch::ones({2})}});
}

// Damage anywhere is refused or yields tensors that agree with the bytes they came from.
TEST(Safetensors, SurvivesDamageAtEveryByte) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_safetensors(path,
                    {{"w", torch::ones({2, 3})},
                     {"flags", torch::ones({3}, at::kBool)},
                     {"scalar", torch::ones({}, at::kLong)},
                     {"none", torch::empty({0, 4}, at::kHalf)}},
                    {{"a", "b"}});
  const std::string good = read_bytes(path);
  int64_t refused = 0, accepted = 0;
  const auto attempt = [&](const std::string& bytes) {
    write_bytes(path, bytes);
    try {
      size_t data = 0;
      for (const auto& [name, tensor] : read_safetensors(path).tensors) data += tensor.nbytes();
      uint64_t header = 0;
      std::memcpy(&header, bytes.data(), sizeof(header));
      EXPECT_EQ(8 + header + data, bytes.size());
      ++accepted;
    } catch (const Error&) {
      ++refused;
    }
  };
  for (size_t i = 0; i < good.size(); ++i) {
    for (int flip : {0x01, 0x02, 0x04, 0x10, 0x20, 0x80, 0xff}) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      attempt(bytes);
    }
    const int64_t before = refused;
    attempt(good.substr(0, i));
    EXPECT_EQ(refused, before + 1) << "cut to " << i << " bytes";
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace headloom::train
