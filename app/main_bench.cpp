// sparsight-bench: checks every kernel operation against float64, then times it in turn with its
// peers and with the FMA peak of this machine. docs/performance.md says how to read the table.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>

#include "app/bench/bench.h"
#include "app/bench/fma_peak.h"
#include "core/model/blas_env.h"

namespace {

using namespace sparsight;
using namespace sparsight::bench;
using nlohmann::json;

struct Settings {
    std::string filter, jsonFile, baselineFile, device = "cpu";
    int threads = 0, rounds = 15;
    double seconds = 20, tolerance = 0.1;
    std::vector<std::string> peers;
    bool noPeers = false, check = false, noCheck = false, list = false, gate = false;
};

std::string cpuName() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
    return "unknown CPU";
}

const char* kindOf(const Rival& r) {
    return r.kind == Rival::Peer ? "peer" : "cost";
}

bool missed(const Rival& r, double ratio) {
    return r.bar > 0 && (r.kind == Rival::Peer ? ratio < r.bar : ratio > r.bar);
}

std::string inputOf(const Operation& op) {
    return op.input.empty() ? toString(op.shape) : op.input;
}

json toJson(const Result& r) {
    const Operation& op = *r.operation;
    json out{{"id", op.id},
             {"title", op.title},
             {"shape", inputOf(op)},
             {"ms", r.ours.median},
             {"msP10", r.ours.p10},
             {"msP90", r.ours.p90},
             {"rounds", r.ours.all.size()},
             {"fmaPeakGflops", r.peak},
             {"gflops", op.flops > 0 ? json(r.gflops()) : json()},
             {"peakFraction", op.flops > 0 && r.peak > 0 ? json(r.peakFraction()) : json()},
             {"gbPerSecond", op.bytes > 0 ? json(op.bytes / r.ours.median / 1e6) : json()},
             {"error", r.error},
             {"errorLimit", op.errorLimit},
             {"rivals", json::array()}};
    for (std::size_t i = 0; i < op.rivals.size(); ++i)
        if (!r.rivals[i].all.empty())
            out["rivals"].push_back({{"kind", kindOf(op.rivals[i])},
                                     {"name", op.rivals[i].name},
                                     {"ms", r.rivals[i].median},
                                     {"ratio", r.ratios[i]},
                                     {"bar", op.rivals[i].bar}});
    return out;
}

void print(const Result& r) {
    const Operation& op = *r.operation;
    std::string speed;
    if (op.bytes > 0)
        speed = op.bytes < 1e5 * r.ours.median
                    ? fmt::format("{:7.1f} MB/s", op.bytes / r.ours.median / 1e3)
                    : fmt::format("{:7.1f} GB/s", op.bytes / r.ours.median / 1e6);
    else if (op.flops > 0)
        speed = fmt::format("{:7.1f} GFLOP/s", r.gflops());
    if (op.bytes == 0 && op.flops > 0 && r.peak > 0)
        speed +=
            fmt::format(" {:5.1f} % of peak{}", 100 * r.peakFraction(),
                        op.peakBar > 0 && r.peakFraction() < op.peakBar ? " (below the bar)" : "");
    if (r.error >= 0)
        speed += fmt::format("  error {:.1e}{}", r.error,
                             r.error > op.errorLimit ? " (ABOVE THE LIMIT)" : "");
    fmt::print("{:22} {:9.2f} ms ({:.2f}-{:.2f})  {}\n", op.id, r.ours.median, r.ours.p10,
               r.ours.p90, speed);
    fmt::print("{:22} {}; {}\n", "", op.title, inputOf(op));
    for (std::size_t i = 0; i < op.rivals.size(); ++i) {
        const Rival& rival = op.rivals[i];
        if (r.rivals[i].all.empty()) {
            fmt::print("{:22} {}: cannot do it\n", "", rival.name);
            continue;
        }
        const char* note = missed(rival, r.ratios[i]) ? " (misses the bar)" : "";
        if (rival.kind == Rival::Peer)
            fmt::print("{:22} {:.2f} x the speed of {}{}\n", "", r.ratios[i], rival.name, note);
        else
            fmt::print("{:22} {:.3f} of the cost of {}{}\n", "", r.ratios[i], rival.name, note);
    }
    std::cout << std::flush;
}

