#include "headloom/tasks/token_streams.h"

#include <algorithm>
#include <numeric>

#include "headloom/base/check.h"
#include "headloom/tasks/corpus.h"
#include "headloom/tasks/files.h"
#include "headloom/tasks/random.h"
#include "headloom/text/lines.h"

namespace headloom::tasks {
namespace {

using Lines = std::vector<std::string>;

Lines read_lines(const std::filesystem::path& path) {
  text::LineReader reader(text::source_of(read_corpus(path)), path.string());
  Lines lines;
  for (std::string line; reader.next(line);) {
    if (line.find_first_not_of(" \t") != std::string::npos) lines.push_back(line);
  }
  return lines;
}

std::vector<int32_t> stream_of(const Lines& lines, const text::Tokenizer& tokenizer, int64_t end) {
  std::vector<int32_t> stream;
  for (const std::string& line : lines) {
    const std::vector<int64_t> ids = tokenizer.encode(line);
    if (ids.empty()) continue;
    stream.insert(stream.end(), ids.begin(), ids.end());
    stream.push_back(static_cast<int32_t>(end));
  }
  return stream;
}

}  // namespace

const char* const kCorpusHelp =
    "path (required): a text file, or a folder whose files are read in the order of their paths\n"
    "validation_path (none): the same, for validation\n"
    "train_fraction (0.9): without a validation_path, the first lines, for training\n"
    "validation_limit (0): validation sequences that are used; 0 uses all\n";

CorpusOptions read_corpus_options(OptionReader& reader, const std::string& where) {
  CorpusOptions options;
  options.path = reader.text("path", options.path);
  options.validation_path = reader.text("validation_path", options.validation_path);
  if (options.validation_path.empty()) {
    options.train_fraction = reader.number("train_fraction", options.train_fraction);
  }
  options.validation_limit = reader.integer("validation_limit", options.validation_limit);
  options.tokenizer = read_tokenizer_options(reader, where);
  return options;
}

void check_corpus_options(const CorpusOptions& options, const std::string& where) {
  HEADLOOM_CHECK(!options.path.empty(), where, "path, a text file or a folder of them", "none");
  HEADLOOM_CHECK(options.train_fraction > 0.0 && options.train_fraction < 1.0, where,
                 "train_fraction between 0 and 1, both excluded", cat(options.train_fraction));
  HEADLOOM_CHECK(options.validation_limit >= 0, where, "validation_limit of at least 0",
                 cat(options.validation_limit));
}

TokenStreams read_streams(const CorpusOptions& options, const TaskConfig& config, int64_t window,
                          const std::string& where) {
  const std::filesystem::path path = resolve(config.base_folder, options.path);
  Lines train = read_lines(path), validation;
  if (options.validation_path.empty()) {
    const auto kept =
        static_cast<size_t>(static_cast<double>(train.size()) * options.train_fraction);
    validation.assign(train.begin() + static_cast<std::ptrdiff_t>(kept), train.end());
    train.resize(kept);
  } else {
    validation = read_lines(resolve(config.base_folder, options.validation_path));
  }
  TokenStreams streams;
  streams.tokenizer = std::make_shared<const text::Tokenizer>(open_tokenizer(
      options.tokenizer, config,
      [&](text::TokenizerTrainer& trainer) {
        for (const std::string& line : train) trainer.add(line);
      },
      where));
  const int64_t end = streams.tokenizer->need_id(text::Tokenizer::Role::kEnd, where);
  streams.train = stream_of(train, *streams.tokenizer, end);
  streams.validation = stream_of(validation, *streams.tokenizer, end);
  const auto shortest =
      static_cast<int64_t>(std::min(streams.train.size(), streams.validation.size()));
  HEADLOOM_CHECK(shortest >= window, path.string(),
                 cat("at least ", window, " tokens for training and as many for validation"),
                 cat(streams.train.size(), " and ", streams.validation.size()),
                 "Give a longer text, or lower task.context.");
  streams.window = window;
  streams.windows = static_cast<int64_t>(streams.validation.size()) / window;
  if (options.validation_limit > 0) {
    streams.windows = std::min(streams.windows, options.validation_limit);
  }
  return streams;
}

std::vector<int64_t> train_starts(const TokenStreams& streams, const TaskConfig& config,
                                  int64_t index) {
  RandomStream places(config.seed, Purpose::kWindows, static_cast<uint64_t>(index));
  const auto count = static_cast<int64_t>(streams.train.size()) - streams.window + 1;
  std::vector<int64_t> starts(config.batch_size);
  for (int64_t& start : starts) {
    start = static_cast<int64_t>(places.below(static_cast<uint64_t>(count)));
  }
  return starts;
}

int64_t validation_batches(const TokenStreams& streams, const TaskConfig& config) {
  return (streams.windows + config.batch_size - 1) / config.batch_size;
}

std::vector<int64_t> validation_windows(const TokenStreams& streams, const TaskConfig& config,
                                        int64_t index, const std::string& where) {
  const int64_t batches = validation_batches(streams, config);
  HEADLOOM_CHECK(index >= 0 && index < batches, where, cat("a validation batch below ", batches),
                 cat(index));
  const int64_t first = index * config.batch_size;
  std::vector<int64_t> windows(std::min(config.batch_size, streams.windows - first));
  std::iota(windows.begin(), windows.end(), first);
  return windows;
}

}  // namespace headloom::tasks
