#include "core/plan/search.h"

#include <algorithm>
#include <cmath>
#include <queue>

namespace sparsight {
namespace {

/// A plan file knows no head-level method: on one head retrieval-heads is one of its two halves,
/// and the measured density tells which.
MethodSpec headMethod(const CurvePoint& point) {
    if (point.spec.id != "retrieval-heads") return completed(point.spec);
    if (point.density > 1 - 1e-9) return {"dense", {}};
    const ParamValues values = complete(method(point.spec.id), point.spec.params);
    return {"a-shape",
            {{{"sink", values.numbers.at("sink")}, {"window", values.numbers.at("window")}}, {}}};
}

CurvePoint densePoint() {
    return {1, 1, 1, {"dense", {}}};
}

void addChoice(AttentionPlan& plan, const HeadOptions& head, const CurvePoint& point) {
    MethodSpec spec = headMethod(point);
    if (spec.id == "dense") return;
    AttentionPlan::Rule rule;
    rule.layers = {head.layer};
    rule.qHeads = {head.head};
    rule.pattern = std::move(spec);
    rule.score = point.recall;
    plan.rules.push_back(std::move(rule));
}

void addEvidence(AttentionPlan& plan, const char* metric, double value, std::size_t n) {
    AttentionPlan::Evidence e;
    e.metric = metric;
    e.value = value;
    e.n = Index(n);
    plan.evidence.push_back(std::move(e));
}

AttentionPlan fromChoices(const PlanModel& model, std::string name,
                          const std::vector<HeadOptions>& heads,
                          const std::vector<CurvePoint>& choices) {
    AttentionPlan plan = newPlan(model, std::move(name));
    double density = 0, recall = 0;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        addChoice(plan, heads[i], choices[i]);
        density += choices[i].density;
        recall += choices[i].recall;
    }
    const double n = double(std::max<std::size_t>(heads.size(), 1));
    addEvidence(plan, "density", density / n, heads.size());
    addEvidence(plan, "recall", recall / n, heads.size());
    return plan;
}

std::string share(double value) {
    std::string text = std::to_string(value);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
    return text;
}

/// The upper concave hull of a head's points and dense, from its least density on; recall rises
/// along it and every step has a smaller slope than the one before.
std::vector<CurvePoint> hull(const HeadOptions& head) {
    std::vector<CurvePoint> points = head.points;
    points.push_back(densePoint());
    std::stable_sort(points.begin(), points.end(), [](const CurvePoint& a, const CurvePoint& b) {
        return a.density != b.density ? a.density < b.density : a.recall > b.recall;
    });
    std::vector<CurvePoint> up;
    for (CurvePoint& p : points) {
        if (!up.empty() && p.recall <= up.back().recall) continue;
        while (up.size() >= 2) {
            const CurvePoint &a = up[up.size() - 2], &b = up.back();
            const bool below = (b.recall - a.recall) * (p.density - b.density) <=
                               (p.recall - b.recall) * (b.density - a.density);
            if (!below) break;
            up.pop_back();
        }
        up.push_back(std::move(p));
    }
    return up;
}

}  // namespace

AttentionPlan planForRecall(const PlanModel& model, const std::vector<HeadOptions>& heads,
                            double recall) {
    std::vector<CurvePoint> choices;
    for (const HeadOptions& head : heads) {
        CurvePoint best = densePoint();
        for (const CurvePoint& p : head.points) {
            if (!(p.recall >= recall)) continue;
            if (p.density < best.density || (p.density == best.density && p.recall > best.recall))
                best = p;
        }
        choices.push_back(std::move(best));
    }
    return fromChoices(model, "recall >= " + share(recall), heads, choices);
}

AttentionPlan planForDensity(const PlanModel& model, const std::vector<HeadOptions>& heads,
                             double density) {
    std::vector<std::vector<CurvePoint>> hulls;
    std::vector<std::size_t> chosen(heads.size(), 0);
    struct Step {
        double slope, cost;
        std::size_t head;
        bool operator<(const Step& o) const {
            return slope != o.slope ? slope < o.slope
                                    : head > o.head;  // ties: the lower head first
        }
    };
    std::priority_queue<Step> steps;
    const auto offer = [&](std::size_t i) {
        const auto& h = hulls[i];
        if (chosen[i] + 1 >= h.size()) return;
        const CurvePoint &a = h[chosen[i]], &b = h[chosen[i] + 1];
        const double cost = b.density - a.density;
        steps.push({(b.recall - a.recall) / cost, cost, i});
    };
    double left = density * double(heads.size());
    for (std::size_t i = 0; i < heads.size(); ++i) {
        hulls.push_back(hull(heads[i]));
        left -= hulls[i].front().density;
        offer(i);
    }
    // A head whose next step does not fit stays where it is; cheaper steps of others still may.
    while (!steps.empty()) {
        const Step step = steps.top();
        steps.pop();
        if (step.cost > left + 1e-12) continue;
        left -= step.cost;
        ++chosen[step.head];
        offer(step.head);
    }
    std::vector<CurvePoint> choices;
    for (std::size_t i = 0; i < heads.size(); ++i) choices.push_back(hulls[i][chosen[i]]);
    return fromChoices(model, "density <= " + share(density), heads, choices);
}

}  // namespace sparsight
