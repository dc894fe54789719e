#include "sessions/segment_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "kernels/base/error.h"
#include "sessions/crc32c.h"
#include "sessions/fault.h"

namespace sparsight::sessions {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr Index kPage = 4096;
/// More than HDF5's own structures take: superblock, group, up to seven headers of one page each.
constexpr Index kHeaders = 32 * kPage;

fs::path partFile(const SegmentPlace& place, const Segment& s) {
    return place.root / "tmp" / (s.uuid + ".part");
}
fs::path partSidecar(const SegmentPlace& place, const Segment& s) {
    return place.root / "tmp" / (s.uuid + ".crc.part");
}

/// One array of the segment: what HDF5 shall hold and where the bytes are now.
struct Tensor {
    std::string name;
    Json spec;
    std::span<const std::byte> bytes;
    std::vector<std::byte> packed;  ///< owns `bytes` when the source was strided
    Index offset = 0;               ///< in the file
};

Json tensorSpec(const std::string& name, const std::string& type, const std::vector<Index>& shape,
                Json attributes) {
    return {
        {"name", name}, {"type", type}, {"shape", shape}, {"attributes", std::move(attributes)}};
}

/// [heads, tokens, width] of a strided view as one run of bytes.
Tensor tensorOf(const std::string& name, const kernels::TensorView& view, Index heads, Index tokens,
                Index width, Json attributes) {
    Tensor t{name,
             tensorSpec(name, nameOf(view.t), {heads, tokens, width}, std::move(attributes)),
             {},
             {},
             0};
    const Index element = bytesOf(view.t), row = width * element;
    const auto total = std::size_t(heads * tokens * row);
    const auto* source = static_cast<const std::byte*>(view.p);
    if (view.sn == width && (heads == 1 || view.sh == tokens * width)) {
        t.bytes = {source, total};
        return t;
    }
    t.packed.resize(total);
    for (Index h = 0; h < heads; ++h)
        for (Index n = 0; n < tokens; ++n)
            std::memcpy(t.packed.data() + (h * tokens + n) * row,
                        source + (h * view.sh + n * view.sn) * element, std::size_t(row));
    t.bytes = t.packed;
    return t;
}

Tensor tensorOf(const std::string& name, const float* values, const std::vector<Index>& shape,
                Json attributes) {
    Index count = 1;
    for (const Index n : shape) count *= n;
    return {name,
            tensorSpec(name, "f32", shape, std::move(attributes)),
            std::as_bytes(std::span(values, std::size_t(count))),
            {},
            0};
}

std::vector<Tensor> tensorsOf(const LayerCapture& layer) {
    const kernels::Problem& p = layer.problem;
    std::vector<Tensor> all;
    all.push_back(tensorOf("Q", layer.q, p.Hq, p.Nq, p.d,
                           {{"units", "1"},
                            {"axes", "head,query,dim"},
                            {"long_name", "queries after RoPE"},
                            {"rope_applied", 1},
                            {"qk_norm_applied", 1},
                            {"scale", double(p.scale)},
                            {"softcap", double(p.softcap)},
                            {"window", p.window}}));
    all.push_back(tensorOf("K", layer.k, p.Hkv, p.Nk, p.d,
                           {{"units", "1"},
                            {"axes", "head,key,dim"},
                            {"long_name", "keys after RoPE"},
                            {"rope_applied", 1},
                            {"kv_group", p.Hq / p.Hkv}}));
    if (p.dv > 0)
        all.push_back(tensorOf("V", layer.v, p.Hkv, p.Nk, p.dv,
                               {{"units", "1"},
                                {"axes", "head,key,dim"},
                                {"long_name", "values"},
                                {"kv_group", p.Hq / p.Hkv}}));
    all.push_back(tensorOf("LSE", layer.lse.data(), {p.Hq, p.Nq},
                           {{"units", "nat"},
                            {"axes", "head,query"},
                            {"long_name", "log of the sum of exp of the scaled, masked logits"}}));
    if (p.sinks)
        all.push_back(
            tensorOf("sink_logit", p.sinks, {p.Hq},
                     {{"units", "nat"}, {"axes", "head"}, {"long_name", "learned sinks"}}));
    if (p.relBias)
        all.push_back(tensorOf("rel_bias", p.relBias, {p.Hq, p.Nq + p.Nk - 1},
                               {{"units", "nat"},
                                {"axes", "head,key - query + Nq - 1"},
                                {"long_name", "bias added to the scaled logits"}}));
    return all;
}

void createFile(const fs::path& file, Index bytes, const std::string& what) {
    const Fd fd = openRegular(file, O_RDWR | O_CREAT);
    faultPoint("S3", "reserve space for", file);
    if (const int failed = ::posix_fallocate(fd.get(), 0, off_t(bytes)); failed != 0)
        throwErrno(failed, what, file);
}

/// S5: contents and sidecar are on the disk before any name points to them.
void makeDurable(const SegmentPlace& place, const Segment& s, const Fd& fd) {
    const fs::path part = partFile(place, s), sidecar = partSidecar(place, s);
    faultPoint("S5", "make durable", part);
    syncFile(fd, part);
    const Fd out = openRegular(sidecar, O_WRONLY | O_CREAT | O_TRUNC);
    const std::string text = sidecarText(s, place.session);
    writeFully(out, std::as_bytes(std::span(text)), 0, sidecar);
    syncFile(out, sidecar);
}

/// S4: writes the tensors at their offsets and takes the checksum of the whole file on the way;
/// only what HDF5 itself wrote between them is read back.
///
///     file  | header | Q ........ | gap | K .... | gap | ...
///     CRC   [---- 4 MiB ----][---- 4 MiB ----][-- rest --]
std::vector<std::uint32_t> fill(const Fd& fd, const fs::path& file, Index bytes,
                                std::vector<Tensor>& tensors) {
    std::sort(tensors.begin(), tensors.end(),
              [](const Tensor& a, const Tensor& b) { return a.offset < b.offset; });
    std::vector<std::uint32_t> crcs;
    std::vector<std::byte> gap(std::size_t(std::min(bytes, kCrcChunk)));
    for (Index start = 0; start < bytes; start += kCrcChunk) {
        faultPoint("S4", "write", file);
        const Index end = std::min(bytes, start + kCrcChunk);
        std::uint32_t crc = 0;
        for (Index at = start; at < end;) {
            Index next = end;
            const Tensor* inside = nullptr;
            for (const Tensor& t : tensors) {
                const Index tensorEnd = t.offset + Index(t.bytes.size());
                if (at >= t.offset && at < tensorEnd) {
                    inside = &t;
                    next = std::min(end, tensorEnd);
                    break;
                }
                if (t.offset > at) {
                    next = std::min(end, t.offset);
                    break;
                }
            }
            if (inside) {
                const auto piece =
                    inside->bytes.subspan(std::size_t(at - inside->offset), std::size_t(next - at));
                writeFully(fd, piece, at, file);
                crc = crc32c(piece, crc);
            } else {
                const auto piece = std::span(gap).first(std::size_t(next - at));
                readFully(fd, piece, at, file);
                crc = crc32c(piece, crc);
            }
            at = next;
        }
        crcs.push_back(crc);
    }
    return crcs;
}

/// S6: what an independent reading finds must be what was meant.
void reread(const SegmentPlace& place, HelperProcess& helper, const Segment& s,
            const Json& tensors) {
    const fs::path part = partFile(place, s);
    faultPoint("S6", "re-read", part);
    const Json found = helper.describe(part);
    const Json wanted = rootAttributes(place, s);
    for (const auto& [key, value] : wanted.items())
        if (!found.at("root").contains(key) || found["root"][key] != value)
            throw Error(Errc::Io, "the new segment '" + part.string() +
                                      "' does not read back as written (attribute " + key + ")");
    for (const auto& [name, tensor] : tensors.items()) {
        const std::string full = "/" + name;
        if (!found.at("tensors").contains(full) || found["tensors"][full] != tensor)
            throw Error(Errc::Io, "the new segment '" + part.string() +
                                      "' does not read back as written (array " + full + ")");
    }
}

}  // namespace

