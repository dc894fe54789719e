#include "core/export/plan_export.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>

#include "core/export/write_file.h"
#include "core/masks/retrieval_heads.h"
#include "core/model/json_input.h"
#include "core/model/nearest.h"

namespace sparsight {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr ExportTarget kTargets[] = {
    {"minference", "MInference JSON", false},
    {"duoattention", "DuoAttention pattern folder", true},
    {"csv", "CSV table", false},
};
constexpr std::size_t kMaxBytes = std::size_t(64) << 20;

// What MInference's loader does on its own (minference_forward.py): a missing head takes the first
// pair; sizes below the floors are raised to them.
constexpr double kMissingVertical = 1000, kMissingSlash = 6096;
/// Written for a dense head when the model's longest prompt is not known.
constexpr Index kHuge = 1048576;

MethodSpec denseSpec() {
    return {"dense", {}};
}
MethodSpec aShape(double sink, double window) {
    return {"a-shape", {{{"sink", sink}, {"window", window}}, {}}};
}
MethodSpec verticalSlash(double vertical, double slash) {
    return completed({"vertical-slash", {{{"vertical", vertical}, {"slash", slash}}, {}}});
}

/// The plan of one phase, [L * Hq], as it stands for the longest prompts.
std::vector<MethodSpec> table(const AttentionPlan& plan, Phase phase) {
    constexpr Index kLongest = Index(1) << 40;
    const Index length = plan.maxPlanLength.value_or(kLongest);
    std::vector<MethodSpec> specs;
    for (Index l = 0; l < plan.model.layers; ++l)
        for (Index h = 0; h < plan.model.heads; ++h)
            specs.push_back(completed(plan.methodAt(l, h, phase, length)));
    return specs;
}

std::vector<double> scores(const AttentionPlan& plan) {
    std::vector<double> all(std::size_t(plan.model.layers * plan.model.heads), NAN);
    const Index group = plan.model.heads / plan.model.kvHeads;
    const auto in = [](const std::vector<Index>& list, Index i) {
        return list.empty() || std::find(list.begin(), list.end(), i) != list.end();
    };
    for (const auto& rule : plan.rules)
        for (Index l = 0; l < plan.model.layers; ++l)
            for (Index h = 0; h < plan.model.heads; ++h)
                if (in(rule.layers, l) && in(rule.qHeads, h) && in(rule.kvHeads, h / group))
                    all[std::size_t(l * plan.model.heads + h)] = rule.score.value_or(NAN);
    return all;
}

/// Decode rows of a method without a decode rule are dense.
MethodSpec decodeSpec(const MethodSpec& spec) {
    return method(spec.id).decodes ? spec : denseSpec();
}

/// What a target cannot say. It refuses when another mask would run in its place; where the target
/// is dense and the plan is not, nothing of the attention is lost and it is only listed.
struct Loss {
    bool refuses;
    std::string text;
    std::vector<Index> heads;  ///< layer * Hq + head; empty = the whole plan
};

struct Losses {
    std::vector<Loss> list;
    void add(bool refuses, const std::string& text, Index head) {
        for (Loss& loss : list)
            if (loss.refuses == refuses && loss.text == text && !loss.heads.empty()) {
                loss.heads.push_back(head);
                return;
            }
        list.push_back({refuses, text, {head}});
    }
    void add(bool refuses, const std::string& text) { list.push_back({refuses, text, {}}); }
};

std::string headNames(const PlanModel& model, const std::vector<Index>& heads, std::size_t most) {
    if (Index(heads.size()) == model.layers * model.heads) return "all heads";
    std::string names;
    for (std::size_t i = 0; i < std::min(most, heads.size()); ++i)
        names +=
            fmt::format("{}L{}H{}", i ? ", " : "", heads[i] / model.heads, heads[i] % model.heads);
    if (heads.size() > most) names += fmt::format(" and {} more", heads.size() - most);
    return names;
}

std::string sentence(const PlanModel& model, const Loss& loss, std::size_t most) {
    if (loss.heads.empty()) return loss.text;
    return fmt::format("{}: {}", headNames(model, loss.heads, most), loss.text);
}

/// A plan put into a target's form: files by name within the target, and what got lost.
struct Rendered {
    std::vector<std::pair<std::string, std::string>> files;
    Losses losses;
};

void addLengthLoss(const AttentionPlan& plan, Losses& losses) {
    for (const auto& rule : plan.rules)
        if (rule.minLength || rule.maxLength) {
            losses.add(true,
                       "rules that depend on the prompt's length: the target will use those "
                       "for the longest prompts at every length");
            return;
        }
}

/// The model's longest prompt, where it can be found.
Index longestPrompt(const AttentionPlan& plan) {
    if (plan.maxPlanLength) return *plan.maxPlanLength;
    try {
        const ModelConfig config = readConfig(resolveModel(plan.model.name));
        if (config.sha256 == plan.model.configSha256 && config.maxPositions > 0)
            return config.maxPositions;
    } catch (const Error&) {
        // The plan may come from a machine that has the model; a huge size means the same.
    }
    return kHuge;
}

struct MInferenceEntry {
    std::string type;
    Index a = 0, b = 0;
};

MInferenceEntry minferenceEntry(const MethodSpec& spec, Index dense) {
    const auto number = [&](const char* name) { return Index(spec.params.numbers.at(name)); };
    if (spec.id == "a-shape") return {"stream_llm", number("sink"), number("window")};
    if (spec.id == "vertical-slash")
        return {"vertical_and_slash", number("vertical"), number("slash")};
    return {"vertical_and_slash", dense, dense};
}

Rendered renderMInference(const AttentionPlan& plan) {
    Rendered out;
    const Index L = plan.model.layers, H = plan.model.heads, dense = longestPrompt(plan);
    const auto prefill = table(plan, Phase::Prefill), decode = table(plan, Phase::Decode);
    const auto score = scores(plan);
    addLengthLoss(plan, out.losses);
    std::string text = "[";
    for (Index l = 0; l < L; ++l) {
        text += l ? ",\n {" : "{";
        for (Index h = 0; h < H; ++h) {
            const Index at = l * H + h;
            const MethodSpec& spec = prefill[std::size_t(at)];
            const MInferenceEntry e = minferenceEntry(spec, dense);
            const double s = score[std::size_t(at)];
            text += fmt::format("{}\"{}\": [\"{}\", {}, {}, {}]", h ? ", " : "", h, e.type, e.a,
                                e.b, Json(std::isfinite(s) ? s : 1.0).dump());
            if (spec.id != "dense" && spec.id != "a-shape" && spec.id != "vertical-slash")
                out.losses.add(true,
                               fmt::format("MInference will use dense attention, the plan says {}",
                                           toString(spec)),
                               at);
            if (spec.id == "vertical-slash") {
                const MethodSpec kept = verticalSlash(double(e.a), double(e.b));
                if (!(kept == spec))
                    out.losses.add(true,
                                   fmt::format("MInference will use {}, the plan says {}",
                                               toString(kept), toString(spec)),
                                   at);
                else if (e.a >= dense && e.b >= dense)
                    out.losses.add(false, "the sizes keep every pair; they are read back as dense",
                                   at);
            }
            const MethodSpec row = decodeSpec(decode[std::size_t(at)]);
            if (row.id != "dense")
                out.losses.add(false,
                               fmt::format("in decode rows MInference is dense, the plan says {}",
                                           toString(row)),
                               at);
        }
        text += "}";
    }
    out.files.emplace_back("", text + "]\n");
    return out;
}

Rendered renderDuo(const AttentionPlan& plan) {
    Rendered out;
    const Index L = plan.model.layers, H = plan.model.heads, Hkv = plan.model.kvHeads;
    const Index group = H / Hkv;
    const bool decodes =
        std::find(plan.phases.begin(), plan.phases.end(), Phase::Decode) != plan.phases.end();
    const auto prefill = table(plan, Phase::Prefill);
    // Streaming acts on decode rows and later chunks, so the decode rules are the ones to write.
    const auto specs = decodes ? table(plan, Phase::Decode) : prefill;
    addLengthLoss(plan, out.losses);

    std::map<std::string, Index> counts;
    MethodSpec stream = aShape(64, 256);
    Index most = 0;
    for (const MethodSpec& s : specs)
        if (s.id == "a-shape" && ++counts[toString(s)] > most) {
            most = counts[toString(s)];
            stream = s;
        }
    if (stream.params.numbers.at("window") < 1) stream.params.numbers["window"] = 1;

    std::string tsv;
    Index zeros = 0;
    for (Index l = 0; l < L; ++l)
        for (Index g = 0; g < Hkv; ++g) {
            const auto first = specs.begin() + (l * H + g * group);
            const bool full = std::any_of(first, first + group,
                                          [](const MethodSpec& s) { return s.id != "a-shape"; });
            zeros += !full;
            tsv += full ? "1.0" : "0.0";
            tsv += g + 1 < Hkv ? '\t' : '\n';
            for (Index h = g * group; h < (g + 1) * group; ++h) {
                const Index at = l * H + h;
                const MethodSpec& s = specs[std::size_t(at)];
                const MethodSpec& p = prefill[std::size_t(at)];
                const bool known = s.id == "dense" || s.id == "a-shape";
                const MethodSpec used = full ? denseSpec() : stream;
                if (!(used == s))
                    out.losses.add(
                        true,
                        known && full ? fmt::format("DuoAttention will use dense attention (a KV "
                                                    "head of the group is dense), the plan says {}",
                                                    toString(s))
                                      : fmt::format("DuoAttention will use {}, the plan says {}",
                                                    toString(used), toString(s)),
                        at);
                if (decodes && !(p == s) && p.id != "dense")
                    out.losses.add(
                        true, fmt::format("in the prefill DuoAttention cannot use {}", toString(p)),
                        at);
                else if (p.id == "a-shape")
                    out.losses.add(false,
                                   fmt::format("a prompt in one piece is prefilled dense (later "
                                               "chunks stream), the plan says {}",
                                               toString(p)),
                                   at);
            }
        }
    if (L == 1 || Hkv == 1)
        out.losses.add(true,
                       "duo_attn reads a table of one layer or one KV head as one-dimensional "
                       "and fails");
    const double sparsity = double(zeros) / double(L * Hkv);
    // A cache length: the query itself is not in it, while our window counts it.
    const Index sink = Index(stream.params.numbers.at("sink"));
    const Index recent = Index(stream.params.numbers.at("window")) - 1;
    out.files.emplace_back("full_attention_heads.tsv", tsv);
    out.files.emplace_back(
        "config.json", fmt::format("{{\"sink_size\": {}, \"recent_size\": {}, \"sparsity\": {}}}\n",
                                   sink, recent, Json(sparsity).dump()));
    out.files.emplace_back(
        "USE.md",
        fmt::format(
            "# How to load this pattern\n\nGates are exactly 0 or 1; with this sparsity the "
            "loader's cut always selects the ones.\n\n```python\n"
            "g, sink, recent = load_attn_pattern(\"<this folder>\")\n"
            "g, _ = sparsify_attention_heads(g, sparsity={})\n"
            "enable_duo_attention_eval(model, g, sink, recent)\n```\n",
            Json(sparsity).dump()));
    return out;
}

std::string paramsText(const MethodSpec& spec) {
    const std::string text = toString(spec);
    const std::size_t colon = text.find(':');
    return colon == text.npos ? "" : "\"" + text.substr(colon + 1) + "\"";
}

Rendered renderCsv(const AttentionPlan& plan) {
    Rendered out;
    addLengthLoss(plan, out.losses);
    out.files.emplace_back("", planCsv(plan));
    return out;
}

Rendered render(const AttentionPlan& plan, std::string_view target) {
    if (target == "minference") return renderMInference(plan);
    if (target == "duoattention") return renderDuo(plan);
    return renderCsv(plan);
}

/// Where the plan and LOSS.md stand: inside a folder, else beside the file under its own stem, so
/// that two exports in one folder do not overwrite each other.
fs::path companion(const fs::path& path, bool directory, const char* name) {
    if (directory) return path / name;
    fs::path stem = path.parent_path() / path.stem();
    stem += std::string(".") + name;
    return stem;
}

std::string lossReport(const AttentionPlan& plan, const ExportTarget& target,
                       const Losses& losses) {
    std::string text =
        fmt::format("# What {} cannot say of plan {}\n\nModel {} (config SHA-256 {}).\n\n",
                    target.title, plan.uuid, plan.model.name, plan.model.configSha256);
    for (const Loss& loss : losses.list)
        text += fmt::format("- {}{}\n", loss.refuses ? "**Other mask.** " : "Dense instead. ",
                            sentence(plan.model, loss, std::numeric_limits<std::size_t>::max()));
    return text;
}

// ---------------------------------------------------------------------------------- import

/// What a file of another tool says: a table per phase that it speaks of, [L * Hq].
struct Imported {
    std::string target;
    std::vector<MethodSpec> prefill, decode;
    std::vector<double> scores;
};

std::string headPath(const std::string& origin, Index layer, Index head) {
    return fmt::format("{}: layer {}, head {}", origin, layer, head);
}

double sizeOf(const Json& value, const std::string& where, const char* name) {
    const bool whole = value.is_number() && std::isfinite(value.get<double>()) &&
                       value.get<double>() == std::trunc(value.get<double>());
    if (!whole || value.get<double>() < 0)
        throw Error(Errc::Format, fmt::format("{}: {} should be a whole number >= 0", where, name));
    return value.get<double>();
}

MethodSpec minferenceMethod(const Json& entry, const std::string& where, const ModelConfig& model) {
    if (!entry.is_array() || entry.size() != 4)
        throw Error(Errc::Format, where + " should be a list of four: type, two sizes, score");
    if (!entry[0].is_string()) throw Error(Errc::Format, where + ": the type should be a text");
    const auto type = entry[0].get<std::string>();
    if (type == "block_sparse")
        throw Error(Errc::Unsupported,
                    where +
                        " is block_sparse (MInference's top 100 blocks of 64 x 64 by mean-pooled "
                        "scores), a method that is not offered here");
    if (type != "vertical_and_slash" && type != "stream_llm")
        throw Error(Errc::Format,
                    fmt::format("{} has the type '{}'; {}", where, type,
                                supportedSentence(type, {"vertical_and_slash", "stream_llm"})));
    const double a = sizeOf(entry[1], where, "the first size");
    const double b = sizeOf(entry[2], where, "the second size");
    if (!entry[3].is_number()) throw Error(Errc::Format, where + ": the score should be a number");
    try {
        if (type == "stream_llm") return completed(aShape(a, b));
        const double all = double(model.maxPositions > 0 ? model.maxPositions : kHuge);
        if (a >= all && b >= all) return denseSpec();
        return verticalSlash(std::min(a, double(kHuge)), std::min(b, double(kHuge)));
    } catch (const Error& e) {
        throw Error(Errc::Format, fmt::format("{}: {}", where, e.what()));
    }
}

Imported importMInference(const std::string& text, const std::string& origin,
                          const ModelConfig& model) {
    const Json json = parseJson(text, origin);
    Imported out{"minference", {}, {}, {}};
    if (!json.is_array() || Index(json.size()) != model.layers)
        throw Error(Errc::Format,
                    fmt::format("{} has {} layers, but {} has {}; is it the file of another model?",
                                origin, json.size(), model.name, model.layers));
    for (Index l = 0; l < model.layers; ++l) {
        const Json& layer = json[std::size_t(l)];
        if (!layer.is_object())
            throw Error(Errc::Format,
                        fmt::format("{}: layer {} should be an object of heads", origin, l));
        for (const auto& [key, unused] : layer.items()) {
            Index head = -1;
            const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), head);
            if (error != std::errc{} || end != key.data() + key.size() || head < 0 ||
                head >= model.heads || key != std::to_string(head))
                throw Error(Errc::Format,
                            fmt::format("{}: layer {} names head '{}', but {} has heads "
                                        "0..{}",
                                        origin, l, key, model.name, model.heads - 1));
        }
        for (Index h = 0; h < model.heads; ++h) {
            const auto entry = layer.find(std::to_string(h));
            if (entry == layer.end()) {  // the loader's own default
                out.prefill.push_back(verticalSlash(kMissingVertical, kMissingSlash));
                out.scores.push_back(NAN);
                continue;
            }
            out.prefill.push_back(minferenceMethod(*entry, headPath(origin, l, h), model));
            const double score = (*entry)[3].get<double>();
            out.scores.push_back(score == 1.0 || !std::isfinite(score) ? NAN : score);
        }
    }
    return out;
}

