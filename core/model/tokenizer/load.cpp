#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/model/nearest.h"
#include "core/model/tokenizer/stages.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using namespace sparsight::text;  // this file's own names only; never in a header
using nlohmann::json;

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr int kMaxNesting = 16;

[[noreturn]] void formatError(const std::string& where, const std::string& rule) {
    throw Error(Errc::Format, where + ": " + rule);
}

std::string typeOf(const json& stage, const std::string& where) {
    if (!stage.is_object() || !stage.contains("type") || !stage["type"].is_string())
        formatError(where, "must be an object with a \"type\"");
    return stage["type"].get<std::string>();
}

[[noreturn]] void refuse(const std::string& where, const std::string& type,
                         const std::vector<std::string>& supported) {
    throw Error(Errc::Unsupported, where + " of type \"" + type + "\" is not supported (" +
                                       supportedSentence(type, supported) + ")");
}

bool flag(const json& stage, const char* key, bool fallback, const std::string& where) {
    if (!stage.contains(key) || stage[key].is_null()) return fallback;
    if (!stage[key].is_boolean()) formatError(where, std::string(key) + " must be true or false");
    return stage[key].get<bool>();
}

/// Calls `one(stage)` for a stage, or for each member of a Sequence.
template <class One>
void each(const json& stage, const char* listKey, const std::string& where, const One& one,
          int depth = 0) {
    if (stage.is_null()) return;
    if (depth > kMaxNesting) formatError(where, "sequences are nested too deeply");
    if (typeOf(stage, where) != "Sequence") return one(stage);
    if (!stage.contains(listKey) || !stage[listKey].is_array())
        formatError(where, std::string("a Sequence needs the list \"") + listKey + "\"");
    for (const json& member : stage[listKey]) each(member, listKey, where, one, depth + 1);
}

std::string textOf(const json& stage, const char* key, const std::string& where) {
    if (!stage.contains(key) || !stage[key].is_string())
        formatError(where, std::string("needs the string \"") + key + "\"");
    return stage[key].get<std::string>();
}

/// A string of exactly one character.
char32_t character(const json& stage, const char* key, const std::string& where) {
    const std::string s = textOf(stage, key, where);
    if (s.empty() || codePointAt(s, 0).bytes != s.size())
        formatError(where, std::string(key) + " must be one character");
    return codePointAt(s, 0).value;
}

std::size_t count(const json& stage, const char* key, const std::string& where) {
    const json value = stage.value(key, json());
    if (!value.is_number_unsigned())
        formatError(where, std::string(key) + " must be a whole number");
    return value.get<std::size_t>();
}

Regex pattern(const json& stage, const std::string& where) {
    const json p = stage.value("pattern", json());
    const auto has = [&](const char* key) {
        return p.is_object() && p.contains(key) && p[key].is_string();
    };
    if (has("Regex")) return {p["Regex"].get<std::string>(), where};
    if (has("String")) return Regex::literal(p["String"].get<std::string>(), where);
    formatError(where, "needs a pattern {\"Regex\": ...} or {\"String\": ...}");
}

void addNormalizer(const json& stage, const std::string& where, std::vector<Normalizer>& out) {
    static const std::map<std::string, Normalizer> plain = {
        {"NFC", Form::NFC},
        {"NFD", Form::NFD},
        {"NFKC", Form::NFKC},
        {"NFKD", Form::NFKD},
        {"Lowercase", LowercaseNormalizer{}},
        {"StripAccents", StripAccentsNormalizer{}},
        {"Nmt", NmtNormalizer{}},
        {"ByteLevel", ByteLevelNormalizer{}}};
    const std::string type = typeOf(stage, where);
    if (const auto it = plain.find(type); it != plain.end()) {
        out.push_back(it->second);
    } else if (type == "Strip") {
        out.push_back(StripNormalizer{flag(stage, "strip_left", true, where),
                                      flag(stage, "strip_right", true, where)});
    } else if (type == "Replace") {
        out.push_back(ReplaceNormalizer{pattern(stage, where), textOf(stage, "content", where)});
    } else if (type == "Prepend") {
        out.push_back(PrependNormalizer{textOf(stage, "prepend", where)});
    } else if (type == "BertNormalizer") {
        const bool lowercase = flag(stage, "lowercase", true, where);
        out.push_back(BertNormalizer{flag(stage, "clean_text", true, where),
                                     flag(stage, "handle_chinese_chars", true, where),
                                     flag(stage, "strip_accents", lowercase, where), lowercase});
    } else if (type == "Precompiled") {
        if (stage.contains("precompiled_charsmap") && stage["precompiled_charsmap"].is_null())
            return;
        const std::string map = decodeBase64(textOf(stage, "precompiled_charsmap", where), where);
        if (!map.empty())
            out.push_back(PrecompiledNormalizer{std::make_shared<CharsMap>(map, where)});
    } else {
        refuse(where, type,
               {"BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt",
                "Precompiled", "Prepend", "Replace", "Sequence", "Strip", "StripAccents"});
    }
}

