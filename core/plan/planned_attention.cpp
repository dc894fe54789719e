#include <fmt/format.h>

#include <algorithm>

#include "core/plan/attention_plan.h"

namespace sparsight {
namespace {

/// The policies that a plan names, made once; which head runs which is looked up per layer and
/// phase, and remembered unless a rule depends on the length.
class PlannedAttention {
public:
    PlannedAttention(const AttentionPlan& plan, kernels::Backend& backend, PlanUse* use,
                     const Job& job)
        : m_plan(plan), m_backend(backend), m_use(use), m_job(job) {
        m_byLength = std::any_of(plan.rules.begin(), plan.rules.end(), [](const auto& rule) {
            return rule.minLength.has_value() || rule.maxLength.has_value();
        });
    }

    void operator()(const LayerCall& call) {
        const kernels::Problem& p = call.problem;
        // A lone row with keys before it is a decode step; with none before it both phases agree.
        const Phase phase = p.Nq == 1 && p.Nk > 1 ? Phase::Decode : Phase::Prefill;
        const auto& heads = policies(call.layer, phase, p);
        std::vector<kernels::Policy> perHead(heads.size());
        bool allDense = true;
        for (std::size_t h = 0; h < heads.size(); ++h) {
            if (!heads[h]) continue;
            perHead[h] = select(call, Index(h), *heads[h]);
            allDense = allDense && std::holds_alternative<kernels::Dense>(perHead[h]);
        }
        if (allDense) perHead.resize(1);
        const kernels::Plan tiles = kernels::buildPlan(p, perHead, kernels::PlanMode::Exact);
        if (m_use && phase == Phase::Prefill)
            for (Index h = 0; h < p.Hq; ++h) {
                m_use->densitySum += tiles.stats.density(h);
                ++m_use->heads;
            }
        m_backend.forward(p, call.q, call.k, call.v, tiles, call.o, nullptr, m_job);
    }

private:
    /// Per query head its policy; null = dense.
    using Heads = std::vector<const MaskPolicy*>;

    const Heads& policies(Index layer, Phase phase, const kernels::Problem& p) {
        const auto key = std::pair(layer, phase);
        if (const auto known = m_heads.find(key); known != m_heads.end() && !m_byLength)
            return known->second;
        Heads& heads = m_heads[key];
        heads.clear();
        for (Index h = 0; h < p.Hq; ++h)
            heads.push_back(policy(m_plan.methodAt(layer, h, phase, p.Nk), phase));
        return heads;
    }

    const MaskPolicy* policy(const MethodSpec& spec, Phase phase) {
        if (spec.id == "dense") return nullptr;
        if (phase == Phase::Decode && !method(spec.id).decodes) {
            note(fmt::format("{} has no rule for decode rows: dense there", spec.id));
            return nullptr;
        }
        auto& made = m_policies[toString(spec)];
        if (!made) made = makePolicy(spec);
        return made.get();
    }

    kernels::Policy select(const LayerCall& call, Index h, const MaskPolicy& policy) const {
        HeadInput head;
        head.problem = call.problem.oneHead(h);
        head.kvHead = call.problem.kvHead(h);
        head.q = call.q.head(h);
        head.k = call.k.head(head.kvHead);
        head.backend = &m_backend;
        head.layer = call.layer;
        head.head = h;
        return policy.select(head, m_job);
    }

    void note(const std::string& text) {
        if (!m_use ||
            std::find(m_use->notes.begin(), m_use->notes.end(), text) != m_use->notes.end())
            return;
        m_use->notes.push_back(text);
    }

    const AttentionPlan& m_plan;
    kernels::Backend& m_backend;
    PlanUse* m_use;
    Job m_job;
    bool m_byLength = false;
    std::map<std::pair<Index, Phase>, Heads> m_heads;
    std::map<std::string, std::unique_ptr<MaskPolicy>> m_policies;
};

}  // namespace

AttentionFn plannedAttention(const AttentionPlan& plan, kernels::Backend& backend, PlanUse* use,
                             const Job& job) {
    const auto attention = std::make_shared<PlannedAttention>(plan, backend, use, job);
    return [attention](const LayerCall& call) { (*attention)(call); };
}

}  // namespace sparsight
