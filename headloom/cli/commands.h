#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace headloom::cli {

// What a chosen command does once the whole command line is parsed; returns the exit code.
using Action = std::function<int()>;

// Each adds a command with its options. Parsing sets `action` when the command is chosen.
void add_train(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_compare(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);
void add_translate(CLI::App& app, Action& action);
void add_average(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_data(CLI::App& app, Action& action);
void add_list(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);

// A command with examples, one command line each, at the end of its help. `details`, in lines, come
// before them.
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples, const std::string& details = "");
// --set section.key=value, any number of times.
void add_overrides(CLI::App* command, std::vector<std::string>& overrides);
// --mechanisms NAME,NAME
void add_mechanisms(CLI::App* command, std::vector<std::string>& mechanisms,
                    const std::string& description);

// <parent>/<file name of the path without its extension><suffix>
std::string default_folder(const std::string& parent, const std::string& path,
                           const std::string& suffix = "");

}  // namespace headloom::cli