Behavior behavior(const json& stage, const std::string& where) {
    static const std::map<std::string, Behavior> behaviors = {
        {"Removed", Behavior::Removed},
        {"Isolated", Behavior::Isolated},
        {"MergedWithPrevious", Behavior::MergedWithPrevious},
        {"MergedWithNext", Behavior::MergedWithNext},
        {"Contiguous", Behavior::Contiguous}};
    const std::string name =
        stage.contains("behavior") ? textOf(stage, "behavior", where) : std::string("Isolated");
    const auto it = behaviors.find(name);
    if (it == behaviors.end()) formatError(where, "there is no behaviour \"" + name + "\"");
    return it->second;
}

MetaspaceStage makeMetaspace(const json& stage, const std::string& where) {
    using Prepend = MetaspaceStage::Prepend;
    std::string replacement;
    appendUtf8(replacement,
               stage.contains("replacement") ? character(stage, "replacement", where) : U'\u2581');
    Prepend prepend =
        flag(stage, "add_prefix_space", true, where) ? Prepend::Always : Prepend::Never;
    if (stage.contains("prepend_scheme")) {
        const std::string scheme = textOf(stage, "prepend_scheme", where);
        if (scheme != "always" && scheme != "first" && scheme != "never")
            formatError(where, "prepend_scheme is always, first or never, not \"" + scheme + "\"");
        if (prepend != Prepend::Never)
            prepend = scheme == "always"  ? Prepend::Always
                      : scheme == "first" ? Prepend::First
                                          : Prepend::Never;
    }
    return {prepend, replacement, Regex::literal(" ", where), Regex::literal(replacement, where),
            flag(stage, "split", true, where)};
}

void addPreTokenizer(const json& stage, const std::string& where, std::vector<PreTokenizer>& out) {
    using Kind = CharSplitStage::Kind;
    const std::string type = typeOf(stage, where);
    if (type == "Split") {
        out.emplace_back(SplitStage{pattern(stage, where), behavior(stage, where),
                                    flag(stage, "invert", false, where)});
    } else if (type == "Digits") {
        out.emplace_back(CharSplitStage{Kind::Digits, flag(stage, "individual_digits", false, where)
                                                          ? Behavior::Isolated
                                                          : Behavior::Contiguous});
    } else if (type == "ByteLevel") {
        ByteLevelStage s{flag(stage, "add_prefix_space", true, where), std::nullopt};
        if (flag(stage, "use_regex", true, where)) s.pattern.emplace(kGpt2, where);
        out.emplace_back(std::move(s));
    } else if (type == "Metaspace") {
        out.emplace_back(makeMetaspace(stage, where));
    } else if (type == "Whitespace") {
        out.emplace_back(WhitespaceStage{});
    } else if (type == "WhitespaceSplit") {
        out.emplace_back(CharSplitStage{Kind::WhiteSpace, Behavior::Removed});
    } else if (type == "BertPreTokenizer") {
        out.emplace_back(CharSplitStage{Kind::WhiteSpace, Behavior::Removed});
        out.emplace_back(CharSplitStage{Kind::Punctuation, Behavior::Isolated});
    } else if (type == "Punctuation") {
        out.emplace_back(CharSplitStage{Kind::Punctuation, behavior(stage, where)});
    } else if (type == "CharDelimiterSplit") {
        out.emplace_back(CharSplitStage{Kind::Delimiter, Behavior::Removed,
                                        character(stage, "delimiter", where)});
    } else if (type == "UnicodeScripts") {
        out.emplace_back(ScriptsStage{});
    } else if (type == "FixedLength") {
        const std::size_t length = stage.contains("length") ? count(stage, "length", where) : 5;
        if (length == 0) formatError(where, "length must be at least 1");
        out.emplace_back(FixedLengthStage{length});
    } else {
        refuse(where, type,
               {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength",
                "Metaspace", "Punctuation", "Sequence", "Split", "UnicodeScripts", "Whitespace",
                "WhitespaceSplit"});
    }
}