Imported importDuo(const fs::path& path, const ModelConfig& model) {
    const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
    const auto gates = readDuoGates(path.string());
    const std::string origin = path.string();
    if (Index(gates.size()) != model.layers || Index(gates.front().size()) != model.kvHeads)
        throw Error(Errc::Format,
                    fmt::format("{} has {} layers of {} KV heads, but {} has {} of {}; is it the "
                                "pattern of another model?",
                                origin, gates.size(), gates.front().size(), model.name,
                                model.layers, model.kvHeads));
    const std::string configFile = (folder / "config.json").string();
    const Json config = parseJson(readTextFile(configFile, 1 << 20), configFile);
    if (!config.is_object())
        throw Error(Errc::Format,
                    configFile + " should be an object with sink_size and recent_size");
    for (const char* key : {"sink_size", "recent_size"})
        if (!config.contains(key))
            throw Error(Errc::Format, fmt::format("{}: {} is missing", configFile, key));
    const double sink = sizeOf(config["sink_size"], configFile, "sink_size");
    const double recent = sizeOf(config["recent_size"], configFile, "recent_size");
    MethodSpec stream;
    try {
        stream = completed(aShape(sink, recent + 1));
    } catch (const Error& e) {
        throw Error(Errc::Format, fmt::format("{}: {}", configFile, e.what()));
    }
    std::vector<double> flat;
    for (const auto& row : gates) flat.insert(flat.end(), row.begin(), row.end());
    std::vector<std::uint8_t> full;
    if (config.contains("sparsity") && config["sparsity"].is_number())
        full = duoRetrieval(flat, config["sparsity"].get<double>());
    else
        for (const double g : flat) full.push_back(g >= 0.5);
    Imported out{"duoattention", {}, {}, {}};
    const Index group = model.heads / model.kvHeads;
    for (Index l = 0; l < model.layers; ++l)
        for (Index h = 0; h < model.heads; ++h)
            out.decode.push_back(full[std::size_t(l * model.kvHeads + h / group)] ? denseSpec()
                                                                                  : stream);
    return out;
}

