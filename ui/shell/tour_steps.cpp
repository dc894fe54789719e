#include "ui/shell/tour_steps.h"

#include <algorithm>

#include "core/export/plan_export.h"

namespace sparsight::ui {
namespace {

constexpr int kPrompts = 4;
constexpr Index kNewTokens = 8;

std::string trimmed(const std::string& text) {
    const auto begin = text.find_first_not_of(" \n\t");
    if (begin == std::string::npos) return {};
    return text.substr(begin, text.find_last_not_of(" \n\t.") - begin + 1);
}

}  // namespace

void prepareTour(TourWorld& world, const std::filesystem::path& directory, std::uint64_t seed,
                 const Job& job) {
    if (world.directory == directory && world.model && !world.prompts.empty()) return;
    world.directory = directory;
    world.tokenizer = Tokenizer::load(directory);
    world.model = loadModel(directory, 0, job);
    world.prompts.clear();
    for (int i = 0; i < kPrompts; ++i) {
        NeedleSpec spec;
        spec.seed = seed + std::uint64_t(i);
        spec.depth = 0.2 + 0.2 * i;
        world.prompts.push_back(makeNeedlePrompt(spec, *world.tokenizer, job));
    }
}

Asked askModel(TourWorld& world, kernels::Backend& backend, const AttentionPlan* plan,
               const Job& job) {
    Asked asked;
    asked.of = int(world.prompts.size());
    for (int i = 0; i < asked.of; ++i) {
        const NeedlePrompt& prompt = world.prompts[std::size_t(i)];
        const GenerateResult r =
            generate(*world.model, backend, *world.tokenizer, prompt.promptIds, kNewTokens, plan,
                     {}, job.part(double(i) / asked.of, double(i + 1) / asked.of));
        const std::string wanted = trimmed(prompt.answer);
        asked.answered += trimmed(r.text).compare(0, wanted.size(), wanted) == 0;
        asked.seconds += r.prefillSeconds + r.decodeSeconds;
        if (i == 0) asked.said = QString::fromStdString(trimmed(r.text));
    }
    return asked;
}

Judged judgePlan(TourWorld& world, kernels::Backend& backend, const AttentionPlan& plan,
                 const Job& job) {
    Judged judged;
    judged.of = int(world.prompts.size());
    for (int i = 0; i < judged.of; ++i) {
        const NeedlePrompt& prompt = world.prompts[std::size_t(i)];
        const EvalResult r = evaluatePlan(*world.model, backend, prompt.ids, prompt.truth, plan,
                                          job.part(0.8 * i / judged.of, 0.8 * (i + 1) / judged.of));
        judged.answeredDense += r.needleDense.value_or(false);
        judged.answeredPlan += r.needlePlan.value_or(false);
        judged.nllDense += r.nllDense / judged.of;
        judged.nllPlan += r.nllPlan / judged.of;
        judged.density += r.density / judged.of;
    }
    const GenerateResult r =
        generate(*world.model, backend, *world.tokenizer, world.prompts[0].promptIds, kNewTokens,
                 &plan, {}, job.part(0.8, 1));
    judged.said = QString::fromStdString(trimmed(r.text));
    return judged;
}

RoundTrip roundTrip(TourWorld& world, kernels::Backend& backend, const AttentionPlan& plan,
                    const std::filesystem::path& folder, const Job& job) {
    std::filesystem::create_directories(folder);
    RoundTrip trip;
    trip.file = folder / "minference.json";
    // What MInference cannot say (decode rules) is listed beside the file; the tour shows how many.
    const ExportResult written = exportPlan(plan, "minference", trip.file, true);
    trip.losses = int(written.losses.size());
    const AttentionPlan back = importPlan(trip.file, world.model->config());
    const Index length = Index(world.prompts[0].ids.size());
    for (Index l = 0; l < plan.model.layers; ++l)
        for (Index h = 0; h < plan.model.heads; ++h) {
            ++trip.heads;
            // Compared with all parameters filled in: an omitted standard value is the same mask.
            const MethodSpec a = plan.at(l, h, Phase::Prefill, length),
                             b = back.at(l, h, Phase::Prefill, length);
            trip.different += a.id != b.id || !(complete(method(a.id), a.params) ==
                                                complete(method(b.id), b.params));
        }
    trip.answers = askModel(world, backend, &back, job);
    return trip;
}

}  // namespace sparsight::ui
