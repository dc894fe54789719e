#include "app/cli/command.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "core/model/chat_template.h"
#include "core/model/config.h"
#include "core/model/device.h"

namespace sparsight::cli {
namespace {

std::atomic<bool> g_stop{false};
bool g_progressShown = false;

bool isNumber(const std::string& cell) {
    return !cell.empty() && cell.find_first_not_of("0123456789.,+-e% ") == std::string::npos;
}

/// Columns a terminal needs for UTF-8 text without wide characters.
std::size_t width(const std::string& text) {
    return std::size_t(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    }));
}

}  // namespace

void requestStop() noexcept {
    g_stop = true;
}

void endProgress() {
    if (g_progressShown) std::fputs("\r\033[K", stderr);
    g_progressShown = false;
}

Job Context::job() const {
    if (!isatty(STDERR_FILENO)) return Job({}, [] { return g_stop.load(); });
    return Job(
        [last = std::chrono::steady_clock::time_point{}](double fraction,
                                                         std::string_view stage) mutable {
            const auto now = std::chrono::steady_clock::now();
            if (now - last < std::chrono::milliseconds(100) && fraction < 1) return;
            last = now;
            std::fprintf(stderr, "\r\033[K%3d %%  %.*s", int(fraction * 100), int(stage.size()),
                         stage.data());
            std::fflush(stderr);
            g_progressShown = true;
        },
        [] { return g_stop.load(); });
}

std::unique_ptr<kernels::Backend> Context::backend() const {
    return backendOrCpu(device, threads, [](const std::string& note) { printNotes({note}); });
}

std::unique_ptr<ModelRunner> Context::model(const std::filesystem::path& directory) const {
    return loadModel(directory, threads, job(), device);
}

void printNotes(const std::vector<std::string>& notes) {
    if (!notes.empty()) endProgress();
    for (const std::string& note : notes) std::cerr << "note: " << note << "\n";
}

CLI::App* addCommand(CLI::App& parent, Context& context, const std::string& name,
                     const std::string& description, std::function<void()> run) {
    CLI::App* command = parent.add_subcommand(name, description);
    command->add_flag("--json", context.json, "Print one JSON value instead of a table");
    command->callback([&context, run = std::move(run)] { context.action = run; });
    return command;
}

void addComputeOptions(CLI::App& command, Context& context) {
    command.add_option("--threads", context.threads, "Worker threads (default: physical cores)")
        ->check(CLI::Range(1, 1024));
    command
        .add_option("--device", context.device,
                    "Where to compute: cpu, cuda (the first GPU) or cuda:N; `sparsight devices` "
                    "lists them")
        ->capture_default_str()
        ->check([](const std::string& name) {
            try {
                parseDevice(name);
                return std::string();
            } catch (const Error& e) {
                return std::string(e.what());
            }
        });
}

void printJson(const Json& value) {
    // Undecodable bytes of single tokens become U+FFFD: JSON must be valid UTF-8.
    std::cout << value.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

void printTable(const std::vector<std::vector<std::string>>& rows) {
    if (rows.empty()) return;
    std::vector<std::size_t> widths(rows[0].size(), 0);
    std::vector<bool> numeric(rows[0].size(), true);
    for (std::size_t r = 0; r < rows.size(); ++r)
        for (std::size_t c = 0; c < rows[r].size(); ++c) {
            widths[c] = std::max(widths[c], width(rows[r][c]));
            if (r > 0 && !isNumber(rows[r][c]) && rows[r][c] != "-") numeric[c] = false;
        }
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t c = 0; c < row.size(); ++c) {
            const std::string pad(widths[c] - width(row[c]), ' ');
            if (c > 0) line += "  ";
            line += numeric[c] ? pad + row[c] : row[c] + pad;
        }
        line.erase(line.find_last_not_of(' ') + 1);
        std::cout << line << "\n";
    }
}

std::string fixed(double value, int digits) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

std::string withThousands(Index value) {
    std::string digits = std::to_string(value < 0 ? -value : value);
    for (auto at = std::ptrdiff_t(digits.size()) - 3; at > 0; at -= 3)
        digits.insert(std::size_t(at), ",");
    return (value < 0 ? "-" : "") + digits;
}

