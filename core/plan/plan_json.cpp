// The plan's JSON: reading (strict: every key and bound of the schema), writing, hashing form.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "core/export/write_file.h"
#include "core/model/json_input.h"
#include "core/model/nearest.h"
#include "core/plan/attention_plan.h"

namespace sparsight {
namespace {

using Json = nlohmann::json;
using Ordered = nlohmann::ordered_json;

constexpr std::size_t kMaxPlanBytes = std::size_t(256) << 20;
constexpr Index kMaxTokens = 1073741824, kMaxDim = 1048576, kMaxHeads = Index(1) << 20;

/// A place in the file, for messages: "plan.json: rules[3].pattern.window".
struct Field {
    const Json& value;
    std::string origin, path;

    [[noreturn]] void fail(const std::string& what) const {
        throw Error(Errc::Format,
                    fmt::format("{}: {}{}{}", origin, path, path.empty() ? "" : " ", what));
    }
    std::string child(std::string_view key) const {
        return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
    }
    bool has(const char* key) const { return value.contains(key); }
    Field operator[](const char* key) const {
        const auto at = value.find(key);
        if (at == value.end())
            throw Error(Errc::Format, fmt::format("{}: {} is missing", origin, child(key)));
        return {*at, origin, child(key)};
    }
    Field operator[](std::size_t i) const {
        return {value[i], origin, fmt::format("{}[{}]", path, i)};
    }

    /// An object with no other keys than these.
    void keys(const std::vector<std::string>& known) const {
        if (!value.is_object()) fail("should be an object");
        for (const auto& [key, unused] : value.items()) {
            if (std::find(known.begin(), known.end(), key) != known.end()) continue;
            const std::string near = nearestName(key, known);
            throw Error(Errc::Format,
                        fmt::format("{}: {} is not a key of a plan{}", origin, child(key),
                                    near.empty() ? "" : fmt::format("; did you mean {}?", near)));
        }
    }
    std::size_t array(std::size_t least, std::size_t most) const {
        if (!value.is_array() || value.size() < least || value.size() > most)
            fail(fmt::format("should be a list of {} to {} entries", least, most));
        return value.size();
    }
    std::string text(std::size_t most) const {
        if (!value.is_string()) fail("should be a text");
        const auto& s = value.get_ref<const std::string&>();
        const auto characters =
            std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xC0) != 0x80; });
        if (std::size_t(characters) > most) fail(fmt::format("is longer than {} characters", most));
        return s;
    }
    std::string hex(std::size_t digits) const {
        const std::string s = text(1024);
        if (s.size() != digits || s.find_first_not_of("0123456789abcdef") != s.npos)
            fail(fmt::format("should be {} lower-case hex digits", digits));
        return s;
    }
    double number() const {
        if (!value.is_number() || !std::isfinite(value.get<double>()))
            fail("should be a finite number");
        return value.get<double>();
    }
    Index integer(Index least, Index most) const {
        // JSON Schema counts 256.0 as an integer as well.
        const double d = number();
        if (d != std::trunc(d) || d < double(least) || d > double(most))
            fail(fmt::format("should be a whole number from {} to {}", least, most));
        return Index(d);
    }
};

std::vector<Phase> readPhases(const Field& field) {
    std::vector<Phase> phases;
    for (std::size_t i = 0; i < field.array(1, 2); ++i) {
        const std::string word = field[i].text(80);
        if (word != "prefill" && word != "decode")
            field[i].fail(fmt::format("is '{}'; phases are prefill and decode", word));
        const Phase phase = word == "prefill" ? Phase::Prefill : Phase::Decode;
        if (std::find(phases.begin(), phases.end(), phase) != phases.end())
            field[i].fail("names a phase twice");
        phases.push_back(phase);
    }
    return phases;
}

/// "all" gives an empty list.
std::vector<Index> readSelection(const Field& field, Index count, const char* what) {
    if (field.value.is_string()) {
        if (field.value != "all") field.fail("should be \"all\" or a list of numbers");
        return {};
    }
    std::vector<Index> list;
    std::set<Index> seen;
    for (std::size_t i = 0; i < field.array(1, 4096); ++i) {
        const Index n = field[i].integer(0, kMaxDim - 1);
        if (n >= count)
            field[i].fail(fmt::format("is {}, but the model has {} 0..{}", n, what, count - 1));
        if (!seen.insert(n).second) field[i].fail(fmt::format("repeats {}", n));
        list.push_back(n);
    }
    return list;
}

/// The keys that the schema requires of a kind, all others being optional.
std::vector<std::string> requiredKeys(std::string_view kind) {
    if (kind == "a-shape") return {"sink", "window"};
    if (kind == "vertical-slash") return {"vertical", "slash"};
    if (kind == "antidiagonal") return {"stride", "threshold"};
    if (kind == "oracle-blocks") return {"density"};
    return {};
}

