#include "core/model/tokenizer/vocab.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace sparsight::text {
namespace {

constexpr std::int32_t kMaxId = 1 << 28;  // ids index arrays: a hostile one must not size them

}  // namespace

Vocab Vocab::fromObject(const nlohmann::json& object, const std::string& where) {
    const auto fail = [&](const std::string& rule) { throw Error(Errc::Format, where + rule); };
    if (!object.is_object()) fail(": has no object \"vocab\"");
    Vocab v;
    v.m_ids.reserve(object.size());
    std::int32_t top = -1;
    for (const auto& [token, id] : object.items()) {
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::uint64_t(kMaxId))
            fail(": the id of \"" + token + "\" is " + id.dump(-1, ' ', true).substr(0, 40) +
                 "; a whole number up to " + std::to_string(kMaxId) + " is expected");
        v.m_ids.emplace(token, id.get<std::int32_t>());
        top = std::max(top, id.get<std::int32_t>());
    }
    if (std::size_t(top + 1) > 16 * (v.m_ids.size() + 65536))
        fail(": its ids reach " + std::to_string(top) + ", far beyond its " +
             std::to_string(v.m_ids.size()) + " tokens");
    v.m_tokens.resize(std::size_t(top + 1));
    for (const auto& [token, id] : v.m_ids) v.m_tokens[std::size_t(id)] = &token;
    v.m_size = Index(v.m_ids.size());
    return v;
}

Vocab Vocab::fromList(const std::vector<std::string>& tokens) {
    Vocab v;
    v.m_ids.reserve(tokens.size());
    v.m_tokens.resize(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const auto it = v.m_ids.insert_or_assign(tokens[i], std::int32_t(i)).first;
        v.m_tokens[i] = &it->first;
    }
    v.m_size = Index(tokens.size());
    return v;
}

std::int32_t Vocab::idOf(std::string_view token) const {
    const auto it = m_ids.find(token);
    return it == m_ids.end() ? -1 : it->second;
}

const std::string* Vocab::token(std::int32_t id) const {
    return id < 0 || std::size_t(id) >= m_tokens.size() ? nullptr : m_tokens[std::size_t(id)];
}

std::string byteToken(unsigned char byte) {
    constexpr char kHex[] = "0123456789ABCDEF";
    return {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
}

std::vector<std::int32_t> byteTokens(const Vocab& vocab) {
    std::vector<std::int32_t> ids(256);
    for (unsigned b = 0; b < 256; ++b)
        ids[b] = vocab.idOf(byteToken(static_cast<unsigned char>(b)));
    return ids;
}

}  // namespace sparsight::text