std::string readText(const std::string& file) {
    if (file == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
    std::error_code ec;
    if (!std::filesystem::exists(file, ec))
        throw Error(Errc::NotFound, "there is no file '" + file + "'");
    if (std::filesystem::is_directory(file, ec))
        throw Error(Errc::Io, "'" + file + "' is a directory; a text file is needed");
    std::ifstream in(file, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    if (!in.good() && !in.eof()) throw Error(Errc::Io, "cannot read '" + file + "'");
    return text;
}

PromptText readPrompt(const std::string& model, const std::string& textFile,
                      const std::string& chatFile, bool noSpecial) {
    if (chatFile.empty()) return {readText(textFile), !noSpecial};
    std::error_code ec;
    const auto directory = std::filesystem::is_regular_file(model, ec)
                               ? std::filesystem::path(model).parent_path()
                               : resolveModel(model);
    return {
        chatPrompt(directory, readText(chatFile), chatFile == "-" ? "standard input" : chatFile),
        false};
}

CLI::Option* addChatOption(CLI::App& command, std::string& chat, CLI::Option* text) {
    return command
        .add_option(
            "--chat", chat,
            "Conversation [{\"role\": .., \"content\": ..}, ..] as JSON file, written by the "
            "model's chat template in place of a text")
        ->excludes(text);
}

void writeText(const std::string& file, const std::string& text) {
    const std::string part = file + ".part";
    std::ofstream out(part, std::ios::binary);
    out << text;
    out.close();
    std::error_code ec;
    if (out) std::filesystem::rename(part, file, ec);
    if (!out || ec) {
        std::filesystem::remove(part, ec);
        throw Error(Errc::Io,
                    "cannot write '" + file + "': check the directory and the free space");
    }
}

void requireEnding(const std::string& file, const std::vector<std::string>& endings) {
    const std::string ending = std::filesystem::path(file).extension().string();
    std::string list;
    for (const std::string& e : endings) {
        if (e == ending) return;
        list += (list.empty() ? "" : ", ") + e;
    }
    throw Error(Errc::Usage,
                "'" + file + "' cannot be written: its name must end in one of " + list);
}

std::string csvCell(const std::string& text) {
    if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
    std::string cell = "\"";
    for (const char c : text) {
        if (c == '"') cell += '"';
        cell += c;
    }
    return cell + "\"";
}

void warnBeyondLimit(Index tokens, const ModelConfig& config) {
    if (config.maxPositions == 0 || tokens <= config.maxPositions) return;
    endProgress();
    std::cerr << "warning: " << withThousands(tokens) << " tokens are beyond the model's limit of "
              << withThousands(config.maxPositions) << "; its attention there is untrained\n";
}

std::vector<std::int32_t> parseIds(const std::string& text) {
    std::vector<std::int32_t> ids;
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at != end) {
        if (*at == ',' || std::isspace(static_cast<unsigned char>(*at))) {
            ++at;
            continue;
        }
        std::int32_t id = 0;
        const auto [next, error] = std::from_chars(at, end, id);
        if (error != std::errc() || id < 0 ||
            (next != end && *next != ',' && !std::isspace(static_cast<unsigned char>(*next))))
            throw Error(Errc::Usage,
                        "token ids are whole numbers separated by commas, as in "
                        "1,52,7; found '" +
                            std::string(at, std::min(at + 20, end)) + "'");
        ids.push_back(id);
        at = next;
    }
    return ids;
}

sessions::CaptureInfo findCapture(const sessions::Session& session, const std::string& prefix) {
    if (prefix.empty()) return session.captureInfo();
    const auto info = session.info();
    for (const auto& capture : info.captures)
        if (capture.uuid.starts_with(prefix)) return session.captureInfo(capture.uuid);
    throw Error(Errc::NotFound, "session '" + session.path().string() + "' has no capture '" +
                                    prefix + "'; `sparsight session info` lists them");
}

std::vector<MethodSpec> parseMethodList(const std::string& text) {
    // A comma separates methods and parameters alike: a piece with '=' before any ':' goes on with
    // the method before it.
    std::vector<std::string> specs;
    std::stringstream in(text);
    for (std::string piece; std::getline(in, piece, ',');) {
        const auto equals = piece.find('='), colon = piece.find(':');
        if (!specs.empty() && equals != std::string::npos && equals < colon)
            specs.back() += "," + piece;
        else
            specs.push_back(piece);
    }
    if (specs.empty())
        throw Error(Errc::Usage,
                    "--methods is empty: give one or more, as in a-shape:sink=4,antidiagonal");
    std::vector<MethodSpec> result;
    for (const std::string& spec : specs) result.push_back(parseMethod(spec));
    return result;
}

}  // namespace sparsight::cli
