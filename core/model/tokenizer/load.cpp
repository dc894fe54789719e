#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/model/nearest.h"
#include "core/model/tokenizer/stages.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

using namespace text;  // this file's own names only; never in a header
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

bool flag(const json& stage, const char* key, bool fallback) {
    return stage.contains(key) && stage[key].is_boolean() ? stage[key].get<bool>() : fallback;
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

void addNormalizer(const json& stage, const std::string& where, std::vector<Form>& out) {
    static const std::map<std::string, Form> forms = {
        {"NFC", Form::NFC}, {"NFD", Form::NFD}, {"NFKC", Form::NFKC}, {"NFKD", Form::NFKD}};
    const std::string type = typeOf(stage, where);
    const auto it = forms.find(type);
    if (it == forms.end()) refuse(where, type, {"NFC", "NFD", "NFKC", "NFKD", "Sequence"});
    out.push_back(it->second);
}

SplitStage makeSplit(const json& stage, const std::string& where) {
    static const std::map<std::string, Behavior> behaviors = {
        {"Removed", Behavior::Removed},
        {"Isolated", Behavior::Isolated},
        {"MergedWithPrevious", Behavior::MergedWithPrevious},
        {"MergedWithNext", Behavior::MergedWithNext},
        {"Contiguous", Behavior::Contiguous}};
    const std::string name = stage.value("behavior", std::string("Isolated"));
    const auto behavior = behaviors.find(name);
    if (behavior == behaviors.end()) formatError(where, "Split has no behaviour \"" + name + "\"");
    const json pattern = stage.value("pattern", json());
    const auto text = [&](const char* key) {
        return pattern.is_object() && pattern.contains(key) && pattern[key].is_string();
    };
    if (text("Regex"))
        return {Regex(pattern["Regex"].get<std::string>(), where), behavior->second,
                flag(stage, "invert", false)};
    if (text("String"))
        return {Regex::literal(pattern["String"].get<std::string>(), where), behavior->second,
                flag(stage, "invert", false)};
    formatError(where, "Split needs a pattern {\"Regex\": ...} or {\"String\": ...}");
}

void addPreTokenizer(const json& stage, const std::string& where, std::vector<PreTokenizer>& out) {
    if (!out.empty() && std::holds_alternative<ByteLevelStage>(out.back()))
        throw Error(Errc::Unsupported, where + ": a stage behind ByteLevel is not supported");
    const std::string type = typeOf(stage, where);
    if (type == "Split") {
        out.emplace_back(makeSplit(stage, where));
    } else if (type == "Digits") {
        out.emplace_back(DigitsStage{flag(stage, "individual_digits", false)});
    } else if (type == "ByteLevel") {
        ByteLevelStage s{flag(stage, "add_prefix_space", true), std::nullopt};
        if (flag(stage, "use_regex", true)) s.pattern.emplace(kGpt2, where);
        out.emplace_back(std::move(s));
    } else {
        refuse(where, type, {"ByteLevel", "Digits", "Split", "Sequence"});
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
        if (flag(stage, "trim_offsets", true))
            out.emplace_back(TrimStage{flag(stage, "add_prefix_space", true)});
    } else if (type == "TemplateProcessing") {
        const json specials = stage.value("special_tokens", json::object());
        // Without a template of its own a pair is A and B, one behind the other.
        static const json plainPair = json::parse(
            R"([{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}])");
        out.emplace_back(
            TemplateStage{makeTemplate(stage.value("single", json()), specials, where),
                          makeTemplate(stage.value("pair", plainPair), specials, where)});
    } else if (type == "RobertaProcessing") {
        RobertaStage s{
            flag(stage, "trim_offsets", true), flag(stage, "add_prefix_space", true), 0, 0, {}, {}};
        readPair(stage, "cls", where, s.clsToken, s.cls);
        readPair(stage, "sep", where, s.sepToken, s.sep);
        out.emplace_back(std::move(s));
    } else {
        refuse(where, type, {"ByteLevel", "TemplateProcessing", "RobertaProcessing", "Sequence"});
    }
}

std::string normalizedContent(const std::vector<Form>& forms, std::string content) {
    for (const Form f : forms)
        content = normalize(f, content, std::vector<Span>(content.size())).text;
    return content;
}

/// Ids as the library gives them: the model's own for a token that it has, else running on.
void readAddedTokens(const json& list, const std::string& where, Tokenizer::Impl& t) {
    if (list.is_null()) return;
    if (!list.is_array()) formatError(where, "added_tokens must be a list");
    std::vector<std::pair<std::int64_t, AddedToken>> read;
    for (const json& item : list) {
        if (!item.is_object() || !item.contains("content") || !item["content"].is_string())
            formatError(where, "an added token needs the string \"content\"");
        AddedToken a;
        a.content = item["content"].get<std::string>();
        a.singleWord = flag(item, "single_word", false);
        a.lstrip = flag(item, "lstrip", false);
        a.rstrip = flag(item, "rstrip", false);
        a.special = flag(item, "special", false);
        a.normalized = flag(item, "normalized", !a.special);
        if (!item.contains("id") || !item["id"].is_number_unsigned() ||
            item["id"].get<std::uint64_t>() > (1u << 28))
            formatError(where, "added token \"" + a.content + "\" needs a whole number as id");
        if (!a.content.empty()) read.emplace_back(item["id"].get<std::int64_t>(), std::move(a));
    }
    std::stable_sort(read.begin(), read.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    auto next = std::int32_t(t.model.size());
    for (auto& [id, a] : read) {
        if (std::any_of(t.added.begin(), t.added.end(),
                        [&](const AddedToken& o) { return o.content == a.content; }))
            continue;
        a.id = t.model.idOf(a.content);
        if (a.id < 0) a.id = next;
        next = std::max(next, a.id + 1);
        a.match = a.normalized ? normalizedContent(t.normalizers, a.content) : a.content;
        t.addedIndex.emplace(a.id, t.added.size());
        t.added.push_back(std::move(a));
    }
    std::vector<int> raw, normalized;
    for (std::size_t i = 0; i < t.added.size(); ++i)
        (t.added[i].normalized ? normalized : raw).push_back(int(i));
    t.rawMatcher = AddedTokenMatcher(t.added, raw);
    t.normalizedMatcher = AddedTokenMatcher(t.added, normalized);
}

}  // namespace

std::shared_ptr<const Tokenizer::Impl> loadTokenizer(const json& file, const std::string& where) {
    if (!file.is_object()) formatError(where, "must be a JSON object");
    const auto part = [&](const char* key) { return file.contains(key) ? file[key] : json(); };
    if (!file.contains("model"))
        formatError(where, "has no \"model\": this is not a tokenizer.json");
    const json& model = file["model"];
    if (!model.is_object()) formatError(where, "\"model\" must be an object");
    // Old files leave the type out; merges tell a BPE.
    const std::string type =
        model.value("type", model.contains("merges") ? std::string("BPE") : std::string("unnamed"));
    if (type != "BPE") refuse(where + ": model", type, {"BPE (byte-level)"});

    auto t = std::make_shared<Tokenizer::Impl>();
    each(part("normalizer"), "normalizers", where + ": normalizer",
         [&](const json& s) { addNormalizer(s, where + ": normalizer", t->normalizers); });
    each(part("pre_tokenizer"), "pretokenizers", where + ": pre_tokenizer",
         [&](const json& s) { addPreTokenizer(s, where + ": pre_tokenizer", t->preTokenizers); });
    if (t->preTokenizers.empty() ||
        !std::holds_alternative<ByteLevelStage>(t->preTokenizers.back()))
        throw Error(Errc::Unsupported,
                    where +
                        ": BPE without the ByteLevel pre-tokenizer (SentencePiece style) is "
                        "not supported (supported: byte-level BPE)");
    t->model = Bpe::load(model, where);
    readAddedTokens(part("added_tokens"), where, *t);
    each(part("post_processor"), "processors", where + ": post_processor", [&](const json& s) {
        addPostProcessor(s, where + ": post_processor", t->postProcessors);
    });
    each(part("decoder"), "decoders", where + ": decoder", [&](const json& s) {
        const std::string kind = typeOf(s, where + ": decoder");
        if (kind != "ByteLevel") refuse(where + ": decoder", kind, {"ByteLevel"});
        t->byteLevelDecoder = true;
    });
    return t;
}

}  // namespace sparsight
