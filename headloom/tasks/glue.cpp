#include "headloom/tasks/glue.h"

#include <algorithm>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/tasks/files.h"
#include "headloom/text/lines.h"

namespace headloom::tasks {
namespace {

using Columns = std::vector<std::string>;

Columns columns_of(const std::string& line) {
  Columns columns;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find('\t', begin), line.size());
    columns.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return columns;
}

size_t column(const Columns& header, const std::string& name, const std::string& where) {
  const auto found = std::find(header.begin(), header.end(), name);
  HEADLOOM_CHECK(found != header.end(), where, cat("a header with the column \"", name, '"'),
                 excerpt(join(header, "\t")));
  return static_cast<size_t>(found - header.begin());
}

int64_t class_of(const std::string& label, const GlueFormat& format, const std::string& where) {
  const auto found = std::find(format.labels.begin(), format.labels.end(), label);
  HEADLOOM_CHECK(found != format.labels.end(), where, cat("a label among ", join(format.labels)),
                 excerpt(label));
  return found - format.labels.begin();
}

}  // namespace

const std::vector<GlueFormat>& glue_formats() {
  static const std::vector<GlueFormat> all = {
      {"sst2", {"sentence"}, "label", {"0", "1"}, {"negative", "positive"}},
      {"mrpc", {"#1 String", "#2 String"}, "Quality", {"0", "1"}, {"not_equivalent", "equivalent"}},
      {"rte",
       {"sentence1", "sentence2"},
       "label",
       {"not_entailment", "entailment"},
       {"not_entailment", "entailment"}},
  };
  return all;
}

std::vector<ClassifiedTexts> load_glue(const std::filesystem::path& path,
                                       const GlueFormat& format) {
  text::LineReader lines(text::source_of(read_file(path)), path.string());
  std::string line;
  HEADLOOM_CHECK(lines.next(line), path.string(), "a header and rows", "an empty file");
  const Columns header = columns_of(line);
  const std::string first = cat(path.string(), ":1");
  const size_t label = column(header, format.label, first);
  std::vector<size_t> places;
  for (const std::string& name : format.sentences) places.push_back(column(header, name, first));

  std::vector<ClassifiedTexts> rows;
  while (lines.next(line)) {
    const std::string where = cat(path.string(), ':', lines.number());
    const Columns columns = columns_of(line);
    HEADLOOM_CHECK(columns.size() == header.size(), where,
                   cat(header.size(), " columns, as in the header"),
                   cat(columns.size(), " in ", excerpt(line)));
    ClassifiedTexts& row = rows.emplace_back();
    for (const size_t place : places) row.sentences.push_back(columns[place]);
    row.label = class_of(columns[label], format, where);
  }
  HEADLOOM_CHECK(!rows.empty(), path.string(), "rows below the header", "none");
  return rows;
}

const char* const kGlueHelp =
    "format (sst2): sst2, mrpc or rte\n"
    "train_file, validation_file (required): GLUE's train.tsv and dev.tsv\n"
    "max_length (128): tokens, special ones included; longer texts are cut\n"
    "metric (accuracy): accuracy, f1 or matthews, by which runs are compared\n"
    "bucket_batches (16): batches whose rows are sorted by length together; 1 does not sort\n";

GlueOptions read_glue_options(OptionReader& reader) {
  GlueOptions options;
  std::vector<std::string> names;
  for (const GlueFormat& format : glue_formats()) names.push_back(format.name);
  const std::string name = reader.choice("format", names[0], names);
  options.format = *std::find_if(glue_formats().begin(), glue_formats().end(),
                                 [&](const GlueFormat& format) { return format.name == name; });
  options.train_file = reader.text("train_file", options.train_file);
  options.validation_file = reader.text("validation_file", options.validation_file);
  options.max_length = reader.integer("max_length", options.max_length);
  options.bucket_batches = reader.integer("bucket_batches", options.bucket_batches);
  options.metric = reader.choice("metric", options.metric, {"accuracy", "f1", "matthews"});
  return options;
}

void check_glue_options(const GlueOptions& options, const std::string& where) {
  HEADLOOM_CHECK(!options.train_file.empty(), where, "train_file", "none");
  HEADLOOM_CHECK(!options.validation_file.empty(), where, "validation_file", "none");
  HEADLOOM_CHECK(options.bucket_batches >= 1, where, "bucket_batches of at least 1",
                 cat(options.bucket_batches));
  // Three special tokens and a token of each sentence.
  HEADLOOM_CHECK(options.max_length >= 8, where, "max_length of at least 8",
                 cat(options.max_length));
}

GlueRows load_glue(const GlueOptions& options, const TaskConfig& config) {
  const auto load = [&](const std::string& file) {
    return load_glue(resolve(config.base_folder, file), options.format);
  };
  return {load(options.train_file), load(options.validation_file)};
}

void add_sentences(const std::vector<ClassifiedTexts>& rows, text::TokenizerTrainer& trainer) {
  for (const ClassifiedTexts& row : rows) {
    for (const std::string& sentence : row.sentences) trainer.add(sentence);
  }
}

void cut_longer(std::vector<int64_t>& first, std::vector<int64_t>& second, size_t room) {
  while (first.size() + second.size() > room) {
    (first.size() > second.size() ? first : second).pop_back();
  }
}

}  // namespace headloom::tasks