Index freeSpace(const fs::path& root) {
    struct statvfs st {};
    if (::statvfs(root.c_str(), &st) != 0) throwErrno(errno, "examine", root);
    return Index(st.f_bavail) * Index(st.f_frsize);
}

Index qkvBytes(const LayerCapture& layer) {
    const kernels::Problem& p = layer.problem;
    const auto padded = [](Index bytes) { return (bytes + kPage - 1) / kPage * kPage; };
    Index bytes = kHeaders + padded(p.Hq * p.Nq * p.d * bytesOf(layer.q.t)) +
                  padded(p.Hkv * p.Nk * p.d * bytesOf(layer.k.t)) +
                  padded(p.Hkv * p.Nk * p.dv * bytesOf(layer.v.t)) + padded(p.Hq * p.Nq * 4);
    if (p.sinks) bytes += padded(p.Hq * 4);
    if (p.relBias) bytes += padded(p.Hq * (p.Nq + p.Nk - 1) * 4);
    return bytes;
}

void requireSpace(const fs::path& root, Index bytes, const std::string& what) {
    struct statvfs st {};
    if (::statvfs(root.c_str(), &st) != 0) throwErrno(errno, "examine", root);
    const Index free = Index(st.f_bavail) * Index(st.f_frsize);
    const Index reserve = std::min(Index(256) << 20, Index(st.f_blocks) * Index(st.f_frsize) / 20);
    if (free >= bytes + reserve) return;
    throw Error(Errc::Resources,
                "not enough space for " + what + " in '" + root.string() + "': it needs " +
                    bytesInWords(bytes) + " and " + bytesInWords(reserve) +
                    " stay in reserve, but only " + bytesInWords(free) +
                    " are free: " + bytesInWords(bytes + reserve - free) +
                    " are missing. Finished layers are kept: free some space and resume");
}

