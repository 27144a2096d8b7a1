#include "headloom/tasks/translator.h"

#include <algorithm>
#include <mutex>

#include "headloom/base/check.h"
#include "headloom/base/parallel.h"
#include "headloom/nn/evaluation_mode.h"
#include "headloom/tasks/encoder_decoder_model.h"
#include "headloom/tasks/files.h"

namespace headloom::tasks {
namespace {

// One line is one translation, whatever the model writes. Tokenizers may put a space before the
// first word.
std::string line_of(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  const size_t begin = text.find_first_not_of(' ');
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

}  // namespace

Translator::Translator(nn::EncoderDecoder& model, const Vocabularies& vocabularies,
                       const TranslateOptions& options)
    : model_(model),
      vocabularies_(vocabularies),
      options_(options),
      tokens_{vocabularies.target_begin, vocabularies.target_end, vocabularies.never},
      device_(model.parameters().front().device()) {
  HEADLOOM_CHECK(options.batch_tokens >= 1, "translate", "batch_tokens of at least 1",
                 cat(options.batch_tokens));
}

std::vector<Translator::Sentence> Translator::sentences_of(const std::vector<std::string>& lines,
                                                           int64_t first_line) const {
  const int64_t room = model_.config().max_length - 1;  // the end takes a position
  const auto& prefixes = options_.prefixes;
  HEADLOOM_CHECK(prefixes.empty() || prefixes.size() == lines.size(), "translate",
                 cat("a prefix for each of ", lines.size(), " lines, or none"),
                 cat(prefixes.size()));
  std::vector<Sentence> sentences;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    Sentence sentence;
    sentence.line = i;
    sentence.source = vocabularies_.source->encode(lines[i]);
    const auto length = static_cast<int64_t>(sentence.source.size());
    if (length > room) {
      HEADLOOM_CHECK(options_.crop, cat("line ", first_line + static_cast<int64_t>(i)),
                     cat("at most ", room, " tokens, which this model holds"),
                     cat(length, " in ", excerpt(lines[i])), "Split the line, or crop it.");
      sentence.source.resize(room);
    }
    if (!prefixes.empty() && !prefixes[i].empty())
      sentence.prefix = vocabularies_.target->encode(prefixes[i]);
    sentences.push_back(std::move(sentence));
  }
  std::stable_sort(sentences.begin(), sentences.end(), [](const Sentence& a, const Sentence& b) {
    return a.source.size() > b.source.size();
  });
  return sentences;
}

std::vector<Translation> Translator::texts_of(const std::vector<nn::Hypothesis>& hypotheses) const {
  std::vector<Translation> texts;
  for (const nn::Hypothesis& hypothesis : hypotheses) {
    texts.push_back({line_of(vocabularies_.target->decode(hypothesis.tokens)), hypothesis.score});
  }
  return texts;
}

void Translator::translate(const std::vector<Sentence>& sentences, Part batch,
                           std::vector<std::vector<Translation>>& results) const {
  const auto [begin, end] = batch;
  std::vector<std::vector<int64_t>> rows, prefixes;
  for (size_t i = begin; i < end; ++i) {
    rows.push_back(sentences[i].source);
    prefixes.push_back(sentences[i].prefix);
  }
  const auto [source, padding] = source_batch(rows, vocabularies_);
  try {
    const auto found = nn::beam_search(model_, source.to(device_),
                                       padding.defined() ? padding.to(device_) : padding, tokens_,
                                       options_.beam, prefixes);
    for (size_t i = begin; i < end; ++i) {
      results[sentences[i].line] = texts_of(found[i - begin]);
    }
    return;
  } catch (const c10::OutOfMemoryError&) {
    if (end - begin == 1) throw;
  }
  const size_t middle = begin + (end - begin) / 2;
  translate(sentences, {begin, middle}, results);
  translate(sentences, {middle, end}, results);
}

std::vector<Translator::Part> Translator::batches_of(const std::vector<Sentence>& sentences) const {
  std::vector<Part> batches;
  for (size_t begin = 0; begin < sentences.size(); begin = batches.back().end) {
    // The first is the longest.
    const int64_t row = (static_cast<int64_t>(sentences[begin].source.size()) + 1) *
                        std::max<int64_t>(1, options_.beam.beam);
    const auto count = static_cast<size_t>(std::max<int64_t>(1, options_.batch_tokens / row));
    batches.push_back({begin, std::min(sentences.size(), begin + count)});
  }
  return batches;
}

std::optional<std::vector<std::vector<Translation>>> Translator::operator()(
    const std::vector<std::string>& lines, int64_t first_line,
    const std::function<bool()>& stop) const {
  const std::vector<Sentence> sentences = sentences_of(lines, first_line);
  const std::vector<Part> batches = batches_of(sentences);
  std::vector<std::vector<Translation>> results(lines.size(), {Translation{}});
  // Of all batches, so that none of them changes it while another decodes.
  const nn::EvaluationMode evaluation(model_);
  std::mutex mutex;
  size_t begun = 0;
  bool stopped = false;
  const auto next = [&]() -> const Part* {
    const std::lock_guard lock(mutex);
    stopped = stopped || (begun < batches.size() && stop());
    return stopped || begun == batches.size() ? nullptr : &batches[begun++];
  };
  const auto work = [&](int64_t, int64_t) {
    while (const Part* batch = next()) translate(sentences, *batch, results);
  };
  // Decoding is many small products: a thread gains more from a batch of its own than from a share
  // of each product.
  if (device_.is_cpu()) {
    parallel_for(0, thread_count(), 1, work);
  } else {
    work(0, 1);
  }
  if (stopped) return std::nullopt;
  return results;
}

std::vector<std::vector<Translation>> translate_lines(Model& model,
                                                      const Vocabularies& vocabularies,
                                                      const std::vector<std::string>& lines,
                                                      const TranslateOptions& options,
                                                      int64_t first_line) {
  const Translator translator(encoder_decoder_of(model), vocabularies, options);
  return *translator(lines, first_line, [] { return false; });
}

}  // namespace headloom::tasks