/// The fields of one line; a quoted field may hold commas and doubled quotes.
std::vector<std::string> csvFields(const std::string& line) {
    std::vector<std::string> fields(1);
    bool quoted = false;
    for (std::size_t i = 0; i < line.size(); ++i) {
        const char c = line[i];
        if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
            fields.back() += '"';
            ++i;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (c == ',' && !quoted) {
            fields.emplace_back();
        } else if (c != '\r') {
            fields.back() += c;
        }
    }
    return fields;
}

Imported importCsv(const std::string& text, const std::string& origin, const ModelConfig& model) {
    const auto count = std::size_t(model.layers * model.heads);
    Imported out{"csv", std::vector<MethodSpec>(count), std::vector<MethodSpec>(count), {}};
    std::istringstream in(text);
    std::string line;
    std::size_t columns = 0;
    for (Index number = 1; std::getline(in, line); ++number) {
        const auto bad = [&](const std::string& what) {
            return Error(Errc::Format, fmt::format("{}, line {}: {}", origin, number, what));
        };
        const auto fields = csvFields(line);
        if (number == 1) {
            columns = fields.size();
            if (columns != 4 && columns != 6)
                throw bad(
                    "the columns should be layer,head,method,params[,decode_method,"
                    "decode_params]");
            continue;
        }
        if (fields.size() == 1 && fields[0].empty()) continue;
        if (fields.size() != columns)
            throw bad(fmt::format("{} fields, expected {}; put params with commas in quotes",
                                  fields.size(), columns));
        const auto index = [&](const std::string& field, const char* what, Index most) {
            Index value = -1;
            const char* end = field.data() + field.size();
            const auto [stop, error] = std::from_chars(field.data(), end, value);
            if (error != std::errc{} || stop != end || value < 0 || value >= most)
                throw bad(fmt::format("{} is '{}', expected 0..{}", what, field, most - 1));
            return value;
        };
        const Index l = index(fields[0], "layer", model.layers);
        const Index h = index(fields[1], "head", model.heads);
        const auto at = std::size_t(l * model.heads + h);
        if (!out.prefill[at].id.empty())
            throw bad(fmt::format("layer {}, head {} comes twice", l, h));
        const auto read = [&](const std::string& id, const std::string& params) {
            try {
                if (id == "retrieval-heads")
                    throw Error(Errc::Usage,
                                "retrieval-heads speaks of all heads at once; say dense "
                                "or a-shape");
                return completed(parseMethod(params.empty() ? id : id + ":" + params));
            } catch (const Error& e) {
                throw bad(e.what());
            }
        };
        out.prefill[at] = read(fields[2], fields[3]);
        out.decode[at] = columns == 6 ? read(fields[4], fields[5]) : out.prefill[at];
    }
    for (std::size_t at = 0; at < count; ++at)
        if (out.prefill[at].id.empty())
            throw Error(Errc::Format,
                        fmt::format("{}: layer {}, head {} has no line", origin,
                                    Index(at) / model.heads, Index(at) % model.heads));
    return out;
}

