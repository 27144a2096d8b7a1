#pragma once

#include "headloom/tasks/sequence_task.h"

namespace headloom::tasks {

TaskEntry byte_text_entry();

namespace byte_text {

struct ByteTextOptions {
  Pooling pooling = Pooling::kClass;
  std::string train_file, validation_file;
  int64_t max_length = 1000;  // bytes; longer texts are cut
  int64_t bucket_batches = 16;
};

// Two classes of texts, read byte by byte: token = byte + 1, 0 is padding. A row of the files is a
// class, anything, and a text (labelled_bytes.h).
class ByteTextTask : public SequenceTask {
 public:
  ByteTextTask(const TaskConfig& config, const ByteTextOptions& options);

  std::string name() const override { return "byte_text"; }
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;

 protected:
  Examples make_evaluation() const override { return read(options_.validation_file); }
  Examples make_training() const override { return read(options_.train_file); }

 private:
  Examples read(const std::string& file) const;

  ByteTextOptions options_;
};

}  // namespace byte_text
}  // namespace headloom::tasks
