#include "tests/support/golden.h"

#include <ATen/ATen.h>

#include <fstream>

#include "headloom/base/check.h"

namespace headloom::testing {
namespace {

using at::Tensor;

class Reader {
 public:
  explicit Reader(const std::string& file)
      : name_(file), stream_(cat(HEADLOOM_SOURCE_DIR, "/tests/golden/", file)) {
    HEADLOOM_CHECK(stream_.good(), "golden values", cat("a file tests/golden/", file), "none");
  }

  bool next(std::string& word) { return static_cast<bool>(stream_ >> word); }
  std::string word() { return value<std::string>(); }

  template <class T>
  T value() {
    T result;
    HEADLOOM_CHECK(stream_ >> result, name_, "a value", "something else, or the end");
    return result;
  }

  // Number of axes, sizes, values.
  Tensor tensor() {
    std::vector<int64_t> sizes(value<size_t>());
    for (int64_t& size : sizes) size = value<int64_t>();
    const Tensor result = at::zeros(sizes, at::kDouble);
    double* out = result.data_ptr<double>();
    for (int64_t i = 0; i < result.numel(); ++i) out[i] = value<double>();
    return result;
  }

 private:
  std::string name_;
  std::ifstream stream_;
};

void add(Golden& golden, const std::string& name, const Tensor& tensor, bool differentiable) {
  Input input = plain(name, tensor.sizes().vec());
  input.differentiable = differentiable;
  golden.inputs.push_back(input);
  golden.arguments.set(name, tensor);
}

void read_entry(Reader& in, const std::string& what, Golden& golden) {
  if (what == "grad") {
    golden.grad_outputs.push_back(in.tensor());
    return;
  }
  const std::string name = in.word();
  Options& options = golden.arguments.options;
  if (what == "flag") {
    options[name] = in.value<int>() != 0;
  } else if (what == "number") {
    options[name] = in.value<double>();
  } else if (what == "integer") {
    options[name] = in.value<int64_t>();
  } else if (what == "text") {
    options[name] = in.word();
  } else if (what == "float") {
    add(golden, name, in.tensor(), true);
  } else if (what == "mask") {
    add(golden, name, in.tensor().to(at::kBool), false);
  } else if (what == "integers") {
    add(golden, name, in.tensor().to(at::kLong), false);
  } else {
    HEADLOOM_CHECK(what == "expect", "golden values", "an entry of golden.h", what);
    golden.expected[name] = in.tensor();
  }
}

}  // namespace

std::vector<Golden> read_golden(const std::string& file) {
  Reader in(file);
  std::vector<Golden> all;
  for (std::string word; in.next(word);) {
    if (word == "case") {
      all.emplace_back();
      all.back().id = in.word();
      continue;
    }
    HEADLOOM_CHECK(!all.empty(), file, "case first", word);
    read_entry(in, word, all.back());
  }
  HEADLOOM_CHECK(!all.empty(), file, "at least one case", "none");
  for (Golden& golden : all) golden.arguments = on_device(golden.arguments, test_device());
  return all;
}

}  // namespace headloom::testing
