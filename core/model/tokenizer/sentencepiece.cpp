#include "core/model/tokenizer/sentencepiece.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/model/tokenizer/precompiled.h"
#include "core/model/tokenizer/unicode.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using nlohmann::json;

/// One field of a protocol buffer message: numbers in `number`, strings and messages in `bytes`.
struct Field {
    std::uint32_t id = 0;
    std::uint64_t number = 0;
    std::string_view bytes;
};

/// Reads the wire format of protocol buffers, field by field.
class ProtoReader {
public:
    ProtoReader(std::string_view bytes, const std::string& where) : m_rest(bytes), m_where(where) {}

    bool next(Field& f) {
        if (m_rest.empty()) return false;
        const std::uint64_t key = varint();
        f.id = std::uint32_t(key >> 3);
        f.bytes = {};
        switch (key & 7u) {
            case 0:
                f.number = varint();
                break;
            case 1:
                f.number = fixed(8);
                break;
            case 2:
                f.bytes = take(varint());
                break;
            case 5:
                f.number = fixed(4);
                break;
            default:
                damaged();
        }
        return true;
    }

private:
    [[noreturn]] void damaged() const {
        throw Error(Errc::Format, m_where + ": not a SentencePiece model, or damaged");
    }
    std::string_view take(std::uint64_t n) {
        if (n > m_rest.size()) damaged();
        const std::string_view out = m_rest.substr(0, std::size_t(n));
        m_rest.remove_prefix(std::size_t(n));
        return out;
    }
    std::uint64_t fixed(std::size_t n) {
        const std::string_view b = take(n);
        std::uint64_t v = 0;
        for (std::size_t i = n; i-- > 0;) v = v << 8 | static_cast<unsigned char>(b[i]);
        return v;
    }
    std::uint64_t varint() {
        std::uint64_t v = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const auto b = static_cast<unsigned char>(take(1)[0]);
            v |= std::uint64_t(b & 0x7fu) << shift;
            if (b < 0x80) return v;
        }
        damaged();
    }

    std::string_view m_rest;
    const std::string& m_where;
};

enum class PieceType { Normal = 1, Unknown, Control, UserDefined, Unused, Byte };

struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::Normal;
};

struct SpModel {
    std::vector<Piece> pieces;
    std::uint64_t modelType = 1;  ///< 1 Unigram, 2 BPE, 3 word, 4 char
    bool byteFallback = false;
    bool fairseq = false;  ///< numbered as fairseq does
    std::string charsMap;
    bool dummyPrefix = true, removeSpaces = true, escapeSpaces = true, spaceAsSuffix = false;
};

Piece readPiece(std::string_view bytes, const std::string& where) {
    Piece p;
    ProtoReader reader(bytes, where);
    for (Field f; reader.next(f);) {
        if (f.id == 1) p.text = f.bytes;
        if (f.id == 2) p.score = std::bit_cast<float>(std::uint32_t(f.number));
        if (f.id == 3 && f.number >= 1 && f.number <= 6) p.type = PieceType(f.number);
    }
    return p;
}

SpModel readModel(std::string_view bytes, const std::string& where) {
    SpModel m;
    ProtoReader reader(bytes, where);
    for (Field f; reader.next(f);) {
        if (f.id == 1) m.pieces.push_back(readPiece(f.bytes, where));
        if (f.id == 2) {
            ProtoReader spec(f.bytes, where);
            for (Field t; spec.next(t);) {
                if (t.id == 3) m.modelType = t.number;
                if (t.id == 24) m.spaceAsSuffix = t.number != 0;
                if (t.id == 35) m.byteFallback = t.number != 0;
            }
        }
        if (f.id == 3) {
            ProtoReader spec(f.bytes, where);
            for (Field n; spec.next(n);) {
                if (n.id == 2) m.charsMap = n.bytes;
                if (n.id == 3) m.dummyPrefix = n.number != 0;
                if (n.id == 4) m.removeSpaces = n.number != 0;
                if (n.id == 5) m.escapeSpaces = n.number != 0;
            }
        }
    }
    if (m.pieces.empty()) throw Error(Errc::Format, where + ": has no pieces");
    for (const Piece& p : m.pieces)
        if (text::firstInvalidUtf8(p.text) != std::string_view::npos)
            throw Error(Errc::Format, where + ": a piece is not UTF-8");
    if (m.modelType != 1 && m.modelType != 2)
        throw Error(Errc::Unsupported, where +
                                           ": SentencePiece models of words or characters are "
                                           "not supported (supported: Unigram and BPE)");
    if (m.spaceAsSuffix || !m.escapeSpaces)
        throw Error(Errc::Unsupported,
                    where +
                        ": SentencePiece with treat_whitespace_as_suffix or without "
                        "escape_whitespaces is not supported");
    return m;
}

