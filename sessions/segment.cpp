#include "sessions/segment.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/base/error.h"
#include "sessions/crc32c.h"

namespace sparsight::sessions {
namespace {

constexpr std::size_t kUuid = 32;

bool isHex(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Index pieces(Index bytes) {
    return (bytes + kCrcChunk - 1) / kCrcChunk;
}

}  // namespace

std::string segmentPath(const std::string& uuid, const std::string& kind) {
    return "seg/" + uuid.substr(0, 2) + "/" + uuid + "-" + kind + ".h5";
}

bool isSegmentPath(std::string_view path) {
    // seg/ab/<32 hex>-<kind>.h5
    constexpr std::size_t kName = 7;
    if (path.size() < kName + kUuid + 5 || path.substr(0, 4) != "seg/" || path[6] != '/')
        return false;
    const std::string_view uuid = path.substr(kName, kUuid), tail = path.substr(kName + kUuid);
    if (!isHex(uuid) || path.substr(4, 2) != uuid.substr(0, 2)) return false;
    for (const char* kind : {"qkv", "pyr", "mask", "res", "logits", "fig"})
        if (tail == std::string("-") + kind + ".h5") return true;
    return false;
}

std::string sidecarPath(const std::string& segment) {
    return segment.substr(0, segment.size() - 3) + ".crc";
}

std::string sidecarText(const Segment& s, const std::string& session) {
    return nlohmann::json{{"format", kSegmentFormat}, {"session", session},
                          {"capture", s.capture},     {"uuid", s.uuid},
                          {"kind", s.kind},           {"layer", s.layer},
                          {"bytes", s.bytes},         {"crc_chunk_bytes", kCrcChunk},
                          {"crc32c", s.crc},          {"mass_error", s.massError}}
               .dump() +
           "\n";
}

Segment readSidecar(const std::string& text, const std::string& path, const std::string& session) {
    try {
        const auto j = nlohmann::json::parse(text);
        Segment s;
        s.uuid = j.at("uuid").get<std::string>();
        s.kind = j.at("kind").get<std::string>();
        s.path = path;
        s.capture = j.at("capture").get<std::string>();
        s.layer = j.at("layer").get<Index>();
        s.bytes = j.at("bytes").get<Index>();
        s.crc = j.at("crc32c").get<std::vector<std::uint32_t>>();
        s.massError = j.at("mass_error").is_number() ? j.at("mass_error").get<double>() : 0;
        if (j.at("format") == kSegmentFormat && j.at("session") == session &&
            j.at("crc_chunk_bytes") == kCrcChunk && s.uuid.size() == kUuid &&
            segmentPath(s.uuid, s.kind) == path && s.bytes > 0 &&
            Index(s.crc.size()) == pieces(s.bytes))
            return s;
    } catch (const nlohmann::json::exception&) {
        // The sentence below says it.
    }
    throw Error(Errc::Format,
                "'" + sidecarPath(path) + "' is not the checksum file of '" + path + "'");
}

std::string crcBlob(const std::vector<std::uint32_t>& crc) {
    std::string blob;
    for (const std::uint32_t c : crc)
        for (int byte = 0; byte < 4; ++byte) blob += char(c >> (8 * byte) & 255);
    return blob;
}

std::vector<std::uint32_t> crcFromBlob(std::string_view blob, Index bytes,
                                       const std::string& what) {
    if (bytes < 1 || Index(blob.size()) != pieces(bytes) * 4)
        throw Error(Errc::Format, what + " has a damaged checksum list in the catalogue");
    std::vector<std::uint32_t> crc(blob.size() / 4);
    for (std::size_t i = 0; i < blob.size(); ++i)
        crc[i / 4] |= std::uint32_t(static_cast<unsigned char>(blob[i])) << (8 * (i % 4));
    return crc;
}

Fd openBeneath(const std::filesystem::path& root, const std::string& relative) {
    const std::filesystem::path full = root / relative;
    const std::filesystem::path inside(relative);
    Fd folder(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) throwErrno(errno, "open", root);
    const std::filesystem::path parent = inside.parent_path();
    for (const auto& part : parent) {
        Fd next(
            ::openat(folder.get(), part.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
        if (!next) {
            if (errno == ELOOP || errno == ENOTDIR)
                throw Error(Errc::Format, "'" + full.string() +
                                              "' lies behind a symbolic link; a session holds "
                                              "only plain files and folders");
            throwErrno(errno, "open", full);
        }
        folder = std::move(next);
    }
    // The kernel's name of the folder that was walked to: no component can be swapped any more.
    const std::string walked = "/proc/self/fd/" + std::to_string(folder.get());
    try {
        return openRegular(std::filesystem::path(walked) / inside.filename(), O_RDONLY);
    } catch (const Error& e) {
        if (e.code() == Errc::NotFound)
            throw Error(Errc::NotFound, "'" + full.string() + "' is missing");
        std::string text = e.what();
        if (const auto at = text.find(walked); at != std::string::npos)
            text.replace(at, walked.size(), full.parent_path().string());
        throw Error(e.code(), text);
    }
}

void verifySegment(const Fd& fd, const std::filesystem::path& file, const Segment& segment,
                   const std::function<void(Index)>& progress) {
    const Index size = sizeOf(fd, file);
    if (size != segment.bytes)
        throw Error(Errc::Format, "'" + file.string() + "' is damaged: it has " +
                                      bytesInWords(size) + ", the catalogue says " +
                                      bytesInWords(segment.bytes));
    std::vector<std::byte> buffer(std::size_t(std::min(size, kCrcChunk)));
    for (Index at = 0; at < size; at += kCrcChunk) {
        const auto piece = std::span(buffer).first(std::size_t(std::min(kCrcChunk, size - at)));
        readFully(fd, piece, at, file);
        if (crc32c(piece) != segment.crc[std::size_t(at / kCrcChunk)])
            throw Error(Errc::Format, "'" + file.string() + "' is damaged: its bytes " +
                                          std::to_string(at) + " to " +
                                          std::to_string(at + Index(piece.size()) - 1) +
                                          " do not match their checksum");
        if (progress) progress(at + Index(piece.size()));
    }
}

}  // namespace sparsight::sessions