/// A MInference or DuoAttention file speaks of one phase. Where the plan it was exported from still
/// stands beside it and gives these very bytes, the other phase comes from there.
void completeFromPlan(Imported& imported, AttentionPlan& plan, const fs::path& path,
                      const ModelConfig& model) {
    if (imported.target == "csv") return;
    const bool directory = imported.target == "duoattention";
    const fs::path folder = directory && !fs::is_directory(path) ? path.parent_path() : path;
    const fs::path file = companion(folder, directory, "plan.json");
    std::error_code code;
    if (!fs::is_regular_file(file, code)) return;
    try {
        const AttentionPlan source = readPlan(file);
        checkFits(source, model);
        for (const auto& [name, text] : render(source, imported.target).files) {
            if (name == "USE.md") continue;
            if (readTextFile(name.empty() ? folder : folder / name, kMaxBytes) != text) return;
        }
        const auto binds = [&](Phase phase) {
            return std::find(source.phases.begin(), source.phases.end(), phase) !=
                   source.phases.end();
        };
        if (imported.prefill.empty() && binds(Phase::Prefill))
            imported.prefill = table(source, Phase::Prefill);
        if (imported.decode.empty() && binds(Phase::Decode))
            imported.decode = table(source, Phase::Decode);
        plan.parentUuid = source.uuid;
    } catch (const Error&) {
        // A damaged or foreign plan beside the file says nothing about it.
    }
}

}  // namespace

