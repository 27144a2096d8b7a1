#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "headloom/tasks/task.h"
#include "headloom/text/tokenizer_trainer.h"

namespace headloom::tasks {

// A file shape of GLUE (Wang et al., 2019): where the sentences and the label of a row are.
struct GlueFormat {
  std::string name;                    // as recipes write it
  std::vector<std::string> sentences;  // columns by the names in the header, one or two
  std::string label;                   // the same
  std::vector<std::string> labels;     // by class; class 1 is the positive one
  std::vector<std::string> words;      // what T5 calls the classes (Raffel et al., 2020, app. D)
  bool pairs() const { return sentences.size() == 2; }
};

// sst2, mrpc and rte.
const std::vector<GlueFormat>& glue_formats();

// Reads a file: a header, then a row a line, columns with tabs between, nothing quoted: a quotation
// mark is an ordinary character. Lines and bytes by the rules of text/lines.h. Refuses, with file
// and line, a header without the columns of the format, rows with another number of columns than
// the header, and unknown labels; also a file without rows.
std::vector<ClassifiedTexts> load_glue(const std::filesystem::path& path, const GlueFormat& format);

// What the tasks of GLUE's files say of their data.
struct GlueOptions {
  GlueFormat format;
  std::string train_file, validation_file;
  int64_t max_length = 128;  // tokens, special ones included
  int64_t bucket_batches = 16;
  std::string metric = "accuracy";  // the main one of binary_metrics.h
};

// The lines that describe the options in `headloom list`.
extern const char* const kGlueHelp;
GlueOptions read_glue_options(OptionReader& reader);
// Refuses missing files and sizes out of their ranges. `where` starts the messages.
void check_glue_options(const GlueOptions& options, const std::string& where);

struct GlueRows {
  std::vector<ClassifiedTexts> train, validation;
};
GlueRows load_glue(const GlueOptions& options, const TaskConfig& config);
// Adds all sentences, for a tokenizer to learn from.
void add_sentences(const std::vector<ClassifiedTexts>& rows, text::TokenizerTrainer& trainer);

// Cuts the longer one at its end until both together have at most `room` ids.
void cut_longer(std::vector<int64_t>& first, std::vector<int64_t>& second, size_t room);

}  // namespace headloom::tasks