constexpr const char* kLaterKinds[] = {"tri-shape", "block-topk", "block-mass",    "flexprefill",
                                       "elastic",   "dilated",    "static-blocks", "skip-softmax"};

MethodSpec readPattern(const Field& field, std::optional<Index> maxLength) {
    if (!field.value.is_object()) field.fail("should be an object with the key kind");
    const Field kindField = field["kind"];
    MethodSpec spec;
    spec.id = kindField.text(80);
    if (std::find(std::begin(kLaterKinds), std::end(kLaterKinds), spec.id) != std::end(kLaterKinds))
        throw Error(Errc::Unsupported,
                    fmt::format("{}: {} is '{}', a valid kind that this version cannot run",
                                field.origin, kindField.path, spec.id));
    if (spec.id == "retrieval-heads")
        kindField.fail(
            "is 'retrieval-heads', which speaks of all heads at once; a plan says it as "
            "an a-shape default and dense rules");
    std::vector<std::string> ids;
    for (const Method& m : methods())
        if (m.id != "retrieval-heads") ids.emplace_back(m.id);
    if (std::find(ids.begin(), ids.end(), spec.id) == ids.end())
        kindField.fail(fmt::format("is '{}'; {}", spec.id, supportedSentence(spec.id, ids)));

    const Method& m = method(spec.id);
    std::vector<std::string> known{"kind"};
    for (const Param& p : m.params) known.emplace_back(p.name);
    if (spec.id == "vertical-slash" && field.has("artifact"))
        throw Error(Errc::Unsupported,
                    fmt::format("{}: {} names an artifact; this version selects columns and "
                                "diagonals at run time only",
                                field.origin, field.child("artifact")));
    field.keys(known);
    for (const std::string& key : requiredKeys(spec.id)) field[key.c_str()];
    for (const Param& p : m.params) {
        if (!field.has(p.name)) continue;
        const Field value = field[p.name];
        double number = 0;
        if (p.kind == Param::Flag) {
            if (!value.value.is_boolean()) value.fail("should be true or false");
            number = value.value.get<bool>() ? 1 : 0;
        } else {
            number = value.number();
            if (maxLength && std::strcmp(p.unit, "tokens") == 0 && number > double(*maxLength))
                value.fail(fmt::format("is {}, more than the plan's longest prompt of {} tokens",
                                       number, *maxLength));
        }
        spec.params.numbers[p.name] = number;
    }
    try {
        complete(m, spec.params);
    } catch (const Error& e) {
        field.fail(fmt::format("does not fit: {}", e.what()));
    }
    return spec;
}

PlanModel readModel(const Field& field) {
    field.keys({"name", "arch", "n_layer", "n_q_head", "n_kv_head", "head_dim", "config_sha256",
                "weights_sha256"});
    PlanModel m;
    m.name = field["name"].text(300);
    m.arch = field["arch"].text(80);
    m.layers = field["n_layer"].integer(1, kMaxDim);
    m.heads = field["n_q_head"].integer(1, kMaxDim);
    m.kvHeads = field["n_kv_head"].integer(1, kMaxDim);
    m.headDim = field["head_dim"].integer(1, kMaxDim);
    m.configSha256 = field["config_sha256"].hex(64);
    if (field.has("weights_sha256")) m.weightsSha256 = field["weights_sha256"].hex(64);
    if (m.heads % m.kvHeads != 0)
        field["n_kv_head"].fail(
            fmt::format("is {}, which does not divide the {} query heads", m.kvHeads, m.heads));
    if (m.layers * m.heads > kMaxHeads)
        field.fail(fmt::format("has {} heads in all; a plan names at most {}", m.layers * m.heads,
                               kMaxHeads));
    return m;
}

AttentionPlan::Rule readRule(const Field& field, const AttentionPlan& plan) {
    field.keys({"layers", "q_heads", "kv_heads", "phases", "min_len", "max_len", "pattern", "score",
                "why"});
    AttentionPlan::Rule rule;
    rule.layers = readSelection(field["layers"], plan.model.layers, "layers");
    if (field.has("q_heads") && field.has("kv_heads"))
        field.fail("has q_heads and kv_heads; give one of them");
    if (field.has("q_heads"))
        rule.qHeads = readSelection(field["q_heads"], plan.model.heads, "query heads");
    if (field.has("kv_heads"))
        rule.kvHeads = readSelection(field["kv_heads"], plan.model.kvHeads, "KV heads");
    if (field.has("phases")) {
        rule.phases = readPhases(field["phases"]);
        for (const Phase phase : rule.phases)
            if (std::find(plan.phases.begin(), plan.phases.end(), phase) == plan.phases.end())
                field["phases"].fail("names a phase that the plan does not bind");
    }
    if (field.has("min_len")) rule.minLength = field["min_len"].integer(0, kMaxTokens);
    if (field.has("max_len")) rule.maxLength = field["max_len"].integer(0, kMaxTokens);
    if (rule.minLength && rule.maxLength && *rule.minLength > *rule.maxLength)
        field["min_len"].fail("is above max_len");
    rule.pattern = readPattern(field["pattern"], plan.maxPlanLength);
    if (field.has("score")) rule.score = field["score"].number();
    if (field.has("why")) rule.why = field["why"].text(500);
    return rule;
}