/// SentencePiece merges the two neighbours whose union has the best score: as ranked pairs these
/// are all ways to cut each piece in two pieces, best piece first. User-defined symbols are found
/// in the text before; only those with spaces in them (Gemma's runs) are left to this.
json mergesOf(const SpModel& m) {
    std::unordered_map<std::string_view, std::size_t> ids;
    for (std::size_t i = 0; i < m.pieces.size(); ++i) ids.emplace(m.pieces[i].text, i);
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < m.pieces.size(); ++i)
        if (m.pieces[i].type == PieceType::Normal || m.pieces[i].type == PieceType::UserDefined)
            order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return m.pieces[a].score > m.pieces[b].score;
    });
    json merges = json::array();
    for (const std::size_t i : order) {
        const std::string_view piece = m.pieces[i].text;
        if (piece.size() > 1024) continue;  // no trainer makes such; cutting it costs its square
        std::vector<std::pair<std::size_t, std::size_t>> cuts;
        for (std::size_t at = 1; at < piece.size(); ++at) {
            const auto left = ids.find(piece.substr(0, at)), right = ids.find(piece.substr(at));
            if (left != ids.end() && right != ids.end())
                cuts.emplace_back(left->second, right->second);
        }
        std::sort(cuts.begin(), cuts.end());
        for (const auto& [left, right] : cuts)
            merges.push_back({m.pieces[left].text, m.pieces[right].text});
    }
    return merges;
}

bool flag(const json& config, const char* key, bool standard) {
    return config.is_object() && config.contains(key) && config[key].is_boolean()
               ? config[key].get<bool>()
               : standard;
}

json specialToken(const std::string& name) {
    return {{"SpecialToken", {{"id", name}, {"type_id", 0u}}}};
}

std::string classOf(const json& config, const char* standard) {
    return config.is_object() && config.contains("tokenizer_class") &&
                   config["tokenizer_class"].is_string()
               ? config["tokenizer_class"].get<std::string>()
               : standard;
}

/// Puts the pieces into the order of fairseq, in which XLM-RoBERTa and CamemBERT count: its own
/// special tokens, the model's pieces without those that it has already, the mask.
///
///     SentencePiece   <unk> <s> </s> a b ..
///     XLM-RoBERTa     <s> <pad> </s> <unk> a b .. <mask>
///     CamemBERT       <s>NOTUSED <pad> </s>NOTUSED <unk> <unk>NOTUSED <s> </s> a b .. <mask>
void numberAsFairseq(SpModel& m, const std::string& cls, const std::string& where) {
    const bool camembert = cls.find("Camembert") != std::string::npos;
    if (!camembert && cls.find("XLMRoberta") == std::string::npos &&
        cls.find("PreTrained") == std::string::npos)
        throw Error(Errc::Unsupported,
                    where + ": the numbers that " + cls +
                        " gives to its tokens are not known here (XLMRobertaTokenizer and "
                        "CamembertTokenizer are): save the tokenizer as tokenizer.json");
    const std::size_t skipped = camembert ? 1 : 3;
    if (m.modelType != 1 || m.pieces.size() < 3 || m.pieces[0].type != PieceType::Unknown ||
        m.pieces[1].text != "<s>" || m.pieces[2].text != "</s>")
        throw Error(Errc::Format, where + ": a " + cls +
                                      " needs a Unigram model that begins with <unk>, <s>, </s>");
    std::vector<Piece> list;
    if (camembert)
        list = {{"<s>NOTUSED", 0, PieceType::Control},
                {"<pad>", 0, PieceType::Control},
                {"</s>NOTUSED", 0, PieceType::Control},
                {"<unk>", 0, PieceType::Unknown},
                {"<unk>NOTUSED", -100, PieceType::Normal}};
    else
        list = {{"<s>", 0, PieceType::Control},
                {"<pad>", 0, PieceType::Control},
                {"</s>", 0, PieceType::Control},
                {"<unk>", 0, PieceType::Unknown}};
    list.insert(list.end(), m.pieces.begin() + std::ptrdiff_t(skipped), m.pieces.end());
    list.push_back({"<mask>", 0, PieceType::Control});
    m.pieces = std::move(list);
    m.fairseq = true;
}

