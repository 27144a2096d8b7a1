#include "headloom/train/checkpoint_files.h"

#include <nlohmann/json.hpp>

#include "headloom/base/check.h"

namespace headloom::train {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormat = "headloom checkpoint";
constexpr int64_t kVersion = 1;
constexpr const char* kModel = "model.safetensors";
constexpr const char* kState = "state.safetensors";
constexpr const char* kRecipe = "recipe.toml";
constexpr const char* kManifest = "manifest.json";
constexpr uint64_t kMaxManifestBytes = 1 << 16;
constexpr uint64_t kMaxRecipeBytes = 1 << 24;

struct Manifest {
  int64_t step = 0;
  std::map<std::string, FileSum> files;
};

// The manifest vouches for the other files and therefore for itself: its sum is taken over the
// rest of it, which prints the same way whenever it is read back.
uint32_t sum_of(const Json& body) {
  const std::string text = body.dump();
  return crc32(text.data(), text.size());
}

void write_manifest(const std::string& path, const Manifest& manifest) {
  Json body = {{"format", kFormat}, {"version", kVersion}, {"step", manifest.step}};
  for (const auto& [name, sum] : manifest.files) {
    body["files"][name] = {{"bytes", sum.bytes}, {"crc32", sum.crc32}};
  }
  body["crc32"] = sum_of(body);
  write_text(path, body.dump(2) + "\n");
}

Json parse_manifest(const std::string& path) {
  const std::string text = read_text(path, kMaxManifestBytes);
  constexpr int kDepth = 3;
  const auto shallow = [&](int depth, Json::parse_event_t, const Json&) {
    HEADLOOM_CHECK(depth <= kDepth, path, "the manifest of a checkpoint", "deeply nested JSON");
    return true;
  };
  try {
    return Json::parse(text, shallow);
  } catch (const Json::exception&) {
    fail(path, "the manifest of a checkpoint", "text that is not JSON",
         "The checkpoint is damaged.");
  }
}

Manifest read_manifest(const std::string& path) {
  Json body = parse_manifest(path);
  try {
    HEADLOOM_CHECK(body.is_object() && body.value("format", "") == kFormat, path,
                   "the manifest of a headloom checkpoint", "another kind of file");
    HEADLOOM_CHECK(body.at("version") == kVersion, path, cat("format version ", kVersion),
                   body.at("version").dump(), "Use the headloom that wrote it.");
    const auto sum = body.at("crc32").get<uint32_t>();
    body.erase("crc32");
    HEADLOOM_CHECK(sum == sum_of(body), path, "a manifest whose CRC-32 agrees with its contents",
                   "one that does not", "The checkpoint is damaged.");
    Manifest manifest;
    manifest.step = body.at("step").get<int64_t>();
    for (const auto& [name, file] : body.at("files").items()) {
      manifest.files[name] = {file.at("bytes").get<uint64_t>(), file.at("crc32").get<uint32_t>()};
    }
    return manifest;
  } catch (const Json::exception&) {
    fail(path, "format, version, step, files and crc32 in the manifest",
         "something missing or of another type", "The checkpoint is damaged.");
  }
}

std::string text_of(const FileSum& sum) {
  return cat(sum.bytes, " bytes with CRC-32 ", sum.crc32);
}

void check_file(const std::string& folder, const Manifest& manifest, const std::string& name) {
  const std::string path = folder + "/" + name;
  const auto expected = manifest.files.find(name);
  HEADLOOM_CHECK(expected != manifest.files.end(), folder + "/" + kManifest,
                 cat("the size and CRC-32 of ", name), "none");
  // A size that differs needs no pass over the file.
  const uint64_t size = InputFile(path).size();
  HEADLOOM_CHECK(size == expected->second.bytes, path,
                 cat(expected->second.bytes, " bytes, as the manifest says"), cat(size, " bytes"),
                 "The checkpoint is damaged.");
  const FileSum found = sum_file(path);
  HEADLOOM_CHECK(found == expected->second, path,
                 cat(text_of(expected->second), ", as the manifest says"), text_of(found),
                 "The checkpoint is damaged.");
}

}  // namespace

void write_checkpoint(const std::string& folder, const Checkpoint& checkpoint) {
  create_folder(folder);
  Manifest manifest;
  manifest.step = checkpoint.step;
  manifest.files[kModel] = write_safetensors(folder + "/" + kModel, checkpoint.model);
  manifest.files[kState] =
      write_safetensors(folder + "/" + kState, checkpoint.state, checkpoint.values);
  manifest.files[kRecipe] = write_text(folder + "/" + kRecipe, checkpoint.recipe);
  write_manifest(folder + "/" + kManifest, manifest);
  sync_folder(folder);
}

Checkpoint read_checkpoint(const std::string& folder) {
  HEADLOOM_CHECK(is_folder(folder), folder, "the folder of a checkpoint", "none");
  const Manifest manifest = read_manifest(folder + "/" + kManifest);
  for (const char* name : {kModel, kState, kRecipe}) check_file(folder, manifest, name);
  Checkpoint checkpoint;
  checkpoint.step = manifest.step;
  checkpoint.model = read_safetensors(folder + "/" + kModel).tensors;
  SafetensorsFile state = read_safetensors(folder + "/" + kState);
  checkpoint.state = std::move(state.tensors);
  checkpoint.values = std::move(state.metadata);
  checkpoint.recipe = read_text(folder + "/" + kRecipe, kMaxRecipeBytes);
  return checkpoint;
}

}  // namespace headloom::train
