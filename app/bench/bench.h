#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace sparsight::bench {

/// What an operation is timed on. Inputs are normal random numbers.
struct Shape {
    Index heads = 4, kvHeads = 4, nq = 4096, nk = 4096, d = 128;
    bool causal = false;
    kernels::DType type = kernels::DType::F32;
};
std::string toString(const Shape& shape);

/// Another computation that runs in turn with ours. `milliseconds` does it once.
///
/// Peer: the same work by other software; ratio = their time / ours, more is better.
/// Cost: work of ours that sets a price; ratio = our time / (share x its time), less is better.
struct Rival {
    enum Kind { Peer, Cost } kind = Peer;
    std::string name;
    std::function<double()> milliseconds;
    double share = 1;
    double bar = 0;  ///< the least (Peer) or largest (Cost) acceptable ratio; 0 = none
};

struct Operation {
    std::string id, title;
    Shape shape;
    std::string input;          ///< in words, in place of `shape` where that says nothing
    double flops = 0;           ///< of one run, products only; 0 = not a question of arithmetic
    double bytes = 0;           ///< read and written at least; 0 = not a question of memory
    std::function<void()> run;  ///< once, on warm buffers
    std::function<double()> milliseconds;  ///< instead of `run` where a device times itself
    std::function<double()> error;         ///< relative distance to float64; may be empty
    double errorLimit = 0;
    double peakBar = 0;  ///< least acceptable fraction of the FMA peak; 0 = none
    std::vector<Rival> rivals;
};

/// Attention by other software in another process. Line by line over its standard input and output:
/// first the peer says its name; then a request is "heads kvHeads nq nk d causal threads", and the
/// answer the milliseconds of one softmax(q k^T / sqrt(d)) v on random inputs of that shape.
class Peer {
public:
    virtual ~Peer() = default;
    virtual std::string name() const = 0;
    virtual double attention(const Shape& shape) = 0;
    /// Any other request of one line; NaN when the peer cannot do it.
    virtual double ask(const std::string& request) = 0;
};
/// @param command  for the shell @throws Error(Resources)
std::shared_ptr<Peer> startPeer(const std::string& command, int threads);
/// LibTorch of this build, in processes of its own because OpenBLAS chooses its kernels once, while
/// it is loaded: as shipped and, where that differs, with the core type that this CPU deserves.
/// Empty in a build without LibTorch.
std::vector<std::shared_ptr<Peer>> startTorchPeers(int threads);

/// Every operation of the CPU path that `filter` (a part of the id; "" = all) names. They share the
/// backend, and each makes its inputs when it is first used.
std::vector<Operation> cpuOperations(kernels::Backend& backend, const std::string& filter,
                                     const std::vector<std::shared_ptr<Peer>>& peers);

/// The same for the CUDA path, with inputs and outputs on the GPU; the peers speak the language of
/// scripts/peer_gpu.py. Only in a build with CUDA.
std::vector<Operation> gpuOperations(kernels::Backend& backend, const std::string& filter,
                                     const std::vector<std::shared_ptr<Peer>>& peers);

/// The forward pass of whole models, where `filter` asks for "prefill": the bundled one, and two
/// random layers of Llama-3-8B's sizes (900 MB in the folder for temporary files while it runs).
/// Only in a build with LibTorch.
void addPrefill(std::vector<Operation>& operations, kernels::Backend& backend,
                const std::string& filter);

/// Tokenizers on generated English.
void addTokenize(std::vector<Operation>& operations, const std::string& filter);

struct Timing {
    double median = 0, p10 = 0, p90 = 0;
    std::vector<double> all;
};
struct Result {
    const Operation* operation = nullptr;
    Timing ours;        ///< ms
    double error = -1;  ///< -1: not checked
    double peak = 0;    ///< GFLOP/s of the FMA loop (GPU: of the peer's matrix product), median of
                        ///< the same rounds; 0 = unknown
    std::vector<Timing> rivals;  ///< ms
    std::vector<double> ratios;  ///< median over the rounds of the ratio within a round
    double gflops() const { return operation->flops / ours.median / 1e6; }
    double peakFraction() const { return gflops() / peak; }
};

/// Checks, then times: each round runs ours, every rival and the FMA loop once, so that a change of
/// the clock meets all of them. @param rounds at least 3 @param seconds stop after this long, too
Result measure(const Operation& operation, int rounds, double seconds,
               const std::function<double()>& peak);

/// Is the LibTorch peer. @return exit status
int servePeer();

}  // namespace sparsight::bench
