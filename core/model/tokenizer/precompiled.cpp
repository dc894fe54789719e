#include "core/model/tokenizer/precompiled.h"

#include <cstring>

#include "kernels/base/error.h"

namespace sparsight::text {
namespace {

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::uint32_t unitAt(std::string_view bytes, std::size_t i) {
    std::uint32_t u = 0;
    for (std::size_t k = 4; k-- > 0;) u = u << 8 | static_cast<unsigned char>(bytes[i + k]);
    return u;
}

}  // namespace

std::string decodeBase64(std::string_view text, const std::string& where) {
    std::string out;
    out.reserve(text.size() / 4 * 3);
    std::uint32_t bits = 0;
    int count = 0;
    while (text.ends_with('=')) text.remove_suffix(1);
    for (const char c : text) {
        const std::size_t v = kBase64.find(c);
        if (v == std::string_view::npos)
            throw Error(Errc::Format,
                        where + ": its base64 text has the character '" + std::string(1, c) + "'");
        bits = bits << 6 | std::uint32_t(v);
        count += 6;
        if (count >= 8) {
            count -= 8;
            out += static_cast<char>(static_cast<unsigned char>(bits >> count & 0xffu));
        }
    }
    return out;
}

std::string encodeBase64(std::string_view bytes) {
    std::string out;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
        std::uint32_t bits = 0;
        for (std::size_t k = 0; k < 3; ++k)
            bits = bits << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0u);
        for (std::size_t k = 0; k < 4; ++k)
            out += k <= n ? kBase64[bits >> (18 - 6 * k) & 63u] : '=';
    }
    return out;
}

CharsMap::CharsMap(std::string_view bytes, const std::string& where) : m_cluster("\\X", where) {
    if (bytes.size() < 4) throw Error(Errc::Format, where + ": has no character map");
    const std::size_t length = unitAt(bytes, 0);
    if (length % 4 != 0 || length == 0 || length > bytes.size() - 4)
        throw Error(Errc::Format, where + ": its trie of " + std::to_string(length) +
                                      " bytes does not fit into " + std::to_string(bytes.size()));
    for (std::size_t i = 0; i < length; i += 4) m_units.push_back(unitAt(bytes, 4 + i));
    m_texts = bytes.substr(4 + length);
    if (firstInvalidUtf8(m_texts) != std::string_view::npos)
        throw Error(Errc::Format, where + ": the replacements of its character map are not UTF-8");
}

std::int64_t CharsMap::find(std::string_view key) const {
    const auto offset = [](std::uint32_t unit) { return (unit >> 10) << ((unit & 512u) >> 6); };
    std::size_t at = offset(m_units[0]);
    for (const char c : key) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte == 0) return -1;
        at ^= byte;
        if (at >= m_units.size()) return -1;
        const std::uint32_t unit = m_units[at];
        if ((unit & (0x80000000u | 0xffu)) != byte) return -1;
        at ^= offset(unit);
        if (at >= m_units.size()) return -1;
        if ((unit & 256u) != 0) {
            const std::uint32_t value = m_units[at] & 0x7fffffffu;
            return value < m_texts.size() ? std::int64_t(value) : -1;
        }
    }
    return -1;
}

std::vector<Moving> CharsMap::apply(std::string_view text, bool& changed) const {
    std::vector<Moving> out;
    out.reserve(text.size());
    changed = false;
    /// False when the map has nothing for `part`.
    const auto replace = [&](std::string_view part) {
        const std::int64_t found = find(part);
        if (found < 0) return false;
        const std::size_t begin = std::size_t(found);
        if ((static_cast<unsigned char>(m_texts[begin]) & 0xc0u) == 0x80u) return false;
        const std::size_t end = std::min(m_texts.find('\0', begin), m_texts.size());
        // New characters stand for the old ones one by one, further ones for the last.
        int left = int(countCodePoints(part));
        for (std::size_t i = begin; i < end; --left) {
            const CodePoint p = codePointAt(m_texts, i);
            out.push_back({p.value, left > 0 ? 0 : 1});
            i += p.bytes;
        }
        // The rest disappears in the character before. At the front there is none, and all later
        // offsets are too small: so they are in the library.
        if (left > 0 && !out.empty()) out.back().change -= left;
        changed = true;
        return true;
    };
    for (const auto& [begin, end] : m_cluster.find(text)) {
        const std::string_view cluster = text.substr(begin, end - begin);
        if (cluster.size() < 6 && replace(cluster)) continue;
        for (std::size_t i = 0; i < cluster.size();) {
            const CodePoint p = codePointAt(cluster, i);
            if (!replace(cluster.substr(i, p.bytes))) out.push_back({p.value, 0});
            i += p.bytes;
        }
    }
    return out;
}

}  // namespace sparsight::text
