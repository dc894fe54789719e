#include "core/plan/attention_plan.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <random>

#include "core/masks/retrieval_heads.h"

namespace sparsight {
namespace {

bool contains(const std::vector<Index>& list, Index value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

bool binds(const std::vector<Phase>& phases, Phase phase) {
    return std::find(phases.begin(), phases.end(), phase) != phases.end();
}

std::string newUuid() {
    std::random_device device;
    std::string uuid;
    for (int i = 0; i < 4; ++i) uuid += fmt::format("{:08x}", std::uint32_t(device()));
    return uuid;
}

/// Which heads `retrieval-heads` leaves dense, [L * Hq].
std::vector<std::uint8_t> retrievalTable(const PlanModel& model, const MethodSpec& spec,
                                         const std::vector<double>& scores) {
    if (const auto heads = spec.params.texts.find("heads"); heads != spec.params.texts.end())
        for (const auto& [layer, head] : parseHeads(heads->second))
            if (layer >= model.layers || head >= model.heads)
                throw Error(
                    Errc::NotFound,
                    fmt::format("retrieval-heads: heads= names {}.{}, but {} has layers "
                                "0..{} and heads 0..{}",
                                layer, head, model.name, model.layers - 1, model.heads - 1));
    const auto policy = makePolicy(spec);
    std::vector<std::uint8_t> dense;
    for (Index l = 0; l < model.layers; ++l)
        for (Index h = 0; h < model.heads; ++h) {
            HeadInput head;
            head.layer = l;
            head.head = h;
            head.kvHead = h / (model.heads / model.kvHeads);
            const auto at = std::size_t(l * model.heads + h);
            if (at < scores.size()) head.retrievalScore = scores[at];
            dense.push_back(std::holds_alternative<kernels::Dense>(policy->select(head)));
        }
    return dense;
}

}  // namespace

PlanModel planModel(const ModelConfig& config) {
    requireDecoderOnly(config, "a plan");
    return {config.name,    config.arch,    config.layers, config.heads,
            config.kvHeads, config.headDim, config.sha256, {}};
}

const MethodSpec& AttentionPlan::methodAt(Index layer, Index head, Phase phase,
                                          Index length) const {
    static const MethodSpec dense{"dense", {}};
    if (!binds(phases, phase)) return dense;
    const Index kvHead = model.kvHeads > 0 ? head / (model.heads / model.kvHeads) : head;
    for (auto rule = rules.rbegin(); rule != rules.rend(); ++rule) {
        if (!rule->layers.empty() && !contains(rule->layers, layer)) continue;
        if (!rule->qHeads.empty() && !contains(rule->qHeads, head)) continue;
        if (!rule->kvHeads.empty() && !contains(rule->kvHeads, kvHead)) continue;
        if (!rule->phases.empty() && !binds(rule->phases, phase)) continue;
        if (rule->minLength && length < *rule->minLength) continue;
        if (rule->maxLength && length > *rule->maxLength) continue;
        return rule->pattern;
    }
    return base;
}

MethodSpec AttentionPlan::at(Index layer, Index head, Phase phase, Index length) const {
    return methodAt(layer, head, phase, length);
}

AttentionPlan newPlan(const PlanModel& model, std::string name) {
    AttentionPlan plan;
    plan.uuid = newUuid();
    plan.name = std::move(name);
    plan.createdUtc = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
    plan.model = model;
    return plan;
}

MethodSpec completed(const MethodSpec& spec) {
    MethodSpec full{spec.id, complete(method(spec.id), spec.params)};
    std::erase_if(full.params.texts, [](const auto& text) { return text.second.empty(); });
    return full;
}

AttentionPlan uniformPlan(const PlanModel& model, const MethodSpec& spec,
                          const std::vector<double>& scores) {
    AttentionPlan plan = newPlan(model, toString(spec));
    if (spec.id != "retrieval-heads") {
        plan.base = completed(spec);
        return plan;
    }
    const ParamValues values = complete(method(spec.id), spec.params);
    plan.base = {
        "a-shape",
        {{{"sink", values.numbers.at("sink")}, {"window", values.numbers.at("window")}}, {}}};
    const auto dense = retrievalTable(model, spec, scores);
    for (Index l = 0; l < model.layers; ++l) {
        AttentionPlan::Rule rule;
        rule.layers = {l};
        rule.pattern = {"dense", {}};
        rule.why = "retrieval heads";
        for (Index h = 0; h < model.heads; ++h) {
            const auto at = std::size_t(l * model.heads + h);
            if (!dense[at]) continue;
            rule.qHeads.push_back(h);
            if (at < scores.size() && std::isfinite(scores[at])) {
                AttentionPlan::Evidence e;
                e.metric = "retrievalScore";
                e.value = scores[at];
                e.n = 1;
                e.layer = l;
                e.head = h;
                plan.evidence.push_back(e);
            }
        }
        if (!rule.qHeads.empty()) plan.rules.push_back(std::move(rule));
    }
    return plan;
}

AttentionPlan planFromTables(const PlanModel& model, std::string name,
                             const std::vector<MethodSpec>& prefill,
                             const std::vector<MethodSpec>& decode,
                             const std::vector<double>& scores) {
    AttentionPlan plan = newPlan(model, std::move(name));
    const auto& first = prefill.empty() ? decode : prefill;
    if (prefill.empty()) plan.phases = {Phase::Decode};
    if (decode.empty()) plan.phases = {Phase::Prefill};
    const bool both = !prefill.empty() && !decode.empty();

    std::map<std::string, Index> counts;
    Index most = 0;
    for (const MethodSpec& spec : first)
        if (const Index n = ++counts[toString(spec)]; n > most) most = n;
    for (const MethodSpec& spec : first)
        if (counts[toString(spec)] == most) {
            plan.base = spec;
            break;
        }

    const auto add = [&](Index layer, const MethodSpec& spec, std::optional<Phase> phase,
                         std::optional<double> score, Index head, std::size_t firstOfLayer) {
        if (spec == plan.base && !score) return;
        for (std::size_t i = firstOfLayer; i < plan.rules.size(); ++i) {
            auto& rule = plan.rules[i];
            const bool samePhase = phase ? rule.phases == std::vector{*phase} : rule.phases.empty();
            if (rule.pattern == spec && rule.score == score && samePhase) {
                rule.qHeads.push_back(head);
                return;
            }
        }
        AttentionPlan::Rule rule;
        rule.layers = {layer};
        rule.qHeads = {head};
        if (phase) rule.phases = {*phase};
        rule.pattern = spec;
        rule.score = score;
        plan.rules.push_back(std::move(rule));
    };
    for (Index l = 0; l < model.layers; ++l) {
        const std::size_t firstOfLayer = plan.rules.size();
        for (Index h = 0; h < model.heads; ++h) {
            const auto at = std::size_t(l * model.heads + h);
            std::optional<double> score;
            if (at < scores.size() && std::isfinite(scores[at])) score = scores[at];
            if (!both || prefill[at] == decode[at]) {
                add(l, first[at], {}, score, h, firstOfLayer);
            } else {
                add(l, prefill[at], Phase::Prefill, score, h, firstOfLayer);
                add(l, decode[at], Phase::Decode, {}, h, firstOfLayer);
            }
        }
    }
    return plan;
}

void checkFits(const AttentionPlan& plan, const ModelConfig& config) {
    const PlanModel& m = plan.model;
    if (m.layers == config.layers && m.heads == config.heads && m.kvHeads == config.kvHeads) return;
    throw Error(
        Errc::Shape,
        fmt::format("the plan was made for {} ({} layers, {} query heads, {} KV heads), but "
                    "{} has {} layers, {} query heads, {} KV heads",
                    m.name, m.layers, m.heads, m.kvHeads, config.name, config.layers, config.heads,
                    config.kvHeads));
}

}  // namespace sparsight
