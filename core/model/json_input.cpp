#include "core/model/json_input.h"

#include <cctype>
#include <fstream>
#include <set>
#include <vector>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

constexpr int kMaxDepth = 64;

/// Replaces bare Infinity, -Infinity and NaN outside of strings.
std::string withoutBareFloats(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    bool inString = false;
    for (std::size_t i = 0; i < text.size();) {
        const char c = text[i];
        if (inString || c == '"') {
            if (c == '"') inString = !inString;
            if (c == '\\' && i + 1 < text.size()) out += text[i++];
            out += text[i++];
            continue;
        }
        bool replaced = false;
        for (const std::string_view word : {"-Infinity", "Infinity", "NaN"})
            if (text.substr(i, word.size()) == word) {
                out.append("{\"__float__\":\"").append(word).append("\"}");
                i += word.size();
                replaced = true;
                break;
            }
        if (!replaced) out += text[i++];
    }
    return out;
}

}  // namespace

std::string readTextFile(const std::filesystem::path& file, std::size_t maxBytes) {
    std::error_code code;
    const auto status = std::filesystem::status(file, code);
    if (!std::filesystem::exists(status))
        throw Error(Errc::NotFound, file.string() + " does not exist");
    if (!std::filesystem::is_regular_file(status))
        throw Error(Errc::Io, file.string() + " is not a regular file");
    std::ifstream in(file, std::ios::binary);
    if (!in) throw Error(Errc::Io, "cannot open " + file.string() + " for reading");
    const auto size = std::filesystem::file_size(file, code);
    if (code) throw Error(Errc::Io, "cannot read the size of " + file.string());
    if (size > maxBytes)
        throw Error(Errc::Format, file.string() + " has " + std::to_string(size) +
                                      " bytes; at most " + std::to_string(maxBytes) +
                                      " are read of such a file");
    std::string text(size, '\0');
    in.read(text.data(), std::streamsize(size));
    if (std::size_t(in.gcount()) != size)
        throw Error(Errc::Io, "reading " + file.string() + " stopped half-way");
    return text;
}

nlohmann::json parseJson(std::string_view text, const std::string& what, bool looseNumbers) {
    using nlohmann::json;
    std::string replaced;
    if (looseNumbers) {
        replaced = withoutBareFloats(text);
        text = replaced;
    }
    // The parser takes a NUL for the end of its input; in JSON it is just an error.
    if (text.find('\0') != std::string_view::npos)
        throw Error(Errc::Format, what + ": not JSON: a NUL byte in the text");
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
        if (depth > kMaxDepth)
            throw Error(Errc::Format,
                        what + ": nested deeper than " + std::to_string(kMaxDepth) + " levels");
        if (event == json::parse_event_t::object_start) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key) {
            const auto& key = parsed.get_ref<const std::string&>();
            if (!keys.back().insert(key).second)
                throw Error(Errc::Format, what + ": the key \"" + key + "\" occurs twice");
        }
        return true;
    };
    try {
        return json::parse(text.begin(), text.end(), watch);
    } catch (const json::exception& e) {
        throw Error(Errc::Format, what + ": not JSON: " + jsonComplaint(e));
    }
}

std::string jsonComplaint(const nlohmann::json::exception& e) {
    std::string text = e.what();
    text.erase(0, text.find("] ") + 2);
    // What the parser read last may be bytes that are no text.
    const auto at = text.find("; last read: ");
    if (at != std::string::npos) text.resize(at);
    return text;
}

}  // namespace sparsight
