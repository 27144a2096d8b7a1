// A tokenizer.json: reading and writing.
#include <algorithm>
#include <array>

#include "headloom/base/check.h"
#include "headloom/text/tokenizer_parts.h"

namespace headloom::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

// Files from before parts of the model were typed.
void state_type(Json& model) {
  if (model.contains("type")) return;
  if (model.contains("merges")) model["type"] = "BPE";
  if (model.contains("max_input_chars_per_word")) model["type"] = "WordPiece";
}

std::unique_ptr<Vocabulary> take_vocabulary(Json& model, const std::string& where) {
  const Json list = need<Json>(model, "vocab", where);
  HEADLOOM_CHECK(list.is_object(), where, "\"vocab\": tokens and their ids", list.type_name());
  auto vocabulary = std::make_unique<Vocabulary>();
  for (const auto& [token, id] : list.items()) {
    HEADLOOM_CHECK(id.is_number_integer(), where, cat("an integer id of \"", token, '"'),
                   id.type_name());
    vocabulary->add(token, id.get<int64_t>(), where);
  }
  model.erase("vocab");
  return vocabulary;
}

// Either ["a", "b"] or "a b".
std::pair<std::string, std::string> read_merge(const Json& merge, const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  fail(where, "merges as [\"a\", \"b\"] or \"a b\"", merge.dump());
}

Merges take_merges(Json& model, const std::string& where) {
  Merges merges;
  if (!model.contains("merges")) return merges;
  const Json list = need<Json>(model, "merges", where);
  HEADLOOM_CHECK(list.is_array(), where, "\"merges\": a list", list.type_name());
  merges.reserve(list.size());
  for (const Json& merge : list) merges.push_back(read_merge(merge, where));
  model.erase("merges");
  return merges;
}

void check_added(const AddedToken& token, const Vocabulary& vocabulary, const std::string& where) {
  HEADLOOM_CHECK(token.id >= 0 && token.id <= Vocabulary::kLargestId, where,
                 cat("ids from 0 to ", Vocabulary::kLargestId),
                 cat(token.id, " for \"", token.content, '"'));
  const std::string* at_id = vocabulary.token(token.id);
  const auto id = vocabulary.id(token.content);
  HEADLOOM_CHECK((!at_id || *at_id == token.content) && (!id || *id == token.id), where,
                 cat("\"", token.content, "\" with the same id as in the model"),
                 cat("id ", token.id, " here, ",
                     id ? cat("id ", *id, " in the model") : cat('"', *at_id, "\" there")));
}

// The order in which the ecosystem writes keys. Others follow in alphabetic order.
constexpr std::array kKeys = {"type",
                              "version",
                              "truncation",
                              "padding",
                              "added_tokens",
                              "normalizer",
                              "pre_tokenizer",
                              "post_processor",
                              "decoder",
                              "model",
                              "direction",
                              "max_length",
                              "strategy",
                              "stride",
                              "id",
                              "content",
                              "single_word",
                              "lstrip",
                              "rstrip",
                              "normalized",
                              "special",
                              "clean_text",
                              "handle_chinese_chars",
                              "strip_accents",
                              "lowercase",
                              "add_prefix_space",
                              "trim_offsets",
                              "use_regex",
                              "single",
                              "pair",
                              "special_tokens",
                              "ids",
                              "tokens",
                              "type_id",
                              "sep",
                              "cls",
                              "prefix",
                              "cleanup",
                              "dropout",
                              "unk_token",
                              "continuing_subword_prefix",
                              "end_of_word_suffix",
                              "fuse_unk",
                              "byte_fallback",
                              "ignore_merges",
                              "max_input_chars_per_word"};

OrderedJson ordered(const Json& value) {
  if (value.is_array()) {
    OrderedJson list = OrderedJson::array();
    for (const Json& entry : value) list.push_back(ordered(entry));
    return list;
  }
  if (!value.is_object()) return OrderedJson(value);
  std::vector<std::string> keys;
  for (const auto& [key, entry] : value.items()) keys.push_back(key);
  const auto rank = [](const std::string& key) {
    return std::find(kKeys.begin(), kKeys.end(), key) - kKeys.begin();
  };
  std::stable_sort(keys.begin(), keys.end(),
                   [&](const std::string& a, const std::string& b) { return rank(a) < rank(b); });
  OrderedJson object = OrderedJson::object();
  for (const std::string& key : keys) object[key] = ordered(value[key]);
  return object;
}

OrderedJson vocabulary_json(const Vocabulary& vocabulary) {
  OrderedJson object = OrderedJson::object();
  // Behind the map's own insertion, which looks through all keys each time.
  auto& entries = object.get_ref<OrderedJson::object_t&>();
  entries.reserve(vocabulary.size());
  for (int64_t id = 0; id < vocabulary.rows(); ++id) {
    if (const std::string* token = vocabulary.token(id)) entries.emplace_back(*token, id);
  }
  return object;
}

}  // namespace

Tokenizer Tokenizer::parse(std::string_view json, const std::string& where) {
  auto parts = std::make_unique<Parts>();
  parts->document = parse_json(json, where);
  Json& document = parts->document;
  const auto part = [&](const char* key) {
    return optional_value<Json>(document, key, Json(), where);
  };
  const auto name = [&](const char* key) { return cat(where, ": ", key); };
  HEADLOOM_CHECK(document.contains("model") && document["model"].is_object(), where,
                 "\"model\": the model of a tokenizer", "none");
  Json& model = document["model"];
  state_type(model);
  auto vocabulary = take_vocabulary(model, name("model: vocab"));
  Merges merges = take_merges(model, name("model: merges"));
  parts->model = make_model(model, std::move(vocabulary), std::move(merges), name("model"));

  parts->normalizer = Normalizer(part("normalizer"), name("normalizer"));
  parts->pre_tokenizer = PreTokenizer(part("pre_tokenizer"), name("pre_tokenizer"));
  parts->post_processor = PostProcessor(part("post_processor"), name("post_processor"));
  parts->decoder = Decoder(part("decoder"), name("decoder"));
  const Json added = part("added_tokens");
  if (!added.is_null()) {
    parts->added = AddedTokens(read_added_tokens(added, name("added_tokens")), parts->normalizer);
  }
  parts->rows = parts->model->vocabulary().rows();
  for (const AddedToken& token : parts->added.tokens()) {
    check_added(token, parts->model->vocabulary(), name("added_tokens"));
    const auto [entry, is_new] = parts->added_by_id.emplace(token.id, &token);
    HEADLOOM_CHECK(
        is_new, name("added_tokens"), "one token for each id",
        cat("id ", token.id, " for \"", entry->second->content, "\" and \"", token.content, '"'));
    parts->rows = std::max(parts->rows, token.id + 1);
  }
  HEADLOOM_CHECK(parts->post_processor.largest_id() < parts->rows, name("post_processor"),
                 cat("ids below ", parts->rows), cat(parts->post_processor.largest_id()));
  return Tokenizer(std::move(parts));
}

std::string Tokenizer::to_json() const {
  OrderedJson document = ordered(parts_->document);
  OrderedJson& model = document["model"];
  model["vocab"] = vocabulary_json(parts_->model->vocabulary());
  if (const Merges* merges = parts_->model->merges()) {
    OrderedJson list = OrderedJson::array();
    for (const auto& [left, right] : *merges) list.push_back(OrderedJson::array({left, right}));
    model["merges"] = std::move(list);
  }
  return document.dump(2);
}

}  // namespace headloom::text
