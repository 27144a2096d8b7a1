#include "headloom/base/check.h"
#include "headloom/tasks/translation/translation_task.h"

namespace headloom::tasks {
namespace translation {
namespace {

nn::BeamOptions read_beam(OptionReader& reader) {
  nn::BeamOptions beam;
  beam.beam = reader.integer("beam", beam.beam);
  beam.length_penalty = reader.choice("length_penalty", "average", {"average", "gnmt"}) == "gnmt"
                            ? nn::LengthPenalty::kGnmt
                            : nn::LengthPenalty::kAverage;
  beam.alpha = reader.number("length_alpha", beam.alpha);
  beam.length_ratio = reader.number("length_ratio", 2.0);
  beam.length_extra = reader.integer("length_extra", 20);
  beam.no_repeat_ngram = reader.integer("no_repeat_ngram", beam.no_repeat_ngram);
  return beam;
}

text::BleuOptions read_bleu(OptionReader& reader) {
  text::BleuOptions bleu;
  bleu.tokenizer = reader.choice("bleu_tokenizer", "13a", {"13a", "none"}) == "none"
                       ? text::BleuTokenizer::kNone
                       : text::BleuTokenizer::k13a;
  bleu.split_compounds = reader.boolean("split_compounds", bleu.split_compounds);
  bleu.lowercase = reader.boolean("bleu_lowercase", bleu.lowercase);
  return bleu;
}

TranslationOptions read_options(OptionReader& reader) {
  TranslationOptions options;
  for (const auto& [key, path] : std::vector<std::pair<const char*, std::string*>>{
           {"tokenizer", &options.tokenizer},
           {"source_tokenizer", &options.source_tokenizer},
           {"target_tokenizer", &options.target_tokenizer},
           {"train_source", &options.train_source},
           {"train_target", &options.train_target},
           {"validation_source", &options.validation_source},
           {"validation_target", &options.validation_target},
           {"test_source", &options.test_source},
           {"test_target", &options.test_target}}) {
    *path = reader.text(key, "");
  }
  options.vocabulary = reader.integer("vocabulary", options.vocabulary);
  options.evaluate_on_test =
      reader.choice("evaluate_on", "validation", {"validation", "test"}) == "test";
  options.max_tokens = reader.integer("max_tokens", options.max_tokens);
  options.longest = reader.integer("longest", options.longest);
  options.label_smoothing = reader.number("label_smoothing", options.label_smoothing);
  options.share_embeddings = reader.boolean("share_embeddings", !options.tokenizer.empty());
  options.tie_output = reader.boolean("tie_output", options.tie_output);
  options.beam = read_beam(reader);
  options.bleu = read_bleu(reader);
  reader.done();
  return options;
}

}  // namespace
}  // namespace translation

TaskEntry translation_entry() {
  TaskEntry entry;
  entry.name = "translation";
  entry.summary = "sentences of one language into another, by an encoder-decoder model; translates";
  entry.options =
      "tokenizer: tokenizer.json of both languages; or\n"
      "source_tokenizer, target_tokenizer: one each\n"
      "vocabulary (0): tokens of byte-level BPE to learn from the training text when a tokenizer "
      "is\n"
      "  not there; 0: it must be there\n"
      "train_source, train_target, validation_source, validation_target, test_source, "
      "test_target:\n"
      "  text files, a sentence a line\n"
      "evaluate_on (validation): validation or test\n"
      "max_tokens (4096): of a batch, padding included; 0: batches of train.batch_size pairs\n"
      "longest (250): training leaves out pairs with more tokens on a side\n"
      "label_smoothing (0.1)\n"
      "share_embeddings (true with a joint tokenizer): one table for source and target\n"
      "tie_output (true): one matrix for the target's embedding and the output\n"
      "beam (5), no_repeat_ngram (0): of the search\n"
      "length_penalty (average): scores are divided by L^a; gnmt: by ((5 + L) / 6)^a\n"
      "length_alpha (1.0): a\n"
      "length_ratio (2.0), length_extra (20): a translation of S tokens has at most\n"
      "  length_ratio S + length_extra\n"
      "bleu_tokenizer (13a): 13a or none, for text that is tokenised already\n"
      "split_compounds (false), bleu_lowercase (false): before BLEU";
  entry.make = [](const TaskConfig& config, OptionReader& reader) -> std::unique_ptr<Task> {
    return std::make_unique<translation::TranslationTask>(config,
                                                          translation::read_options(reader));
  };
  entry.encoder_decoder = true;
  return entry;
}

}  // namespace headloom::tasks
