#pragma once

#include <memory>
#include <string>
#include <vector>

#include "headloom/tasks/task.h"
#include "headloom/tasks/tokenizer_options.h"

namespace headloom::tasks {

// Where a task that is trained on running text finds it.
struct CorpusOptions {
  std::string path;              // a text file or a folder of them
  std::string validation_path;   // empty: the last lines of path
  double train_fraction = 0.9;   // of the lines, without a validation_path
  int64_t validation_limit = 0;  // windows that are used; 0 uses all
  TokenizerOptions tokenizer;
};

// The lines that describe the options in `headloom list`, but for the tokenizer's.
extern const char* const kCorpusHelp;
CorpusOptions read_corpus_options(OptionReader& reader, const std::string& where);
// Refuses a missing path and shares out of range. `where` starts the messages.
void check_corpus_options(const CorpusOptions& options, const std::string& where);

// Running text as tokens, and windows of it. The lines of a text, but for blank ones, follow each
// other, each with the tokenizer's end token. Training windows start anywhere, uniformly;
// validation windows do not overlap, and what does not fill one is left out.
struct TokenStreams {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::vector<int32_t> train, validation;
  int64_t window = 0;   // tokens
  int64_t windows = 0;  // of the validation; number n starts at n * window
};

// Refuses streams shorter than a window, and a tokenizer without an end.
TokenStreams read_streams(const CorpusOptions& options, const TaskConfig& config, int64_t window,
                          const std::string& where);

// Where the windows of a training batch start.
std::vector<int64_t> train_starts(const TokenStreams& streams, const TaskConfig& config,
                                  int64_t index);
int64_t validation_batches(const TokenStreams& streams, const TaskConfig& config);
// The numbers of the windows of a validation batch. Refuses an index out of range.
std::vector<int64_t> validation_windows(const TokenStreams& streams, const TaskConfig& config,
                                        int64_t index, const std::string& where);

// Seeds what is drawn for the validation of every run, so that all are measured on the same tokens.
constexpr uint64_t kValidationSeed = 1;

}  // namespace headloom::tasks