/// <s> A, or A </s>, as the class of the tokenizer does when its config does not say; of fairseq's
/// <s> A </s>, and of a pair <s> A </s> </s> B </s>.
json postProcessor(const SpModel& m, const json& config) {
    const std::string cls = classOf(config, "LlamaTokenizer");
    const auto named = [&](const char* name) { return cls.find(name) != std::string::npos; };
    const bool llamaLike = named("Llama") || named("Gemma");
    const auto find = [&](const char* key, const char* standard) {
        std::string name = standard;
        if (config.is_object() && config.contains(key)) {
            const json& v = config[key];  // a string, or an added token
            if (v.is_string()) name = v.get<std::string>();
            if (v.is_object() && v.contains("content") && v["content"].is_string())
                name = v["content"].get<std::string>();
        }
        const auto it = std::find_if(m.pieces.begin(), m.pieces.end(), [&](const Piece& p) {
            return p.text == name && p.type != PieceType::Normal;
        });
        return std::pair(name, it == m.pieces.end() ? -1 : int(it - m.pieces.begin()));
    };
    const auto bos = find("bos_token", "<s>"), eos = find("eos_token", "</s>");
    json specials = json::object();
    const auto one = [&](const char* sequence) {
        json list = json::array();
        const bool second = *sequence == 'B';
        const auto add = [&](const std::pair<std::string, int>& token, bool wanted) {
            if (!wanted || token.second < 0) return;
            list.push_back(specialToken(token.first));
            specials[token.first] = {
                {"id", token.first}, {"ids", {token.second}}, {"tokens", {token.first}}};
        };
        add(m.fairseq && second ? eos : bos, flag(config, "add_bos_token", llamaLike || m.fairseq));
        list.push_back({{"Sequence", {{"id", sequence}, {"type_id", 0u}}}});
        add(eos, flag(config, "add_eos_token", named("T5") || named("Pegasus") || m.fairseq));
        return list;
    };
    json single = one("A"), pair = single;
    for (json& item : one("B")) pair.push_back(std::move(item));
    return {{"type", "TemplateProcessing"},
            {"single", std::move(single)},
            {"pair", std::move(pair)},
            {"special_tokens", std::move(specials)}};
}

}  // namespace

json sentencePieceAsJson(std::string_view bytes, const json& config, const std::string& where) {
    SpModel m = readModel(bytes, where);
    const std::string cls = classOf(config, "");
    if (where.ends_with("sentencepiece.bpe.model"))
        numberAsFairseq(m, cls.empty() ? "XLMRobertaTokenizer" : cls, where);
    json added = json::array(), model;
    const bool unigram = m.modelType == 1;
    json list = json::array(), table = json::object();
    json unknownId, unknownToken;
    for (std::size_t i = 0; i < m.pieces.size(); ++i) {
        const Piece& p = m.pieces[i];
        if (p.type == PieceType::Unknown) {
            unknownId = i;
            unknownToken = p.text;
        }
        const bool special = p.type == PieceType::Unknown || p.type == PieceType::Control;
        const bool spaced = p.text.find("\u2581") != std::string::npos;
        if (special || (p.type == PieceType::UserDefined && !spaced))
            added.push_back({{"id", i},
                             {"content", p.text},
                             {"single_word", false},
                             {"lstrip", m.fairseq && p.text == "<mask>"},
                             {"rstrip", false},
                             {"normalized", false},
                             {"special", special}});
        if (unigram)
            list.push_back({p.text, p.score});
        else
            table[p.text] = i;
    }
    if (unigram) {
        model = {{"type", "Unigram"},
                 {"unk_id", unknownId},
                 {"vocab", std::move(list)},
                 {"byte_fallback", m.byteFallback}};
    } else {
        model = {{"type", "BPE"},
                 {"unk_token", unknownToken},
                 {"fuse_unk", true},
                 {"byte_fallback", m.byteFallback},
                 {"vocab", std::move(table)},
                 {"merges", mergesOf(m)}};
    }
    const auto replace = [](const char* kind, const char* pattern, const char* content) {
        return json{{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
    };
    json normalizers = json::array();
    if (!m.charsMap.empty())
        normalizers.push_back(
            {{"type", "Precompiled"}, {"precompiled_charsmap", text::encodeBase64(m.charsMap)}});
    if (m.removeSpaces) {
        normalizers.push_back(replace("Regex", "\\A +|[ \u2581]+\\z", ""));
        normalizers.push_back(replace("Regex", " {2,}", " "));
    }
    if (m.dummyPrefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", "\u2581"}});
    normalizers.push_back(replace("String", " ", "\u2581"));
    json decoders = {
        replace("String", "\u2581", " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
    if (m.dummyPrefix)
        decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1u}, {"stop", 0u}});
    return {{"added_tokens", std::move(added)},
            {"normalizer", {{"type", "Sequence"}, {"normalizers", std::move(normalizers)}}},
            {"pre_tokenizer", nullptr},
            {"post_processor", postProcessor(m, config)},
            {"decoder", {{"type", "Sequence"}, {"decoders", std::move(decoders)}}},
            {"model", std::move(model)}};
}

}  // namespace sparsight
