#include "headloom/cli/app.h"

#include <c10/util/Exception.h>
#include <torch/version.h>

#include <CLI/CLI.hpp>
#include <new>

#include "headloom/base/check.h"
#include "headloom/base/nearest.h"
#include "headloom/cli/commands.h"
#include "headloom/cli/output.h"

namespace headloom::cli {
namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

[[noreturn]] void refuse(const std::string& where, const std::string& expected,
                         const std::string& found, const std::vector<std::string>& valid) {
  const std::string nearest = nearest_name(found, valid);
  fail(where, expected, cat('"', found, '"'),
       nearest.empty() ? "See --help." : cat("Did you mean ", nearest, "?"));
}

// What the parser did not know, with the nearest name that it does. `where` is empty for the
// application itself.
void refuse_unknown(const CLI::App& app, const std::string& where = "") {
  for (const CLI::App* command : app.get_subcommands()) {
    refuse_unknown(*command,
                   where.empty() ? command->get_name() : cat(where, ' ', command->get_name()));
  }
  const std::vector<std::string> unknown = app.remaining();
  if (unknown.empty()) return;
  const std::string word = unknown[0].substr(0, unknown[0].find('='));
  const std::vector<std::string> commands = command_names(app), options = option_names(app);
  const std::string place = where.empty() ? "command line" : where;
  if (word.starts_with("-")) {
    const std::string known = cat("options among ", join(options));
    refuse(place, where.empty() ? "a command, --help or --version" : known, word, options);
  }
  if (commands.empty()) refuse(place, "no further argument", unknown[0], {});
  refuse(place, cat("a command among ", join(commands)), unknown[0], commands);
}

// "headloom data score"
std::string chosen_command(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* command : app.get_subcommands()) name += ' ' + chosen_command(*command);
  return name;
}

int dispatch(int argc, char** argv) {
  CLI::App app("Train, compare and use the attention mechanisms that mainstream kernels leave out",
               "headloom");
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->column_width(36);
  app.set_version_flag("--version",
                       cat("headloom ", HEADLOOM_VERSION, " (torch ", TORCH_VERSION, ")"));
  app.allow_extras();
  app.require_subcommand(1);
  app.footer("\nheadloom COMMAND --help shows the options of a command, with examples.");
  Action action;
  add_train(app, action);
  add_eval(app, action);
  add_compare(app, action);
  add_generate(app, action);
  add_translate(app, action);
  add_average(app, action);
  add_bench(app, action);
  add_data(app, action);
  add_list(app, action);
  add_inspect(app, action);
  add_report(app, action);
  if (argc <= 1) {
    complain(cat("expected a command; found none.\n\n", app.help()));
    return kUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(app.help());
    return kDone;
  } catch (const CLI::CallForVersion& version) {
    print(cat(version.what(), "\n"));
    return kDone;
  } catch (const CLI::ParseError& error) {
    refuse_unknown(app);
    throw Error(cat(error.what(), ". See ", chosen_command(app), " --help."));
  }
  refuse_unknown(app);
  return action();
}

int end(std::string_view message, ExitCode code) {
  complain(message);
  return code;
}

}  // namespace

int run(int argc, char** argv) {
  prepare_streams();
  try {
    return dispatch(argc, argv);
  } catch (const OutputClosed&) {
    return kDone;
  } catch (const RunError& error) {
    return end(error.what(), kFailed);
  } catch (const Error& error) {
    return end(error.what(), kUsage);
  } catch (const c10::Error& error) {
    return end(error.what_without_backtrace(), kFailed);
  } catch (const std::bad_alloc&) {
    return end("out of memory", kFailed);
  } catch (const std::exception& error) {
    return end(error.what(), kFailed);
  }
}

}  // namespace headloom::cli
