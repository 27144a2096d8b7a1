#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "headloom/tasks/task.h"
#include "headloom/tasks/vocabularies.h"

namespace headloom::tasks {

// Translates lines of text: tokens, batches of similar lengths, beam search, text again. On the
// processor each thread decodes batches of its own.
class Translator {
 public:
  // `model` and `vocabularies` outlive the translator.
  Translator(nn::EncoderDecoder& model, const Vocabularies& vocabularies,
             const TranslateOptions& options);

  // As TextTranslator::translate(); nothing when `stop` says so between two batches; any
  // thread may ask it, one at a time.
  std::optional<std::vector<std::vector<Translation>>> operator()(
      const std::vector<std::string>& lines, int64_t first_line,
      const std::function<bool()>& stop) const;

 private:
  struct Sentence {
    size_t line = 0;  // among the lines
    std::vector<int64_t> source, prefix;
  };
  struct Part {
    size_t begin, end;  // of the sentences, in their order
  };
  std::vector<Sentence> sentences_of(const std::vector<std::string>& lines,
                                     int64_t first_line) const;
  std::vector<Translation> texts_of(const std::vector<nn::Hypothesis>& hypotheses) const;
  std::vector<Part> batches_of(const std::vector<Sentence>& sentences) const;
  // In one batch, or in halves where memory does not suffice.
  void translate(const std::vector<Sentence>& sentences, Part batch,
                 std::vector<std::vector<Translation>>& results) const;

  nn::EncoderDecoder& model_;
  const Vocabularies& vocabularies_;
  const TranslateOptions& options_;
  nn::TargetTokens tokens_;
  at::Device device_;
};

// As TextTranslator::translate(), by a model of encoder_decoder_model.h.
std::vector<std::vector<Translation>> translate_lines(Model& model,
                                                      const Vocabularies& vocabularies,
                                                      const std::vector<std::string>& lines,
                                                      const TranslateOptions& options,
                                                      int64_t first_line);

}  // namespace headloom::tasks
