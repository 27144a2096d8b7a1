#include "headloom/text/post_processor.h"

#include <algorithm>

#include "headloom/base/check.h"

namespace headloom::text {
namespace {

// ["[SEP]", 102]
int64_t id_of_entry(const Json& part, const char* key, const std::string& where) {
  const Json entry = need<Json>(part, key, where);
  HEADLOOM_CHECK(entry.is_array() && entry.size() == 2 && entry[1].is_number_integer(), where,
                 cat('"', key, "\": [token, id]"), entry.dump());
  return entry[1].get<int64_t>();
}

}  // namespace

PostProcessor::PostProcessor() : single_{{0, {}, 0}}, pair_{{0, {}, 0}, {1, {}, 1}} {}

PostProcessor::PostProcessor(const Json& part, const std::string& where) : PostProcessor() {
  if (!part.is_null()) read(part, where);
}

PostProcessor::Template PostProcessor::read_template(const Json& part, const char* key,
                                                     const std::string& where) {
  const Json list = need<Json>(part, key, where);
  const Json specials = optional_value<Json>(part, "special_tokens", Json::object(), where);
  HEADLOOM_CHECK(list.is_array(), where, cat('"', key, "\": a list"), list.type_name());
  Template pieces;
  for (const Json& entry : list) {
    HEADLOOM_CHECK(entry.is_object() && entry.size() == 1, where, "SpecialToken or Sequence",
                   entry.dump());
    const std::string kind = entry.begin().key();
    const Json& value = entry.begin().value();
    const auto id = need<std::string>(value, "id", where);
    Piece piece{-1, {}, need<int64_t>(value, "type_id", where)};
    if (kind == "Sequence") {
      HEADLOOM_CHECK(id == "A" || id == "B", where, "a Sequence A or B", cat('"', id, '"'));
      piece.source = id == "B";
    } else {
      HEADLOOM_CHECK(kind == "SpecialToken", where, "SpecialToken or Sequence", kind);
      const Json special = need<Json>(specials, id.c_str(), cat(where, ": special_tokens"));
      for (const Json& number : need<Json>(special, "ids", where)) {
        HEADLOOM_CHECK(number.is_number_integer(), where, "ids of special tokens", number.dump());
        piece.ids.push_back(number.get<int64_t>());
      }
    }
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

void PostProcessor::read(const Json& part, const std::string& where) {
  const std::string type = part_type(
      part, {"TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel", "Sequence"},
      where);
  if (type == "ByteLevel") return;
  if (type == "Sequence") {
    for (const Json& step : need<Json>(part, "processors", where)) read(step, where);
    return;
  }
  HEADLOOM_CHECK(!has_special_, where, "a Sequence with one that adds tokens", "two of them");
  has_special_ = true;
  if (type == "TemplateProcessing") {
    single_ = read_template(part, "single", where);
    pair_ = read_template(part, "pair", where);
    return;
  }
  const std::vector<int64_t> begin{id_of_entry(part, "cls", where)};
  const std::vector<int64_t> end{id_of_entry(part, "sep", where)};
  single_ = {{-1, begin, 0}, {0, {}, 0}, {-1, end, 0}};
  if (type == "BertProcessing") {
    pair_ = {{-1, begin, 0}, {0, {}, 0}, {-1, end, 0}, {1, {}, 1}, {-1, end, 1}};
  } else {
    pair_ = {{-1, begin, 0}, {0, {}, 0}, {-1, end, 0}, {-1, end, 0}, {1, {}, 0}, {-1, end, 0}};
  }
}

Encoding PostProcessor::fill(const Template& pieces, const std::vector<int64_t>* first,
                             const std::vector<int64_t>* second) const {
  Encoding result;
  for (const Piece& piece : pieces) {
    const std::vector<int64_t>* ids = piece.source < 0    ? &piece.ids
                                      : piece.source == 0 ? first
                                                          : second;
    if (!ids) continue;
    result.ids.insert(result.ids.end(), ids->begin(), ids->end());
    result.types.insert(result.types.end(), ids->size(), piece.type);
  }
  return result;
}

Encoding PostProcessor::single(const std::vector<int64_t>& ids) const {
  return fill(single_, &ids, nullptr);
}

Encoding PostProcessor::pair(const std::vector<int64_t>& first,
                             const std::vector<int64_t>& second) const {
  return fill(pair_, &first, &second);
}

int64_t PostProcessor::largest_id() const {
  int64_t largest = -1;
  for (const Template* pieces : {&single_, &pair_}) {
    for (const Piece& piece : *pieces) {
      for (const int64_t id : piece.ids) largest = std::max(largest, id);
    }
  }
  return largest;
}

}  // namespace headloom::text
