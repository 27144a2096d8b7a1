#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <regex>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/cli/app.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"
#include "headloom/cli/run_report.h"
#include "headloom/report/report.h"
#include "headloom/train/checkpoint.h"

namespace headloom::cli {
namespace {

namespace fs = std::filesystem;

std::string shape_of(const at::Tensor& tensor) {
  std::string text;
  for (const int64_t size : tensor.sizes()) text += cat(text.empty() ? "" : ", ", size);
  return '[' + text + ']';
}

std::string type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return "float64";
    case at::kFloat:
      return "float32";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kLong:
      return "int64";
    default:
      return c10::toString(tensor.scalar_type());
  }
}

report::Table tensor_table(const std::string& title, const train::NamedTensors& tensors) {
  report::Table table{title, {"tensor", "shape", "type", "bytes"}, {}, ""};
  int64_t elements = 0, bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    elements += tensor.numel();
    bytes += static_cast<int64_t>(tensor.nbytes());
    table.rows.push_back({name, shape_of(tensor), type_of(tensor),
                          with_commas(static_cast<int64_t>(tensor.nbytes()))});
  }
  table.note = cat(with_commas(static_cast<int64_t>(tensors.size())), " tensors, ",
                   with_commas(elements), " elements, ", with_commas(bytes), " bytes");
  return table;
}

std::string mixer_of_part(const train::Recipe& recipe, const std::string& part) {
  const tasks::EncoderDecoderParts& parts = recipe.parts;
  if (part == "decoder across") {
    return parts.cross_mixer.name.empty() ? "dot_product" : parts.cross_mixer.name;
  }
  const std::string& stated =
      part == "encoder" ? parts.encoder_mixer.name : parts.decoder_mixer.name;
  return stated.empty() ? recipe.model.mixer : stated;
}

// The mixers of each layer, with what they learn.
report::Table layer_table(const train::Recipe& recipe, const train::NamedTensors& model) {
  static const std::regex pattern(
      "(?:.*\\.)?(blocks|encoder|decoder)\\.([0-9]+)\\.(mixer|cross)\\..*");
  std::map<std::pair<std::string, int64_t>, int64_t> elements;
  for (const auto& [name, tensor] : model) {
    std::smatch match;
    if (!std::regex_match(name, match, pattern)) continue;
    std::string part = match[1] == "blocks" ? std::string() : match[1].str();
    if (match[3] == "cross") part += " across";
    elements[{part, std::stoll(match[2])}] += tensor.numel();
  }
  report::Table table{"Layers", {"layer", "mixer", "elements of the mixer"}, {}, ""};
  for (const auto& [layer, count] : elements) {
    const auto& [part, number] = layer;
    const std::string mixer = part.empty() ? recipe.model.mixer : mixer_of_part(recipe, part);
    table.rows.push_back({part.empty() ? std::to_string(number) : cat(part, ' ', number), mixer,
                          with_commas(count)});
  }
  return table;
}

std::string mixer_of(const train::Recipe& recipe) {
  std::vector<std::string> options;
  for (const auto& [key, value] : recipe.model.mixer_options) {
    options.push_back(cat(key, " = ", to_string(value)));
  }
  return options.empty() ? recipe.model.mixer : cat(recipe.model.mixer, " (", join(options), ")");
}

std::string describe(const train::Checkpoint& checkpoint, const train::Recipe& recipe) {
  int64_t elements = 0;
  for (const auto& [name, tensor] : checkpoint.model) elements += tensor.numel();
  const report::Table overview{"",
                               {},
                               {{"task", recipe.task},
                                {"mixer", mixer_of(recipe)},
                                {"step", with_commas(checkpoint.step)},
                                {"elements of the model", with_commas(elements)}},
                               ""};
  return cat(report::render_text(overview), "\n",
             report::render_text(layer_table(recipe, checkpoint.model)), "\n",
             report::render_text(tensor_table("Model", checkpoint.model)), "\n",
             report::render_text(tensor_table("Training state", checkpoint.state)), "\nRecipe\n",
             checkpoint.recipe);
}

std::string inspect_file(const std::string& path) {
  const train::SafetensorsFile file = train::read_safetensors(path);
  std::string text = report::render_text(tensor_table("", file.tensors));
  if (file.metadata.empty()) return text;
  report::Table metadata{"Metadata", {"key", "value"}, {}, ""};
  for (const auto& [key, value] : file.metadata) metadata.rows.push_back({key, value});
  return text + '\n' + report::render_text(metadata);
}

std::string inspect_checkpoint(const std::string& folder) {
  const train::Checkpoint checkpoint = train::CheckpointFolder::load(folder);
  return describe(checkpoint, train::load_recipe(folder + "/recipe.toml"));
}

std::string inspect_run(const std::string& folder) {
  std::string text;
  const std::string summary = folder + "/summary.json";
  if (fs::exists(summary)) {
    text = report::render_text(summary_table(train::read_summary(summary))) + '\n';
  }
  std::vector<std::string> warnings;
  const auto checkpoint = train::CheckpointFolder(folder + "/checkpoints").load_newest(warnings);
  for (const std::string& warning : warnings) complain(warning);
  HEADLOOM_CHECK(checkpoint, folder, "a checkpoint", "none yet");
  return text + describe(*checkpoint, train::load_recipe(folder + "/recipe.toml"));
}

std::string inspect_path(const std::string& path) {
  const char* expected = "a run folder, a checkpoint folder or a .safetensors file";
  HEADLOOM_CHECK(fs::exists(path), path, expected, "nothing of that name");
  if (!fs::is_directory(path)) return inspect_file(path);
  if (fs::exists(path + "/manifest.json")) return inspect_checkpoint(path);
  HEADLOOM_CHECK(fs::exists(path + "/recipe.toml"), path, expected, "a folder of something else");
  return inspect_run(path);
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  CLI::App* command = add_command(
      app, "inspect", "Show the tensors, layers, metrics and recipe of a run, checkpoint or file.",
      {"headloom inspect runs/listops", "headloom inspect runs/listops/checkpoints/best",
       "headloom inspect model.safetensors"});
  const auto path = std::make_shared<std::string>();
  command->add_option("PATH", *path, "Run folder, checkpoint folder or file")->required();
  command->callback([path, &action] {
    action = [path] {
      print(inspect_path(*path));
      return kDone;
    };
  });
}

}  // namespace headloom::cli
