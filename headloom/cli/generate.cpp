#include "headloom/nn/generate.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <iterator>

#include "headloom/base/check.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"
#include "headloom/cli/text_stream.h"
#include "headloom/train/run.h"

// B samples, T tokens.
namespace headloom::cli {
namespace {

constexpr int64_t kDefaultLength = 200;

struct Arguments {
  std::string folder, weights;
  std::optional<std::string> prompt;
  std::optional<int64_t> length;
  nn::SamplingOptions sampling;
  int64_t samples = 1;
};

void check_arguments(const Arguments& arguments) {
  const nn::SamplingOptions& sampling = arguments.sampling;
  HEADLOOM_CHECK(sampling.temperature >= 0.0, "generate", "--temperature from 0 on",
                 cat(sampling.temperature));
  HEADLOOM_CHECK(sampling.top_k >= 0, "generate", "--top-k from 0 on", cat(sampling.top_k));
  HEADLOOM_CHECK(sampling.top_p > 0.0 && sampling.top_p <= 1.0, "generate",
                 "--top-p above 0 and at most 1", cat(sampling.top_p));
  HEADLOOM_CHECK(arguments.samples >= 1, "generate", "--samples from 1 on", cat(arguments.samples));
  HEADLOOM_CHECK(arguments.length.value_or(1) >= 1, "generate", "--length from 1 on",
                 cat(*arguments.length));
}

std::string read_prompt(const Arguments& arguments) {
  if (arguments.prompt) return *arguments.prompt;
  HEADLOOM_CHECK(!::isatty(STDIN_FILENO), "generate", "--prompt or text on standard input",
                 "neither", "Give --prompt TEXT.");
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  // Shells end lines; a model would take the line break for a part of the text.
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

std::vector<int64_t> row_of(const at::Tensor& tokens, int64_t row) {
  const at::Tensor line = tokens[row].to(at::kCPU, at::kLong).contiguous();  // [T]
  const int64_t* begin = line.const_data_ptr<int64_t>();
  return {begin, begin + line.numel()};
}

// One text, printed as it is made.
void stream_text(nn::LanguageModel& model, const tasks::TextGenerator& text,
                 const std::vector<int64_t>& prompt, const at::Tensor& prompts, int64_t length,
                 const nn::SamplingOptions& sampling) {
  TextStream stream([&](const std::vector<int64_t>& tokens) { return text.decode(tokens); }, print);
  for (const int64_t token : prompt) stream.add(token);
  stream.flush();
  nn::generate(model, prompts, length, sampling, [&](const at::Tensor& column) {
    stream.add(column[0].item<int64_t>());
    stream.flush();
    return true;
  });
  stream.end();
  print("\n");
}

int generate_command(const Arguments& arguments) {
  check_arguments(arguments);
  const std::string prompt = read_prompt(arguments);
  const train::LoadedRun run = train::load_run(arguments.folder, {}, arguments.weights);
  const auto* text = dynamic_cast<const tasks::TextGenerator*>(run.task.get());
  HEADLOOM_CHECK(text, "generate", "a run of a task that writes text",
                 cat("task ", run.task->name()), "Train a language model.");
  const std::vector<int64_t> tokens = text->encode(prompt);
  HEADLOOM_CHECK(!tokens.empty(), "generate", "a prompt of at least one token", "an empty prompt",
                 "Give --prompt TEXT.");
  nn::LanguageModel& model = text->language_model(*run.model);
  const int64_t length = arguments.length.value_or(kDefaultLength);
  const at::Device device = run.model->parameters().front().device();
  const at::Tensor prompts = at::tensor(tokens, at::kLong)
                                 .unsqueeze(0)
                                 .repeat({arguments.samples, 1})
                                 .to(device);  // [B, T]
  if (arguments.samples == 1) {
    stream_text(model, *text, tokens, prompts, length, arguments.sampling);
    return kDone;
  }
  const at::Tensor all = nn::generate(model, prompts, length, arguments.sampling);
  for (int64_t row = 0; row < arguments.samples; ++row) {
    print(cat("--- ", row + 1, "\n", text->decode(row_of(all, row)), "\n"));
  }
  return kDone;
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "generate", "Continue a text with the language model of a run.",
      {"headloom generate runs/text --prompt \"Once upon\" --length 300",
       "headloom generate runs/text --prompt Once --temperature 0",
       "echo \"To be\" | headloom generate runs/text --top-k 40 --top-p 0.9 --seed 7 --samples 3"});
  const auto arguments = std::make_shared<Arguments>();
  nn::SamplingOptions& sampling = arguments->sampling;
  command->add_option("FOLDER", arguments->folder, "Folder of a run")->required();
  command->add_option("--prompt", arguments->prompt, "Text to continue (default: standard input)");
  command->add_option("--weights", arguments->weights,
                      "best, newest or a safetensors file (default: best)");
  command->add_option("--length", arguments->length,
                      cat("Tokens to add (default: ", kDefaultLength, ")"));
  command->add_option("--temperature", sampling.temperature, "0 takes the most probable token")
      ->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "Choose among the k most probable; 0: among all")
      ->capture_default_str();
  command
      ->add_option("--top-p", sampling.top_p,
                   "Choose among the most probable that together reach p")
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "Of the random numbers")->capture_default_str();
  command->add_option("--samples", arguments->samples, "Texts to make")->capture_default_str();
  command->callback(
      [arguments, &action] { action = [arguments] { return generate_command(*arguments); }; });
}

}  // namespace headloom::cli