std::vector<TemplatePiece> makeTemplate(const json& list, const json& specials,
                                        const std::string& where) {
    std::vector<TemplatePiece> out;
    if (!list.is_array()) formatError(where, "a template must be a list");
    for (const json& item : list) {
        const bool special = item.is_object() && item.contains("SpecialToken");
        if (!special && !(item.is_object() && item.contains("Sequence")))
            formatError(where, "a template holds SpecialToken and Sequence entries only");
        const json& body = item[special ? "SpecialToken" : "Sequence"];
        if (!body.is_object() || !body.contains("id") || !body["id"].is_string())
            formatError(where, "a template entry needs the string \"id\"");
        const auto id = body["id"].get<std::string>();
        TemplatePiece piece;
        const json type = body.value("type_id", json(0));
        if (!type.is_number_unsigned() || type.get<std::uint64_t>() > 255)
            formatError(where, "type_id must be from 0 to 255");
        piece.typeId = type.get<std::uint8_t>();
        if (!special) {
            if (id != "A" && id != "B")
                formatError(where, "a Sequence is A or B, not \"" + id + "\"");
            piece.sequence = id == "B" ? 1 : 0;
        } else {
            if (!specials.contains(id)) formatError(where, "special_tokens lacks \"" + id + "\"");
            try {
                piece.ids = specials[id].at("ids").get<std::vector<std::int32_t>>();
                piece.tokens = specials[id].at("tokens").get<std::vector<std::string>>();
            } catch (const json::exception&) {
                formatError(where, "special token \"" + id + "\" needs lists of ids and tokens");
            }
            if (piece.ids.size() != piece.tokens.size())
                formatError(
                    where, "special token \"" + id + "\" has as many ids as tokens, or is damaged");
        }
        out.push_back(std::move(piece));
    }
    return out;
}

void readPair(const json& stage, const char* key, const std::string& where, std::string& token,
              std::int32_t& id) {
    try {
        token = stage.at(key).at(0).get<std::string>();
        id = stage.at(key).at(1).get<std::int32_t>();
    } catch (const json::exception&) {
        formatError(where, std::string(key) + " must be a token and its id");
    }
}

void addPostProcessor(const json& stage, const std::string& where,
                      std::vector<PostProcessor>& out) {
    const std::string type = typeOf(stage, where);
    if (type == "ByteLevel") {
        if (flag(stage, "trim_offsets", true, where))
            out.emplace_back(TrimStage{flag(stage, "add_prefix_space", true, where)});
    } else if (type == "TemplateProcessing") {
        const json specials = stage.value("special_tokens", json::object());
        // Without a template of its own a pair is A and B, one behind the other.
        static const json plainPair = json::parse(
            R"([{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}])");
        out.emplace_back(
            TemplateStage{makeTemplate(stage.value("single", json()), specials, where),
                          makeTemplate(stage.value("pair", plainPair), specials, where)});
    } else if (type == "RobertaProcessing" || type == "BertProcessing") {
        ClsSepStage s{type == "RobertaProcessing",
                      flag(stage, "trim_offsets", true, where),
                      flag(stage, "add_prefix_space", true, where),
                      0,
                      0,
                      {},
                      {}};
        readPair(stage, "cls", where, s.clsToken, s.cls);
        readPair(stage, "sep", where, s.sepToken, s.sep);
        out.emplace_back(std::move(s));
    } else {
        refuse(
            where, type,
            {"BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"});
    }
}