std::span<const ExportTarget> exportTargets() {
    return kTargets;
}

ExportResult exportPlan(const AttentionPlan& plan, const std::string& id, const fs::path& path,
                        bool allowLoss) {
    const auto target = std::find_if(std::begin(kTargets), std::end(kTargets),
                                     [&](const ExportTarget& t) { return t.id == id; });
    if (target == std::end(kTargets)) {
        std::vector<std::string> ids;
        for (const ExportTarget& t : kTargets) ids.emplace_back(t.id);
        throw Error(Errc::NotFound, fmt::format("there is no export target '{}'; {}", id,
                                                supportedSentence(id, ids)));
    }
    const Rendered rendered = render(plan, id);
    const auto& losses = rendered.losses.list;
    const bool refused =
        std::any_of(losses.begin(), losses.end(), [](const Loss& loss) { return loss.refuses; });
    if (refused && !allowLoss) {
        std::string list;
        for (const Loss& loss : losses)
            if (loss.refuses) list += (list.empty() ? "" : "; ") + sentence(plan.model, loss, 8);
        throw Error(Errc::Unsupported,
                    fmt::format("{} cannot express this plan: {}. Allow the loss to write what it "
                                "can express",
                                target->title, list));
    }
    ExportResult result;
    const auto write = [&](const fs::path& file, const std::string& text) {
        writeFile(file, text);
        result.files.push_back(file);
    };
    if (target->directory) {
        std::error_code code;
        fs::create_directories(path, code);
        if (!fs::is_directory(path))
            throw Error(Errc::Io, fmt::format("cannot make the folder {}{}", path.string(),
                                              code ? ": " + code.message() : ""));
    }
    for (const auto& [name, text] : rendered.files) write(name.empty() ? path : path / name, text);
    write(companion(path, target->directory, "plan.json"), toJson(plan));
    const fs::path report = companion(path, target->directory, "LOSS.md");
    if (losses.empty()) {
        std::error_code ignored;  // of an earlier export to the same place
        fs::remove(report, ignored);
        return result;
    }
    write(report, lossReport(plan, *target, rendered.losses));
    for (const Loss& loss : losses) result.losses.push_back(sentence(plan.model, loss, 8));
    return result;
}