AttentionPlan::Evidence readEvidence(const Field& field, const PlanModel& model) {
    field.keys({"metric", "value", "ci", "n", "length", "layer", "head", "data"});
    AttentionPlan::Evidence e;
    e.metric = field["metric"].text(80);
    e.value = field["value"].number();
    e.n = field["n"].integer(0, Index(1) << 53);
    if (field.has("ci")) {
        field["ci"].array(2, 2);
        e.interval = {field["ci"][std::size_t(0)].number(), field["ci"][std::size_t(1)].number()};
    }
    if (field.has("length")) e.length = field["length"].integer(0, kMaxTokens);
    if (field.has("layer")) e.layer = field["layer"].integer(0, model.layers - 1);
    if (field.has("head")) e.head = field["head"].integer(0, model.heads - 1);
    if (field.has("data")) e.data = field["data"].text(200);
    return e;
}

void readLengths(const Field& field, AttentionPlan& plan) {
    field.keys({"calibrated", "min", "max"});
    if (field.has("calibrated")) {
        const Field list = field["calibrated"];
        for (std::size_t i = 0; i < list.array(0, 64); ++i)
            plan.calibratedLengths.push_back(list[i].integer(0, kMaxTokens));
    }
    if (field.has("min")) plan.minPlanLength = field["min"].integer(0, kMaxTokens);
    if (field.has("max")) plan.maxPlanLength = field["max"].integer(0, kMaxTokens);
}

void checkVersion(const Field& field) {
    const std::string version = field.text(40);
    int dots = 0;
    bool good = true;
    std::size_t digits = 0;
    for (const char c : version + ".") {
        if (c == '.') {
            good = good && digits >= 1 && digits <= 3;
            digits = 0;
            ++dots;
        } else {
            good = good && c >= '0' && c <= '9';
            ++digits;
        }
    }
    if (!good || dots != 3)
        field.fail(fmt::format("is '{}'; expected three numbers as in 1.0.0", version));
    if (!version.starts_with("1."))
        throw Error(Errc::Unsupported,
                    fmt::format("{}: the plan has format version {}; this program "
                                "reads version 1",
                                field.origin, version));
}

/// Whole numbers as integers, flags as booleans: the types of the schema.
Ordered patternJson(const MethodSpec& spec) {
    const Method& m = method(spec.id);
    if (spec.id == "retrieval-heads")
        throw Error(Errc::Usage,
                    "a plan file cannot name retrieval-heads for one head; expand it by "
                    "uniformPlan()");
    const ParamValues full = complete(m, spec.params);
    const auto required = requiredKeys(spec.id);
    Ordered json{{"kind", spec.id}};
    for (const Param& p : m.params) {
        const bool needed = std::find(required.begin(), required.end(), p.name) != required.end();
        if (p.kind == Param::Text || (!needed && !spec.params.numbers.contains(p.name))) continue;
        const double value = full.numbers.at(p.name);
        if (p.kind == Param::Flag)
            json[p.name] = value != 0;
        else if (p.kind == Param::Int)
            json[p.name] = Index(value);
        else
            json[p.name] = value;
    }
    return json;
}

Ordered phasesJson(const std::vector<Phase>& phases) {
    Ordered list = Ordered::array();
    for (const Phase phase : phases) list.push_back(phase == Phase::Prefill ? "prefill" : "decode");
    return list;
}

