#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model/runner.h"
#include "kernels/backend.h"
#include "sessions/session.h"

namespace sparsight::cli {

using Json = nlohmann::ordered_json;

/// What every command shares. `action` is set by the command that the user chose; main runs it.
struct Context {
    bool json = false;
    int threads = 0;  ///< 0 = physical cores
    std::string device = "cpu";
    std::function<void()> action;

    /// Progress on stderr when it is a terminal; Ctrl+C asks for a stop.
    Job job() const;
    /// The kernels of --device. @throws Error(Device) when it is not there
    std::unique_ptr<kernels::Backend> backend() const;
    /// The model on --device, or on the CPU with a note.
    std::unique_ptr<ModelRunner> model(const std::filesystem::path& directory) const;
};

/// Asks running work to stop (signal handler).
void requestStop() noexcept;
/// Ends the progress line, if one is shown.
void endProgress();

/// A subcommand with --json; `run` becomes the context's action when it is chosen.
CLI::App* addCommand(CLI::App& parent, Context& context, const std::string& name,
                     const std::string& description, std::function<void()> run);
/// --threads and --device for commands that compute.
void addComputeOptions(CLI::App& command, Context& context);

void printJson(const Json& value);
/// "note: ..." on stderr.
void printNotes(const std::vector<std::string>& notes);
/// A table on stdout: first row is the head; numbers right-aligned.
void printTable(const std::vector<std::vector<std::string>>& rows);
std::string fixed(double value, int digits);
std::string withThousands(Index value);
std::string readText(const std::string& file);  ///< "-" = stdin. @throws Error(NotFound/Io)
/// A prompt and whether the tokenizer adds its special tokens.
struct PromptText {
    std::string text;
    bool special = true;
};
/// The text of --text, or the conversation of --chat as the model's chat template writes it (with
/// its special tokens). @param model  directory, bundled name, or a file in the directory
PromptText readPrompt(const std::string& model, const std::string& textFile,
                      const std::string& chatFile, bool noSpecial);
/// Adds --chat, which excludes `text`.
CLI::Option* addChatOption(CLI::App& command, std::string& chat, CLI::Option* text);
void writeText(const std::string& file, const std::string& text);  ///< temp + rename
/// Refuses a file name whose ending is not one of `endings` (".png", ...), before anything is
/// computed.
void requireEnding(const std::string& file, const std::vector<std::string>& endings);
/// "text" in a CSV cell: quoted where it holds a comma, a quote or a line break.
std::string csvCell(const std::string& text);
/// Says on stderr that a prompt is longer than the model's positions; nothing otherwise.
void warnBeyondLimit(Index tokens, const ModelConfig& config);

/// "1,52, 7" -> ids; "" -> none. @throws Error(Usage)
std::vector<std::int32_t> parseIds(const std::string& text);

/// The newest capture of a session, or the one whose uuid starts with `prefix`.
sessions::CaptureInfo findCapture(const sessions::Session& session, const std::string& prefix);

/// "a-shape:sink=4,window=256,antidiagonal" -> two specs. @throws Error(Usage) when the list is
/// empty
std::vector<MethodSpec> parseMethodList(const std::string& text);

void addModelCommands(CLI::App& app, Context& context);         // info, tokenize, generate, eval
void addCaptureCommand(CLI::App& app, Context& context);        // capture
void addImportTensorsCommand(CLI::App& app, Context& context);  // import-tensors
void addAnalysisCommands(CLI::App& app, Context& context);      // heads, mask, run, curve
void addMapCommand(CLI::App& app, Context& context);            // map
void addTopCommand(CLI::App& app, Context& context);            // top
void addPlanCommands(CLI::App& app, Context& context);          // plan, export, import
void addSessionCommands(CLI::App& app, Context& context);       // session list|check|info
void addDevicesCommand(CLI::App& app, Context& context);        // devices
void addMethodsCommand(CLI::App& app, Context& context);        // methods

}  // namespace sparsight::cli