Json rootAttributes(const SegmentPlace& place, const Segment& s) {
    return {{"sparsight_format", kSegmentFormat},
            {"kind", s.kind},
            {"segment_uuid", s.uuid},
            {"session_uuid", place.session},
            {"capture_uuid", place.capture},
            {"model_config_sha256", place.configSha256},
            {"layer", s.layer},
            {"producer", std::string("Sparsight ") + SPARSIGHT_VERSION}};
}

Segment writeQkv(const SegmentPlace& place, HelperProcess& helper, const LayerCapture& layer) {
    Segment s;
    s.uuid = randomUuid();
    s.kind = "qkv";
    s.path = segmentPath(s.uuid, s.kind);
    s.capture = place.capture;
    s.layer = layer.layer;
    const kernels::Problem& p = layer.problem;
    const fs::path part = partFile(place, s);
    try {
        std::vector<Tensor> tensors = tensorsOf(layer);
        Json spec = {{"root", rootAttributes(place, s)}, {"tensors", Json::array()}};
        spec["root"]["created_utc"] = utcNow();
        spec["root"]["scale"] = double(p.scale);
        spec["root"]["softcap"] = double(p.softcap);
        spec["root"]["window"] = p.window;
        spec["root"]["causal"] = int(p.causal);
        for (const Tensor& t : tensors) spec["tensors"].push_back(t.spec);
        faultPoint("S2", "create", part);
        const Json made = helper.skeleton(part, spec);
        s.bytes = made.at("bytes").get<Index>();
        for (Tensor& t : tensors)
            t.offset = made.at("tensors").at(t.name).at("offset").get<Index>();
        createFile(part, s.bytes, "reserve space for");
        const Fd fd = openRegular(part, O_RDWR);
        s.crc = fill(fd, part, s.bytes, tensors);
        makeDurable(place, s, fd);
        reread(place, helper, s, made.at("tensors"));
    } catch (...) {
        discard(place, s);
        throw;
    }
    return s;
}

Segment writeImage(const SegmentPlace& place, HelperProcess& helper, Segment s,
                   std::span<const std::byte> image) {
    const fs::path part = partFile(place, s);
    try {
        s.bytes = Index(image.size());
        createFile(part, s.bytes, "reserve space for");
        const Fd fd = openRegular(part, O_RDWR);
        s.crc.clear();
        for (Index at = 0; at < s.bytes; at += kCrcChunk) {
            faultPoint("S4", "write", part);
            const auto piece =
                image.subspan(std::size_t(at), std::size_t(std::min(kCrcChunk, s.bytes - at)));
            writeFully(fd, piece, at, part);
            s.crc.push_back(crc32c(piece));
        }
        makeDurable(place, s, fd);
        reread(place, helper, s, Json::object());
    } catch (...) {
        discard(place, s);
        throw;
    }
    return s;
}

void publish(const SegmentPlace& place, const Segment& s) {
    const fs::path target = place.root / s.path, folder = target.parent_path();
    faultPoint("S7", "name", target);
    if (::mkdir(folder.c_str(), 0777) == 0)
        syncDirectory(folder.parent_path());
    else if (errno != EEXIST)
        throwErrno(errno, "create", folder);
    const fs::path sidecar = place.root / sidecarPath(s.path);
    if (::rename(partSidecar(place, s).c_str(), sidecar.c_str()) != 0)
        throwErrno(errno, "name", sidecar);
    faultPoint("S7b", "name", target);
    if (::rename(partFile(place, s).c_str(), target.c_str()) != 0)
        throwErrno(errno, "name", target);
    syncDirectory(folder);
}

void discard(const SegmentPlace& place, const Segment& s) noexcept {
    ::unlink(partFile(place, s).c_str());
    ::unlink(partSidecar(place, s).c_str());
    ::unlink((place.root / s.path).c_str());
    ::unlink((place.root / sidecarPath(s.path)).c_str());
}

}  // namespace sparsight::sessions