Ordered planJson(const AttentionPlan& plan) {
    const PlanModel& m = plan.model;
    Ordered json{{"format", "sparsight-plan"}, {"version", plan.version}, {"uuid", plan.uuid}};
    if (!plan.parentUuid.empty()) json["parent_uuid"] = plan.parentUuid;
    if (!plan.name.empty()) json["name"] = plan.name;
    json["created_utc"] = plan.createdUtc;
    json["producer"] = {{"name", plan.producer.name}, {"version", plan.producer.version}};
    if (!plan.producer.commit.empty()) json["producer"]["commit"] = plan.producer.commit;
    json["model"] = {{"name", m.name},
                     {"arch", m.arch},
                     {"n_layer", m.layers},
                     {"n_q_head", m.heads},
                     {"n_kv_head", m.kvHeads},
                     {"head_dim", m.headDim},
                     {"config_sha256", m.configSha256}};
    if (!m.weightsSha256.empty()) json["model"]["weights_sha256"] = m.weightsSha256;
    json["phases"] = phasesJson(plan.phases);
    Ordered lengths = Ordered::object();
    if (!plan.calibratedLengths.empty()) lengths["calibrated"] = plan.calibratedLengths;
    if (plan.minPlanLength) lengths["min"] = *plan.minPlanLength;
    if (plan.maxPlanLength) lengths["max"] = *plan.maxPlanLength;
    if (!lengths.empty()) json["lengths"] = lengths;
    json["default"] = patternJson(plan.base);
    json["rules"] = Ordered::array();
    for (const auto& rule : plan.rules) {
        Ordered r = Ordered::object();
        r["layers"] = rule.layers.empty() ? Ordered("all") : Ordered(rule.layers);
        if (!rule.qHeads.empty()) r["q_heads"] = rule.qHeads;
        if (!rule.kvHeads.empty()) r["kv_heads"] = rule.kvHeads;
        if (!rule.phases.empty()) r["phases"] = phasesJson(rule.phases);
        if (rule.minLength) r["min_len"] = *rule.minLength;
        if (rule.maxLength) r["max_len"] = *rule.maxLength;
        r["pattern"] = patternJson(rule.pattern);
        if (rule.score) r["score"] = *rule.score;
        if (!rule.why.empty()) r["why"] = rule.why;
        json["rules"].push_back(std::move(r));
    }
    if (plan.evidence.empty()) return json;
    json["evidence"] = Ordered::array();
    for (const auto& e : plan.evidence) {
        Ordered x{{"metric", e.metric}, {"value", e.value}};
        if (e.interval) x["ci"] = *e.interval;
        x["n"] = e.n;
        if (e.length) x["length"] = *e.length;
        if (e.layer) x["layer"] = *e.layer;
        if (e.head) x["head"] = *e.head;
        if (!e.data.empty()) x["data"] = e.data;
        json["evidence"].push_back(std::move(x));
    }
    return json;
}

}  // namespace

AttentionPlan parsePlan(const std::string& text, const std::string& origin) {
    const Json json = parseJson(text, origin);
    const Field root{json, origin, ""};
    if (!json.is_object() || !json.contains("format") || json["format"] != "sparsight-plan")
        throw Error(
            Errc::Format,
            fmt::format("{} is not a Sparsight plan: format should be \"sparsight-plan\"", origin));
    checkVersion(root["version"]);
    root.keys({"format", "version", "uuid", "parent_uuid", "name", "created_utc", "producer",
               "model", "phases", "lengths", "default", "rules", "evidence", "artifacts"});
    AttentionPlan plan;
    plan.version = root["version"].text(40);
    plan.uuid = root["uuid"].hex(32);
    if (root.has("parent_uuid")) plan.parentUuid = root["parent_uuid"].hex(32);
    if (root.has("name")) plan.name = root["name"].text(200);
    plan.createdUtc = root["created_utc"].text(40);
    const Field producer = root["producer"];
    producer.keys({"name", "version", "commit"});
    plan.producer.name = producer["name"].text(80);
    plan.producer.version = producer["version"].text(40);
    if (producer.has("commit")) plan.producer.commit = producer["commit"].text(64);
    plan.model = readModel(root["model"]);
    plan.phases = readPhases(root["phases"]);
    if (root.has("lengths")) readLengths(root["lengths"], plan);
    if (root.has("artifacts") && root["artifacts"].array(0, 4096) > 0)
        throw Error(
            Errc::Unsupported,
            fmt::format("{}: artifacts are files of stored masks; this version selects masks "
                        "at run time only",
                        origin));
    plan.base = readPattern(root["default"], plan.maxPlanLength);
    const Field rules = root["rules"];
    const std::size_t ruleCount = rules.array(0, 1048576);
    for (std::size_t i = 0; i < ruleCount; ++i) plan.rules.push_back(readRule(rules[i], plan));
    if (root.has("evidence")) {
        const Field evidence = root["evidence"];
        const std::size_t count = evidence.array(0, 100000);
        for (std::size_t i = 0; i < count; ++i)
            plan.evidence.push_back(readEvidence(evidence[i], plan.model));
    }
    return plan;
}

std::string toJson(const AttentionPlan& plan) {
    return planJson(plan).dump(2, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

std::string canonicalJson(const AttentionPlan& plan) {
    const std::string text = planJson(plan).dump(-1, ' ', false, Ordered::error_handler_t::replace);
    return Json::parse(text).dump();
}

AttentionPlan readPlan(const std::filesystem::path& file) {
    return parsePlan(readTextFile(file, kMaxPlanBytes), file.string());
}

void writePlan(const AttentionPlan& plan, const std::filesystem::path& file) {
    writeFile(file, toJson(plan));
}

}  // namespace sparsight
