#include "sessions/segment_reader.h"

#include <sys/mman.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/error.h"
#include "sessions/crc32c.h"
#include "sessions/h5_pyramid.h"
#include "sessions/h5_skeleton.h"
#include "sessions/helper_process.h"

namespace sparsight::sessions {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

/// A whole file, mapped for reading.
class Mapping {
public:
    Mapping(const Fd& fd, Index bytes, const fs::path& file)
        : m_size(std::size_t(bytes)),
          m_data(::mmap(nullptr, m_size, PROT_READ, MAP_SHARED, fd.get(), 0)) {
        if (m_data == MAP_FAILED) throwErrno(errno, "map", file);
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() { ::munmap(m_data, m_size); }
    const std::byte* at(Index offset) const {
        return static_cast<const std::byte*>(m_data) + offset;
    }

private:
    std::size_t m_size;
    void* m_data;
};

class Reader {
public:
    Reader(const Json& about, const Segment& segment, const fs::path& file)
        : m_about(about), m_segment(segment), m_file(file) {}

    [[noreturn]] void fail(const std::string& what) const {
        throw Error(Errc::Format,
                    "'" + m_file.string() + "' is not a segment of this capture: " + what);
    }
    double number(const char* key, double least, double most) const {
        const Json& root = m_about.at("root");
        const auto at = root.find(key);
        if (at == root.end() || !at->is_number())
            fail(std::string("it lacks the attribute ") + key);
        const double value = at->get<double>();
        if (!(value >= least && value <= most))
            fail(std::string("its attribute ") + key + " is out of range");
        return value;
    }
    bool has(const std::string& name) const { return m_about.at("tensors").contains("/" + name); }
    std::vector<Index> shape(const std::string& name) const {
        if (!has(name)) fail("it lacks the array /" + name);
        return m_about["tensors"]["/" + name].at("shape").get<std::vector<Index>>();
    }
    kernels::DType type(const std::string& name) const {
        if (!has(name)) fail("it lacks the array /" + name);
        const Json& t = m_about["tensors"]["/" + name].at("type");
        for (const auto type : {kernels::DType::F32, kernels::DType::F16, kernels::DType::BF16})
            if (t == nameOf(type)) return type;
        fail("/" + name + " has a foreign element type");
    }
    /// Where the array's bytes begin, checked to lie inside the file.
    Index offset(const std::string& name, const std::vector<Index>& wanted) const {
        if (shape(name) != wanted) fail("/" + name + " has another shape");
        Index bytes = bytesOf(type(name));
        for (const Index n : wanted) {
            if (n < 1 || bytes > m_segment.bytes / n) fail("/" + name + " is larger than the file");
            bytes *= n;
        }
        const auto at = m_about["tensors"]["/" + name].at("offset").get<Index>();
        if (at < 0 || at % 64 != 0 || at > m_segment.bytes - bytes)
            fail("/" + name + " does not lie inside the file");
        return at;
    }

private:
    const Json& m_about;
    const Segment& m_segment;
    const fs::path& m_file;
};

/// @param verify  compare the checksums, else the size alone
Fd openSegment(const fs::path& root, const Segment& segment, bool verify) {
    const fs::path file = root / segment.path;
    Fd fd = openBeneath(root, segment.path);
    if (verify)
        verifySegment(fd, file, segment);
    else if (sizeOf(fd, file) != segment.bytes)
        throw Error(Errc::Format, "'" + file.string() + "' is damaged: its size changed");
    return fd;
}

}  // namespace

std::shared_ptr<const LayerCapture> readQkv(const fs::path& root, const Segment& segment,
                                            const LayerShape& shape, bool verify) {
    const fs::path file = root / segment.path;
    const Fd fd = openSegment(root, segment, verify);
    Json about;
    {
        const std::lock_guard lock(h5Mutex());
        // By the descriptor: HDF5 reads the very file whose checksums were right.
        about = describeSegment("/proc/self/fd/" + std::to_string(fd.get()));
    }
    const Reader r(about, segment, file);
    r.number("sparsight_format", kSegmentFormat, kSegmentFormat);
    r.number("layer", double(segment.layer), double(segment.layer));
    if (about["root"].value("capture_uuid", "") != segment.capture ||
        about["root"].value("segment_uuid", "") != segment.uuid)
        r.fail("it names another capture");

    auto layer = std::make_shared<LayerCapture>();
    layer->layer = segment.layer;
    kernels::Problem& p = layer->problem;
    const bool hasV = r.has("V");  // imported tensors may lack it
    const auto q = r.shape("Q"), v = hasV ? r.shape("V") : std::vector<Index>{0, 0, 0};
    if (q.size() != 3 || v.size() != 3) r.fail("Q and V must have three dimensions");
    p.Hq = shape.heads;
    p.Hkv = shape.kvHeads;
    p.Nq = q[1];
    p.Nk = shape.Nk;
    p.d = q[2];
    p.dv = v[2];
    if (p.Nq != shape.Nq) r.fail("it has another number of queries than its capture");
    constexpr double kLarge = std::numeric_limits<float>::max();
    p.scale = float(r.number("scale", -kLarge, kLarge));
    p.softcap = float(r.number("softcap", 0, kLarge));
    p.window = Index(r.number("window", 0, 1e15));
    p.causal = r.number("causal", 0, 1) != 0;

    const auto map = std::make_shared<Mapping>(fd, segment.bytes, file);
    const auto tensor = [&](const char* name, Index h, Index n, Index width) {
        return kernels::TensorView{map->at(r.offset(name, {h, n, width})), r.type(name),
                                   h * n * width, n * width, width};
    };
    const auto floats = [&](const char* name, const std::vector<Index>& wanted) {
        if (r.type(name) != kernels::DType::F32) r.fail(std::string(name) + " must be f32");
        return reinterpret_cast<const float*>(map->at(r.offset(name, wanted)));
    };
    layer->q = tensor("Q", p.Hq, p.Nq, p.d);
    layer->k = tensor("K", p.Hkv, p.Nk, p.d);
    if (hasV) layer->v = tensor("V", p.Hkv, p.Nk, p.dv);
    layer->lse = {floats("LSE", {p.Hq, p.Nq}), {p.Hq, p.Nq}};
    if (r.has("sink_logit")) p.sinks = floats("sink_logit", {p.Hq});
    if (r.has("rel_bias")) p.relBias = floats("rel_bias", {p.Hq, p.Nq + p.Nk - 1});
    layer->owner = map;
    return layer;
}

std::shared_ptr<const LayerStats> readPyr(const fs::path& root, const Segment& segment,
                                          const LayerShape& shape, bool verify) {
    const fs::path file = root / segment.path;
    const Fd fd = openSegment(root, segment, verify);
    const std::lock_guard lock(h5Mutex());
    auto stats = std::make_shared<LayerStats>(readPyramid(
        fd.get(), segment.layer, shape.heads, shape.Nq, shape.Nk, "'" + file.string() + "'"));
    stats->massError = segment.massError;
    return stats;
}

TopKeys readTop(const fs::path& root, const Segment& segment, const LayerShape& shape, Index head,
                TokenSpan rows, bool verify) {
    const Fd fd = openSegment(root, segment, verify);
    const std::lock_guard lock(h5Mutex());
    return readTopKeys(fd.get(), shape.heads, shape.Nq, shape.Nk, head, rows,
                       "'" + (root / segment.path).string() + "'");
}

}  // namespace sparsight::sessions
