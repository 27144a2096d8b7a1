#include "headloom/train/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"

namespace headloom::train {
namespace {

using Json = nlohmann::json;

constexpr const char* kMetadataKey = "__metadata__";
constexpr size_t kMaxDimensions = 64;  // torch's own limit for element-wise operators
constexpr const char* kDamaged = "The file is damaged, or not a safetensors file.";

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr Dtype kDtypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                             {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"I32", at::kInt},
                             {"I16", at::kShort},     {"I8", at::kChar},   {"U8", at::kByte},
                             {"BOOL", at::kBool}};

std::string dtype_names() {
  std::vector<std::string> names;
  for (const Dtype& dtype : kDtypes) names.emplace_back(dtype.name);
  return join(names);
}

// Takes the parser's events one by one, so that duplicate keys are seen and depth is bounded by the
// places a valid header has.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}

  SafetensorsHeader take() { return std::move(header_); }

  bool null() override { unexpected("null"); }
  bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { unexpected(cat(value)); }
  bool number_float(number_float_t, const string_t& text) override { unexpected(text); }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kSizes) {
      check(value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), cat(value));
      check(entry_.shape.size() < kMaxDimensions, cat("more than ", kMaxDimensions, " of them"));
      entry_.shape.push_back(static_cast<int64_t>(value));
    } else {
      check(place_ == Place::kSpan && span_count_ < 2, cat(value));
      (span_count_++ == 0 ? entry_.begin : entry_.end) = value;
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kDtype) {
      const auto* found = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                       [&](const Dtype& dtype) { return value == dtype.name; });
      check(found != std::end(kDtypes), in_quotes(value));
      entry_.dtype = found->type;
      place_ = Place::kFields;
    } else {
      check(place_ == Place::kMetadataValue, in_quotes(value));
      header_.metadata[metadata_key_] = value;
      place_ = Place::kMetadataKeys;
    }
    return true;
  }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kNames;
        return true;
      case Place::kEntry:
        has_dtype_ = has_shape_ = has_span_ = false;
        span_count_ = 0;
        place_ = Place::kFields;
        return true;
      case Place::kMetadata:
        place_ = Place::kMetadataKeys;
        return true;
      default:
        unexpected("an object");
    }
  }

  bool key(string_t& key) override {
    if (place_ == Place::kNames) {
      HEADLOOM_CHECK(names_.insert(key).second, path_, "every name in the header once",
                     cat(in_quotes(key), " again"), kDamaged);
      entry_ = TensorEntry{};
      entry_.name = key;
      place_ = key == kMetadataKey ? Place::kMetadata : Place::kEntry;
    } else if (place_ == Place::kMetadataKeys) {
      HEADLOOM_CHECK(header_.metadata.emplace(key, "").second, path_,
                     "every key in __metadata__ once", cat(in_quotes(key), " again"), kDamaged);
      metadata_key_ = key;
      place_ = Place::kMetadataValue;
    } else {
      field(key);
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kFields) {
      HEADLOOM_CHECK(has_dtype_ && has_shape_ && has_span_, path_,
                     cat("dtype, shape and data_offsets of tensor ", in_quotes(entry_.name)),
                     "not all of them", kDamaged);
      header_.entries.push_back(std::move(entry_));
      place_ = Place::kNames;
    } else {
      place_ = place_ == Place::kMetadataKeys ? Place::kNames : Place::kEnd;
    }
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::kShape) {
      place_ = Place::kSizes;
    } else {
      check(place_ == Place::kOffsets, "a list");
      place_ = Place::kSpan;
    }
    return true;
  }

  bool end_array() override {
    check(place_ != Place::kSpan || span_count_ == 2, cat(span_count_, " of them"));
    place_ = Place::kFields;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail(path_, "a JSON object as the header", cat("a syntax error at byte ", position, " of it"),
         kDamaged);
  }

 private:
  enum class Place {
    kStart,
    kNames,
    kEntry,
    kFields,
    kDtype,
    kShape,
    kSizes,
    kOffsets,
    kSpan,
    kMetadata,
    kMetadataKeys,
    kMetadataValue,
    kEnd,
  };

  void field(const std::string& key) {
    struct Field {
      const char* name;
      Place place;
      bool& seen;
    };
    const Field fields[] = {{"dtype", Place::kDtype, has_dtype_},
                            {"shape", Place::kShape, has_shape_},
                            {"data_offsets", Place::kOffsets, has_span_}};
    for (const Field& field : fields) {
      if (key != field.name) continue;
      HEADLOOM_CHECK(!field.seen, path_, cat("one ", key, " of tensor ", in_quotes(entry_.name)),
                     "two", kDamaged);
      field.seen = true;
      place_ = field.place;
      return;
    }
    fail(path_, cat("dtype, shape and data_offsets of tensor ", in_quotes(entry_.name)),
         cat("a field ", in_quotes(key)));
  }

  std::string expected() const {
    const std::string of_tensor = cat(" of tensor ", in_quotes(entry_.name));
    switch (place_) {
      case Place::kEntry:
        return "an object as the description" + of_tensor;
      case Place::kDtype:
        return cat("one of ", dtype_names(), " as the dtype", of_tensor);
      case Place::kShape:
      case Place::kSizes:
        return "a list of whole sizes as the shape" + of_tensor;
      case Place::kOffsets:
      case Place::kSpan:
        return "two byte positions as the data_offsets" + of_tensor;
      case Place::kMetadata:
        return "an object as __metadata__";
      case Place::kMetadataValue:
        return cat("text as the value of ", in_quotes(metadata_key_), " in __metadata__");
      default:
        return "a JSON object as the header";
    }
  }

  [[noreturn]] void unexpected(const std::string& found) const {
    fail(path_, expected(), found, kDamaged);
  }
  void check(bool condition, const std::string& found) const {
    if (!condition) unexpected(found);
  }

  const std::string& path_;
  SafetensorsHeader header_;
  Place place_ = Place::kStart;
  TensorEntry entry_;
  bool has_dtype_ = false, has_shape_ = false, has_span_ = false;
  int span_count_ = 0;
  std::string metadata_key_;
  std::unordered_set<std::string> names_;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += cat(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

// Bytes of a contiguous tensor. A size of 0 does not excuse an overflow of the others, since
// strides multiply them as well.
uint64_t checked_bytes(const std::string& path, const TensorEntry& entry) {
  int64_t product = static_cast<int64_t>(c10::elementSize(entry.dtype));
  bool empty = false;
  for (int64_t size : entry.shape) {
    empty |= size == 0;
    HEADLOOM_CHECK(!__builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product), path,
                   cat("a size of tensor ", in_quotes(entry.name), " that fits 63 bits"),
                   cat("shape ", shape_text(entry.shape)), kDamaged);
  }
  return empty ? 0 : static_cast<uint64_t>(product);
}