void addDecoder(const json& stage, const std::string& where, std::vector<Decoder>& out) {
    const std::string type = typeOf(stage, where);
    const auto option = [&](const char* key, const char* standard) {
        return stage.contains(key) ? textOf(stage, key, where) : std::string(standard);
    };
    if (type == "ByteLevel") {
        out.push_back(ByteLevelDecoder{});
    } else if (type == "Metaspace") {
        const MetaspaceStage s = makeMetaspace(stage, where);
        out.push_back(MetaspaceDecoder{codePointAt(s.replacement, 0).value,
                                       s.prepend != MetaspaceStage::Prepend::Never});
    } else if (type == "WordPiece") {
        out.push_back(
            WordPieceDecoder{option("prefix", "##"), flag(stage, "cleanup", true, where)});
    } else if (type == "BPEDecoder") {
        out.push_back(BpeDecoder{option("suffix", "</w>")});
    } else if (type == "CTC") {
        out.push_back(CtcDecoder{option("pad_token", "<pad>"), option("word_delimiter_token", "|"),
                                 flag(stage, "cleanup", true, where)});
    } else if (type == "ByteFallback") {
        out.push_back(ByteFallbackDecoder{});
    } else if (type == "Fuse") {
        out.push_back(FuseDecoder{});
    } else if (type == "Strip") {
        out.push_back(StripDecoder{character(stage, "content", where), count(stage, "start", where),
                                   count(stage, "stop", where)});
    } else if (type == "Replace") {
        out.push_back(ReplaceDecoder{pattern(stage, where), textOf(stage, "content", where)});
    } else {
        refuse(where, type,
               {"BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace",
                "Sequence", "Strip", "WordPiece"});
    }
}

std::string normalizedContent(const std::vector<Normalizer>& stages, const std::string& content) {
    Arena arena;
    Chunk chunk{content, 0, nullptr};
    for (const Normalizer& stage : stages) chunk = normalize(stage, chunk, arena);
    return std::string(chunk.text);
}

/// Ids as the library gives them: the model's own for a token that it has, else running on in the
/// order of the list.
void readAddedTokens(const json& list, const std::string& where, Tokenizer::Impl& t) {
    if (list.is_null()) return;
    if (!list.is_array()) formatError(where, "added_tokens must be a list");
    std::vector<std::pair<std::int64_t, AddedToken>> read;
    for (const json& item : list) {
        if (!item.is_object() || !item.contains("content") || !item["content"].is_string())
            formatError(where, "an added token needs the string \"content\"");
        AddedToken a;
        a.content = item["content"].get<std::string>();
        const std::string who = where + ": added token \"" + a.content + "\"";
        a.singleWord = flag(item, "single_word", false, who);
        a.lstrip = flag(item, "lstrip", false, who);
        a.rstrip = flag(item, "rstrip", false, who);
        a.special = flag(item, "special", false, who);
        a.normalized = flag(item, "normalized", !a.special, who);
        if (!item.contains("id") || !item["id"].is_number_unsigned() ||
            item["id"].get<std::uint64_t>() > (1u << 28))
            formatError(who, "needs a whole number as id");
        if (!a.content.empty()) read.emplace_back(item["id"].get<std::int64_t>(), std::move(a));
    }
    std::set<std::string> seen;
    auto next = std::int32_t(t.vocab().size());
    for (auto& [id, a] : read) {
        if (!seen.insert(a.content).second) continue;
        a.id = t.vocab().idOf(a.content);
        if (a.id < 0) a.id = next;
        next = std::max(next, a.id + 1);
        if (a.id != id)
            t.notes.push_back("added token \"" + a.content + "\" has the id " +
                              std::to_string(a.id) + ", not " + std::to_string(id) +
                              " as the file says");
        a.match = a.normalized ? normalizedContent(t.normalizers, a.content) : a.content;
        if (a.special) t.specials.insert(a.content);
        t.addedIndex.emplace(a.id, t.added.size());
        t.added.push_back(std::move(a));
    }
    std::vector<int> raw, normalized;  // of equal texts the special token wins
    for (const bool special : {true, false})
        for (std::size_t i = 0; i < t.added.size(); ++i)
            if (t.added[i].special == special)
                (t.added[i].normalized ? normalized : raw).push_back(int(i));
    t.rawMatcher = AddedTokenMatcher(t.added, raw);
    t.normalizedMatcher = AddedTokenMatcher(t.added, normalized);
}