AttentionPlan importPlan(const fs::path& path, const ModelConfig& model) {
    std::error_code code;
    const std::string origin = path.string();
    Imported imported;
    if (fs::is_directory(path, code)) {
        if (!fs::exists(path / "full_attention_heads.tsv", code))
            throw Error(
                Errc::Format,
                fmt::format("{} is a folder without full_attention_heads.tsv; a DuoAttention "
                            "pattern has one",
                            origin));
        imported = importDuo(path, model);
    } else {
        const std::string text = readTextFile(path, kMaxBytes);
        const std::size_t first = text.find_first_not_of(" \t\r\n");
        const char c = first == text.npos ? '\0' : text[first];
        if (c == '{') {
            AttentionPlan plan = parsePlan(text, origin);
            checkFits(plan, model);
            return plan;
        }
        if (c == '[') {
            imported = importMInference(text, origin, model);
        } else if (text.starts_with("layer,head,")) {
            imported = importCsv(text, origin, model);
        } else if ((c >= '0' && c <= '9') || c == '-') {
            imported = importDuo(path, model);
        } else {
            throw Error(Errc::Format,
                        fmt::format("{} is none of the forms that are read: a Sparsight plan, a "
                                    "MInference JSON, a DuoAttention table, a CSV with "
                                    "layer,head,method,params",
                                    origin));
        }
    }
    AttentionPlan parent;
    completeFromPlan(imported, parent, path, model);
    std::string name = path.filename().string();
    if (name.empty()) name = path.parent_path().filename().string();
    AttentionPlan plan = planFromTables(planModel(model), name.substr(0, 200), imported.prefill,
                                        imported.decode, imported.scores);
    plan.parentUuid = parent.parentUuid;
    return plan;
}

std::string planCsv(const AttentionPlan& plan) {
    const auto prefill = table(plan, Phase::Prefill), decode = table(plan, Phase::Decode);
    const bool two = prefill != decode;
    std::string text = "layer,head,method,params";
    if (two) text += ",decode_method,decode_params";
    text += "\n";
    for (Index l = 0; l < plan.model.layers; ++l)
        for (Index h = 0; h < plan.model.heads; ++h) {
            const auto at = std::size_t(l * plan.model.heads + h);
            text += fmt::format("{},{},{},{}", l, h, prefill[at].id, paramsText(prefill[at]));
            if (two) text += fmt::format(",{},{}", decode[at].id, paramsText(decode[at]));
            text += "\n";
        }
    return text;
}

}  // namespace sparsight