void check_spans(const std::string& path, const SafetensorsHeader& header, uint64_t data_bytes) {
  std::vector<const TensorEntry*> sorted;
  for (const TensorEntry& entry : header.entries) {
    const uint64_t bytes = checked_bytes(path, entry);
    const auto found = [&] { return cat("data_offsets [", entry.begin, ", ", entry.end, "]"); };
    HEADLOOM_CHECK(entry.begin <= entry.end && entry.end <= data_bytes, path,
                   cat("tensor ", in_quotes(entry.name), " within the ", data_bytes,
                       " bytes after the header"),
                   found(), kDamaged);
    HEADLOOM_CHECK(entry.bytes() == bytes, path,
                   cat(bytes, " bytes for tensor ", in_quotes(entry.name), " of shape ",
                       shape_text(entry.shape)),
                   found(), kDamaged);
    sorted.push_back(&entry);
  }
  std::sort(sorted.begin(), sorted.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t position = 0;
  for (const TensorEntry* entry : sorted) {
    HEADLOOM_CHECK(entry->begin == position, path,
                   cat("tensor ", in_quotes(entry->name), " to begin at byte ", position,
                       ", where the one before it ends"),
                   cat("it at byte ", entry->begin), kDamaged);
    position = entry->end;
  }
  HEADLOOM_CHECK(position == data_bytes, path,
                 cat(position, " bytes after the header, as many as the tensors have"),
                 cat(data_bytes, " bytes"), kDamaged);
}

}  // namespace

SafetensorsHeader parse_header(const std::string& path, std::string_view text,
                               uint64_t data_bytes) {
  HEADLOOM_CHECK(!text.empty() && text.front() == '{', path, "a header that begins with {",
                 text.empty() ? "an empty one" : in_quotes(text.substr(0, 1)), kDamaged);
  // The parser takes a NUL for the end of its input.
  HEADLOOM_CHECK(text.find('\0') == text.npos, path, "a JSON object as the header",
                 cat("a NUL at byte ", text.find('\0'), " of it"), kDamaged);
  HeaderReader reader(path);
  Json::sax_parse(text.begin(), text.end(), &reader);
  SafetensorsHeader header = reader.take();
  check_spans(path, header, data_bytes);
  return header;
}

std::string format_header(const std::string& path, const SafetensorsHeader& header) {
  const auto text = [&](const std::string& value) {
    try {
      return Json(value).dump();
    } catch (const Json::exception&) {
      fail(path, "UTF-8 text in names and metadata", in_quotes(value));
    }
  };
  std::vector<std::string> parts;
  if (!header.metadata.empty()) {
    std::vector<std::string> items;
    for (const auto& [key, value] : header.metadata) {
      items.push_back(cat(text(key), ":", text(value)));
    }
    parts.push_back(cat('"', kMetadataKey, "\":{", join(items, ","), "}"));
  }
  std::unordered_set<std::string> names;
  for (const TensorEntry& entry : header.entries) {
    HEADLOOM_CHECK(entry.name != kMetadataKey, path, "a tensor name that the format leaves free",
                   in_quotes(entry.name));
    HEADLOOM_CHECK(names.insert(entry.name).second, path, "every tensor name once",
                   cat(in_quotes(entry.name), " again"));
    parts.push_back(cat(text(entry.name), ":{\"dtype\":\"",
                        dtype_name(path, entry.name, entry.dtype),
                        "\",\"shape\":", Json(entry.shape).dump(), ",\"data_offsets\":[",
                        entry.begin, ",", entry.end, "]}"));
  }
  return cat("{", join(parts, ","), "}");
}

std::string_view dtype_name(const std::string& path, const std::string& tensor,
                            at::ScalarType dtype) {
  for (const Dtype& known : kDtypes) {
    if (known.type == dtype) return known.name;
  }
  fail(path, cat("one of ", dtype_names(), " as the dtype of tensor ", in_quotes(tensor)),
       c10::toString(dtype));
}

std::string in_quotes(std::string_view name) {
  constexpr size_t kLongest = 80;
  const std::string shown(name.substr(0, kLongest));
  return Json(shown).dump(-1, ' ', false, Json::error_handler_t::replace) +
         (name.size() > kLongest ? "..." : "");
}

}  // namespace headloom::train