/// Old files leave the type out.
std::string modelType(const json& model, const std::string& where) {
    if (model.contains("type") && !model["type"].is_null()) return typeOf(model, where);
    if (model.contains("merges")) return "BPE";
    if (model.contains("vocab") && model["vocab"].is_array()) return "Unigram";
    return model.contains("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

Model loadModel(const json& model, const std::string& where) {
    const std::string type = modelType(model, where + ": model");
    if (type == "BPE") return Bpe::load(model, where);
    if (type == "Unigram") return Unigram::load(model, where);
    if (type == "WordPiece") return WordPiece::load(model, where);
    if (type == "WordLevel") return WordLevel::load(model, where);
    refuse(where + ": model", type, {"BPE", "Unigram", "WordLevel", "WordPiece"});
}

/// Bytes need not be spelled in the byte-level alphabet when the model can take them as they are.
void useRawBytes(Tokenizer::Impl& t) {
    const auto* bpe = std::get_if<Bpe>(&t.model);
    if (bpe == nullptr || !bpe->byteLevel() || t.preTokenizers.empty()) return;
    for (PreTokenizer& p : t.preTokenizers) {
        auto* bytes = std::get_if<ByteLevelStage>(&p);
        if (bytes != nullptr && &p != &t.preTokenizers.back()) return;
        if (&p != &t.preTokenizers.back()) continue;
        t.rawBytes = bytes != nullptr;
        if (bytes != nullptr) bytes->spell = false;
    }
}

std::string kindOf(const Tokenizer::Impl& t) {
    static const char* const names[] = {"BPE", "Unigram", "WordPiece", "WordLevel"};
    std::string name = names[t.model.index()];
    const auto* bpe = std::get_if<Bpe>(&t.model);
    if (t.rawBytes) return "byte-level " + name;
    return bpe != nullptr && bpe->byteFallback() ? "SentencePiece " + name : name;
}

}  // namespace

std::shared_ptr<const Tokenizer::Impl> loadTokenizer(const json& file, const std::string& where) {
    if (!file.is_object()) formatError(where, "must be a JSON object");
    const auto part = [&](const char* key) { return file.contains(key) ? file[key] : json(); };
    if (const json version = part("version"); !version.is_null() && version != "1.0")
        throw Error(Errc::Unsupported, where + ": version " +
                                           version.dump(-1, ' ', true).substr(0, 40) +
                                           " is not supported (\"1.0\" is)");
    if (!file.contains("model"))
        formatError(where, "has no \"model\": this is not a tokenizer.json");
    const json& model = file["model"];
    if (!model.is_object()) formatError(where, "\"model\" must be an object");

    auto t = std::make_shared<Tokenizer::Impl>();
    each(part("normalizer"), "normalizers", where + ": normalizer",
         [&](const json& s) { addNormalizer(s, where + ": normalizer", t->normalizers); });
    each(part("pre_tokenizer"), "pretokenizers", where + ": pre_tokenizer",
         [&](const json& s) { addPreTokenizer(s, where + ": pre_tokenizer", t->preTokenizers); });
    t->model = loadModel(model, where);
    useRawBytes(*t);
    t->kind = kindOf(*t);
    readAddedTokens(part("added_tokens"), where, *t);
    each(part("post_processor"), "processors", where + ": post_processor", [&](const json& s) {
        addPostProcessor(s, where + ": post_processor", t->postProcessors);
    });
    t->spaced = part("decoder").is_null();
    each(part("decoder"), "decoders", where + ": decoder",
         [&](const json& s) { addDecoder(s, where + ": decoder", t->decoders); });
    for (const char* ignored : {"truncation", "padding"})
        if (!part(ignored).is_null())
            t->notes.push_back(std::string("the tokenizer's ") + ignored + " is not applied");
    return t;
}

}  // namespace sparsight
