#include <iostream>

#include "app/cli/command.h"

namespace sparsight::cli {
namespace {

/// "130", "130 + 20" with a decoder's, "7 x 9 + 1" for an image.
std::string tokensInWords(const sessions::CaptureInfo& c) {
    if (c.image)
        return std::to_string(c.image->rows) + " x " + std::to_string(c.image->cols) + " + " +
               std::to_string(c.image->classTokens);
    const std::string text = withThousands(Index(c.tokenIds.size()));
    return c.decoderIds.empty() ? text : text + " + " + withThousands(Index(c.decoderIds.size()));
}

Json captureJson(const sessions::CaptureInfo& c) {
    Json names = Json::array();
    for (const Index l : c.layersDone) names.push_back(layerName(c.config, l));
    return {{"capture", c.uuid},
            {"state", c.state},
            {"model", c.modelName},
            {"prompt", c.promptName},
            {"tokens", c.tokenIds.size()},
            {"prefill", c.prefill},
            {"decodeSteps", c.decodeSteps},
            {"decoderTokens", c.decoderIds.size()},
            {"image", c.image ? Json{{"rows", c.image->rows},
                                     {"cols", c.image->cols},
                                     {"classTokens", c.image->classTokens}}
                              : Json(nullptr)},
            {"layersAsked", c.layersAsked},
            {"layersDone", c.layersDone},
            {"layerNames", names},
            {"store", kernels::nameOf(c.store)},
            {"topKeys", c.topKeys},
            {"bytes", c.bytes},
            {"massError", c.massError},
            {"created", c.createdUtc},
            {"finished", c.finishedUtc},
            {"error", c.error}};
}

Json infoJson(const sessions::SessionInfo& s) {
    Json captures = Json::array();
    for (const auto& c : s.captures) captures.push_back(captureJson(c));
    return {{"session", s.path.string()}, {"uuid", s.uuid},      {"created", s.createdUtc},
            {"version", s.appVersion},    {"bytes", s.bytes},    {"lockHolder", s.lockHolder},
            {"warnings", s.warnings},     {"captures", captures}};
}

void printInfo(const sessions::SessionInfo& s) {
    std::cout << s.path.string() << "  " << withThousands(s.bytes) << " bytes, created "
              << s.createdUtc;
    if (!s.lockHolder.empty()) std::cout << ", open for writing by " << s.lockHolder;
    std::cout << "\n";
    std::vector<std::vector<std::string>> rows{
        {"capture", "state", "model", "prompt", "tokens", "layers", "bytes"}};
    for (const auto& c : s.captures)
        rows.push_back(
            {c.uuid.substr(0, 8), c.state, c.modelName, c.promptName, tokensInWords(c),
             std::to_string(c.layersDone.size()) + " of " + std::to_string(c.layersAsked.size()),
             withThousands(c.bytes)});
    if (rows.size() > 1) printTable(rows);
    for (const std::string& w : s.warnings) std::cout << "note: " << w << "\n";
}

}  // namespace

void addSessionCommands(CLI::App& app, Context& context) {
    const auto path = std::make_shared<std::string>();
    CLI::App* group = app.add_subcommand("session", "List, check and describe sessions");
    group->require_subcommand(1);

    auto* c = addCommand(*group, context, "list", "Sessions in a directory", [&context, path] {
        const auto list = sessions::listSessions(*path);
        Json json = Json::array();
        for (const auto& s : list) {
            if (context.json)
                json.push_back(infoJson(s));
            else
                printInfo(s);
        }
        if (context.json)
            printJson(json);
        else if (list.empty())
            std::cout << "no session in " << *path << "\n";
    });
    c->add_option("directory", *path, "Directory")->required();

    c = addCommand(*group, context, "info", "What a session holds", [&context, path] {
        const auto info = sessions::Session::open(*path, sessions::OpenMode::ReadOnly)->info();
        if (context.json)
            printJson(infoJson(info));
        else
            printInfo(info);
    });
    c->add_option("session", *path, "Session folder")->required();

    c = addCommand(*group, context, "check", "Verify a session: catalogue, files, every checksum",
                   [&context, path] {
                       const auto report = sessions::checkSession(*path, context.job());
                       endProgress();
                       if (context.json)
                           printJson({{"ok", report.ok},
                                      {"segments", report.segments},
                                      {"bytes", report.bytes},
                                      {"problems", report.problems}});
                       else
                           std::cout << (report.ok ? "ok: " : "damaged: ") << report.segments
                                     << " segments, " << withThousands(report.bytes) << " bytes\n";
                       if (report.ok) return;
                       std::string all = "session '" + *path + "' is damaged";
                       for (const std::string& p : report.problems) all += "\n  " + p;
                       throw Error(Errc::Format, all);
                   });
    c->add_option("session", *path, "Session folder")->required();
}

}  // namespace sparsight::cli
