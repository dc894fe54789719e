#include "core/import/read_layer.h"

#include <cmath>
#include <cstring>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

using kernels::DType;

/// What the views of a LayerCapture look at.
struct Memory {
    std::vector<std::byte> q, k, v;
    std::vector<float> sinks;
};

/// Element distances of the axes; -1 axes have 0.
struct Strides {
    Index head = 0, token = 0, width = 0, leading = 0;
};

Strides stridesOf(const ForeignTensor& t, const Piece& piece) {
    std::vector<Index> step(t.shape.size(), 1);
    if (t.fortran)
        for (std::size_t a = 1; a < step.size(); ++a) step[a] = step[a - 1] * t.shape[a - 1];
    else
        for (std::size_t a = step.size(); a-- > 1;) step[a - 1] = step[a] * t.shape[a];
    const auto at = [&](int axis) { return axis < 0 ? 0 : step[std::size_t(axis)]; };
    return {at(piece.headAxis), at(piece.tokenAxis), at(piece.widthAxis),
            piece.leading < 0 ? 0 : step[0]};
}

/// Copies the piece's heads to out, [heads][tokens][width] of `type`.
void readPiece(const TensorSet& set, const Piece& piece, Index tokens, Index width, DType type,
               std::byte* out, const Job& job) {
    const TensorSet::Entry& entry = set.entries()[piece.entry];
    const ForeignTensor& t = set.tensor(piece.entry);
    const Strides s = stridesOf(t, piece);
    const Index count = piece.heads * tokens * width, size = bytesOf(type);
    const bool inOrder = !t.fortran && s.width <= 1 && (tokens == 1 || s.token == width) &&
                         (piece.heads == 1 || s.head == tokens * width);
    const Index first = piece.leading > 0 ? piece.leading * s.leading : 0;
    if (inOrder && t.width == size) {
        set.file(piece.entry).read(entry.tensor, first, count, out);
        return;
    }
    // A slice lies in one run unless the first axis is the fastest.
    const bool whole = t.fortran;
    std::vector<std::byte> block(std::size_t((whole ? t.elements() : count) * t.width));
    set.file(piece.entry)
        .read(entry.tensor, whole ? 0 : first, whole ? t.elements() : count, block.data());
    const Index origin = whole ? first : 0;
    for (Index h = 0; h < piece.heads; ++h) {
        job.check();
        for (Index n = 0; n < tokens; ++n)
            for (Index c = 0; c < width; ++c, out += size) {
                const std::byte* from =
                    block.data() + (origin + h * s.head + n * s.token + c * s.width) * t.width;
                if (t.element == Element::F64) {
                    double value;
                    std::memcpy(&value, from, 8);
                    const float narrow = float(value);
                    std::memcpy(out, &narrow, 4);
                } else {
                    std::memcpy(out, from, std::size_t(size));
                }
            }
    }
}

std::vector<std::byte> readPart(const TensorSet& set, const PartSource& part, Index heads,
                                Index tokens, Index width, const Job& job) {
    const Index perHead = tokens * width * bytesOf(part.type);
    std::vector<std::byte> out(std::size_t(heads * perHead));
    for (const Piece& piece : part.pieces) {
        job.check();
        readPiece(set, piece, tokens, width, part.type, out.data() + piece.head * perHead, job);
    }
    return out;
}

std::vector<float> readFloats(const TensorSet& set, const PartSource& part, Index heads,
                              Index tokens, const Job& job) {
    if (part.pieces.empty()) return {};
    const auto bytes = readPart(set, part, heads, tokens, 1, job);
    std::vector<float> out(std::size_t(heads * tokens));
    for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = kernels::loadFloat(bytes.data(), part.type, Index(i));
    return out;
}

/// Probability 0 as a logarithm that is finite and whose exponential is 0 in every type.
constexpr float kNever = -1000;

