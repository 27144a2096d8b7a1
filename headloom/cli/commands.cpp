#include "headloom/cli/commands.h"

#include <CLI/CLI.hpp>
#include <filesystem>

namespace headloom::cli {

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples, const std::string& details) {
  CLI::App* command = app.add_subcommand(name, description);
  std::string footer = details.empty() ? "" : '\n' + details + '\n';
  footer += "\nExamples:\n";
  for (const std::string& example : examples) footer += "  " + example + '\n';
  footer.pop_back();
  command->footer(footer);
  command->group("Commands");
  // Kept aside, so that the message can name the nearest option.
  command->allow_extras();
  return command;
}

void add_overrides(CLI::App* command, std::vector<std::string>& overrides) {
  command
      ->add_option("--set", overrides,
                   "Change a value of the recipe, e.g. train.steps=100; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

void add_mechanisms(CLI::App* command, std::vector<std::string>& mechanisms,
                    const std::string& description) {
  command->add_option("--mechanisms", mechanisms, description)
      ->type_name("NAME,NAME")
      ->delimiter(',')
      ->allow_extra_args(false);
}

std::string default_folder(const std::string& parent, const std::string& path,
                           const std::string& suffix) {
  return (std::filesystem::path(parent) / std::filesystem::path(path).stem()).string() + suffix;
}

}  // namespace headloom::cli