json readBaseline(const std::string& file) {
    std::ifstream in(file);
    json before = json::parse(in, nullptr, false);
    if (before.is_discarded() || !before.contains("results"))
        throw Error(Errc::Format, file + " is not a result file of sparsight-bench.");
    return before;
}

/// Compares fractions of the peak and cost ratios with an earlier JSON file.
/// @return how many have got worse by more than the tolerance
int compare(const json& now, const json& before, double tolerance) {
    int worse = 0;
    for (const json& r : now["results"])
        for (const json& old : before["results"]) {
            if (old.value("id", json()) != r["id"] || old.value("shape", json()) != r["shape"])
                continue;
            const auto report = [&](const std::string& what, double was, double is, bool more) {
                const double change = more ? was / is - 1 : is / was - 1;
                if (change <= tolerance) return;
                ++worse;
                fmt::print("worse: {} {}: {:.3f}, was {:.3f}\n", r["id"].get<std::string>(), what,
                           is, was);
            };
            if (r["peakFraction"].is_number() && old["peakFraction"].is_number())
                report("fraction of peak", old["peakFraction"], r["peakFraction"], true);
            for (const json& rival : r["rivals"])
                for (const json& was : old["rivals"])
                    if (was["name"] == rival["name"])
                        report("against " + rival["name"].get<std::string>(), was["ratio"],
                               rival["ratio"], rival["kind"] == "peer");
        }
    return worse;
}

int run(const Settings& s) {
    const json before = s.baselineFile.empty() ? json() : readBaseline(s.baselineFile);
    const auto backend = kernels::makeBackend(s.device, s.threads);
    std::vector<std::shared_ptr<Peer>> peers;
    const bool gpu = s.device != "cpu";
    if (!gpu && !s.noPeers && !s.check && !s.list) peers = startTorchPeers(backend->threads());
    for (const std::string& command : s.peers)
        peers.push_back(startPeer(command, backend->threads()));
#ifdef SPARSIGHT_CUDA
    auto operations =
        gpu ? gpuOperations(*backend, s.filter, peers) : cpuOperations(*backend, s.filter, peers);
#else
    auto operations = cpuOperations(*backend, s.filter, peers);
#endif
#ifdef SPARSIGHT_HAS_TORCH
    if (!gpu) addPrefill(operations, *backend, s.filter);
#endif
    if (!gpu) addTokenize(operations, s.filter);
    if (operations.empty())
        throw Error(Errc::NotFound, "No operation's name holds \"" + s.filter + "\"; see --list.");
    if (s.list) {
        for (const Operation& op : operations)
            fmt::print("{:22} {}; {}\n", op.id, op.title, inputOf(op));
        return 0;
    }
    kernels::ThreadPool pool(backend->threads());
    // The ceiling of a GPU is what the peer's matrix product reaches.
    constexpr double kMatrix = 8192;
    const auto peak = [&] {
        if (!gpu) return fmaPeak(pool, 15);
        if (peers.empty()) return 0.0;
        return 2 * kMatrix * kMatrix * kMatrix / peers[0]->ask("matmul 8192 bf16") / 1e6;
    };
    fmt::print("{}; kernel {}; {}\n\n", cpuName(), backend->id(), backend->device());
    json out{{"cpu", cpuName()},
             {"kernel", std::string(backend->id())},
             {"device", backend->device()},
             {"threads", backend->threads()},
             {"compiler", __VERSION__},
             {"time", std::int64_t(std::time(nullptr))},
             {"results", json::array()}};
    int failures = 0;
    for (Operation& op : operations) {
        if (s.noCheck) op.error = {};
        if (s.check) {
            if (!op.error) continue;
            const double error = op.error();
            failures += error > op.errorLimit;
            fmt::print("{:22} error {:.1e} of {:.1e}{}\n", op.id, error, op.errorLimit,
                       error > op.errorLimit ? " ABOVE THE LIMIT" : "");
            continue;
        }
        const Result r = measure(op, s.rounds, s.seconds, peak);
        failures += r.error > op.errorLimit;
        print(r);
        out["results"].push_back(toJson(r));
        op.run = {};  // and its inputs, which may fill a GPU
        op.milliseconds = {};
        op.error = {};
        op.rivals.clear();
    }
    if (!s.jsonFile.empty()) {
        std::ofstream file(s.jsonFile);
        file << out.dump(1) << '\n';
        if (!file) throw Error(Errc::Io, "Cannot write " + s.jsonFile + ".");
    }
    if (!s.baselineFile.empty()) failures += compare(out, before, s.tolerance);
    return failures ? 1 : 0;
}