/// ln P of a map's rows, checked: each must hold probabilities of the keys that it sees.
std::vector<std::byte> readMap(const TensorSet& set, const ImportLayer& layer, const Job& job) {
    const kernels::Problem& p = layer.problem;
    const auto bytes = readPart(set, layer.map, p.Hq, p.Nq, p.Nk, job);
    const double tolerance = layer.map.type == DType::F32 ? 1e-3 : 2e-2;
    std::vector<std::byte> out(std::size_t(p.Hq * p.Nq * p.Nk) * sizeof(float));
    std::vector<float> row(std::size_t(p.Nk), 0);
    for (Index r = 0; r < p.Hq * p.Nq; ++r) {
        job.check();
        const Index query = r % p.Nq, last = p.causal ? query + p.Nk - p.Nq : p.Nk - 1;
        const auto fail = [&](const std::string& rule) {
            throw Error(Errc::Format, "layer " + std::to_string(layer.layer) + ", head " +
                                          std::to_string(r / p.Nq) + ", row " +
                                          std::to_string(query) + " of the attention map " + rule);
        };
        double sum = 0, later = 0;
        for (Index j = 0; j < p.Nk; ++j) {
            const float x = kernels::loadFloat(bytes.data(), layer.map.type, r * p.Nk + j);
            if (!(x >= 0 && x <= 1.01f)) fail("holds a value that is no probability");
            (j <= last ? sum : later) += double(x);
            row[std::size_t(j)] = x > 0 ? std::log(x) : kNever;
        }
        if (later > tolerance)
            fail(
                "has probability on later keys: the attention is bidirectional "
                "(--bidirectional)");
        if (std::abs(sum - 1) > tolerance)
            fail("sums to " + std::to_string(sum) +
                 ", not to 1: logits, and maps without the share of a sink or with padded rows, "
                 "cannot be imported; write q and k with docs/dump_qkv.py");
        std::memcpy(out.data() + r * p.Nk * Index(sizeof(float)), row.data(),
                    row.size() * sizeof(float));
    }
    return out;
}

std::vector<std::byte> identity(Index n) {
    std::vector<float> ones(std::size_t(n * n), 0);
    for (Index i = 0; i < n; ++i) ones[std::size_t(i * n + i)] = 1;
    std::vector<std::byte> out(ones.size() * sizeof(float));
    std::memcpy(out.data(), ones.data(), out.size());
    return out;
}

}  // namespace

ImportedLayer readImportedLayer(const TensorSet& set, const ImportLayer& layer, const Job& job) {
    const auto memory = std::make_shared<Memory>();
    ImportedLayer result;
    LayerCapture& c = result.capture;
    c.layer = layer.layer;
    c.problem = layer.problem;
    kernels::Problem& p = c.problem;
    const bool map = !layer.map.pieces.empty();
    memory->q = map ? readMap(set, layer, job) : readPart(set, layer.q, p.Hq, p.Nq, p.d, job);
    memory->k = map ? identity(p.Nk) : readPart(set, layer.k, p.Hkv, p.Nk, p.d, job);
    if (p.dv > 0) memory->v = readPart(set, layer.v, p.Hkv, p.Nk, p.dv, job);
    memory->sinks = readFloats(set, layer.sinks, p.Hq, 1, job);
    result.fileLse = readFloats(set, layer.lse, p.Hq, p.Nq, job);
    c.q = {memory->q.data(), layer.q.type, p.Hq * p.Nq * p.d, p.Nq * p.d, p.d};
    c.k = {memory->k.data(), layer.k.type, p.Hkv * p.Nk * p.d, p.Nk * p.d, p.d};
    c.v = {memory->v.data(), layer.v.type, p.Hkv * p.Nk * p.dv, p.Nk * p.dv, p.dv};
    if (!memory->sinks.empty()) p.sinks = memory->sinks.data();
    c.owner = memory;
    return result;
}

}  // namespace sparsight
