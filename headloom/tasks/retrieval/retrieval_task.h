#pragma once

#include "headloom/tasks/sequence_task.h"

namespace headloom::tasks {

TaskEntry retrieval_entry();

namespace retrieval {

struct RetrievalOptions {
  Pooling pooling = Pooling::kFirst;
  bool interactions = false;
  bool evaluate_on_test = false;
  std::string train_file, validation_file, test_file;
  int64_t max_length = 4000;  // bytes of each text; longer ones are cut
  int64_t bucket_batches = 16;
};

// Does one paper cite the other? Pairs of texts, read byte by byte: token = byte + 1, 0 is padding.
// Files in the published form: class, two names, two texts, with tabs between.
class RetrievalTask : public SequenceTask {
 public:
  RetrievalTask(const TaskConfig& config, const RetrievalOptions& options);

  std::string name() const override { return "retrieval"; }
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

 protected:
  Examples make_evaluation() const override;
  Examples make_training() const override { return read("train_file", options_.train_file); }

 private:
  Examples read(const char* key, const std::string& file) const;

  RetrievalOptions options_;
};

}  // namespace retrieval
}  // namespace headloom::tasks