/// The regression gate: dense full attention at d = 128 must reach 0.55 of the FMA peak of the same
/// run in the best of several rounds.
int gate(const Settings& s) {
    const auto backend = kernels::makeBackend(s.device, s.threads);
    auto operations = cpuOperations(*backend, "dense-full-d128", {});
    kernels::ThreadPool pool(backend->threads());
    constexpr double kLeast = 0.55;
    double best = 0;
    for (int attempt = 0; attempt < 10 && best < kLeast; ++attempt) {
        const Result r = measure(operations[0], 3, 10, [&] { return fmaPeak(pool, 15); });
        if (r.error > operations[0].errorLimit) return 1;
        best = std::max(best, r.peakFraction());
    }
    fmt::print("{}: {:.3f} of the FMA peak, at least {:.2f} wanted\n", backend->device(), best,
               kLeast);
    return best >= kLeast ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "--serve-peer=shipped") == 0) return servePeer();
    prepareBlas(argc, argv);
    if (argc == 2 && std::strcmp(argv[1], "--serve-peer=fixed") == 0) return servePeer();
    Settings s;
    CLI::App app{"Checks and times the attention kernels, in turn with their peers."};
    app.add_option("--filter", s.filter, "Only operations whose name holds this");
    app.add_option("--json", s.jsonFile, "Write all numbers to this file");
    app.add_option("--baseline", s.baselineFile,
                   "Compare with this file of an earlier run; what got worse fails");
    app.add_option("--tolerance", s.tolerance, "How much worse counts as worse")
        ->capture_default_str();
    app.add_option("--device", s.device, "cpu, cuda or cuda:N")->capture_default_str();
    app.add_option("--threads", s.threads, "0: physical cores")->capture_default_str();
    app.add_option("--rounds", s.rounds, "Timed rounds of each operation")
        ->check(CLI::Range(3, 1000))
        ->capture_default_str();
    app.add_option("--seconds", s.seconds, "Start no new round after this long (per operation)")
        ->capture_default_str();
    app.add_option("--peer", s.peers,
                   "Command of one more peer, e.g. \"python3 scripts/peer_sdpa.py\"");
    app.add_flag("--no-peers", s.noPeers, "Leave LibTorch out");
    app.add_flag("--check", s.check, "Compare with float64 only, time nothing");
    app.add_flag("--no-check", s.noCheck, "Time only, compare nothing with float64");
    app.add_flag("--list", s.list, "Name the operations");
    app.add_flag("--gate", s.gate, "Only test that dense attention reaches 0.55 of the FMA peak");
    CLI11_PARSE(app, argc, argv);
    try {
        return s.gate ? gate(s) : run(s);
    } catch (const Error& e) {
        std::cerr << "sparsight-bench: " << e.what() << '\n';
        return 3;
    }
}
