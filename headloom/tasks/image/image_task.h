#pragma once

#include "headloom/tasks/image/image_data.h"
#include "headloom/tasks/sequence_task.h"

namespace headloom::tasks {

TaskEntry image_entry();

namespace image {

struct ImageOptions {
  Pooling pooling = Pooling::kClass;
  bool evaluate_on_test = false;
  bool mask_zeros = true;
  bool csv = false;    // else CIFAR-10
  std::string folder;  // of data_batch_*.bin and test_batch.bin, or of train.csv and test.csv
  int64_t pixels = kCifarPixels;
};

// Ten classes of grey pictures, a token a pixel by rows, 256 values; nothing tells the model that
// they have two dimensions. The last tenth of the training file is the validation split, as
// published.
class ImageTask : public SequenceTask {
 public:
  ImageTask(const TaskConfig& config, const ImageOptions& options);

  std::string name() const override { return "image"; }
  std::shared_ptr<Model> make_model(nn::TransformerConfig config) const override;
  int64_t typical_length() const override { return options_.pixels; }

 protected:
  Examples make_evaluation() const override;
  Examples make_training() const override;

 private:
  Examples read(bool training) const;

  ImageOptions options_;
};

}  // namespace image
}  // namespace headloom::tasks
