#include "sessions/h5_pyramid.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "sessions/h5_handles.h"

namespace sparsight::sessions {
namespace {

constexpr Index kMapChunk = 128, kRowChunk = 16384, kTopChunk = 1024;
constexpr Index kMostLevels = 32;

Index ceilDiv(Index a, Index b) {
    return (a + b - 1) / b;
}

struct Field {
    const char* name;
    std::vector<float> LayerStats::*values;
    bool perKey;  ///< [heads][Nk], else [heads][Nq]
    const char *units, *axes, *longName;
};
constexpr Field kFields[] = {
    {"colsum", &LayerStats::colMass, true, "probability mass", "head,key",
     "attention mass that each key receives (C_j)"},
    {"diagsum", &LayerStats::diagMass, true, "probability mass", "head,distance",
     "attention mass at each distance (D_s); not causal: by key - query + Nq - 1"},
    {"entropy", &LayerStats::entropy, false, "nat", "head,query", "entropy of the attention row"},
    {"dist_mean", &LayerStats::meanDistance, false, "token", "head,query",
     "mean attention distance"},
    {"sink_mass", &LayerStats::sinkMass, false, "1", "head,query",
     "attention mass on the first 4 keys"},
    {"local_mass", &LayerStats::localMass, false, "1", "head,query",
     "attention mass on distances 0..63"},
};

// --- writing ------------------------------------------------------------------------------------

H5Dataset makeDataset(hid_t file, const std::string& name, const std::vector<hsize_t>& dims,
                      const std::vector<hsize_t>& chunk) {
    const H5Space space(H5Screate_simple(int(dims.size()), dims.data(), nullptr), "shape " + name);
    const H5Properties create(H5Pcreate(H5P_DATASET_CREATE), "prepare " + name);
    h5Check(H5Pset_chunk(create, int(chunk.size()), chunk.data()), "chunk " + name);
    h5Check(H5Pset_shuffle(create), "filter " + name);
    h5Check(H5Pset_deflate(create, 1), "filter " + name);
    return H5Dataset(
        H5Dcreate2(file, name.c_str(), H5T_IEEE_F32LE, space, H5P_DEFAULT, create, H5P_DEFAULT),
        "create " + name);
}

/// Top keys or their probabilities, [heads][Nq][k]: not compressed, which would take longer than
/// the capture and save little.
template <class T>
void writeTop(hid_t file, const std::string& name, const std::vector<T>& values,
              const LayerStats& stats, const nlohmann::json& attributes, const Job& job) {
    constexpr bool whole = std::is_integral_v<T>;
    const std::vector<hsize_t> dims{hsize_t(stats.heads), hsize_t(stats.Nq), hsize_t(stats.top.k)};
    const std::vector<hsize_t> chunk{1, hsize_t(std::min(kTopChunk, stats.Nq)), dims[2]};
    const H5Space space(H5Screate_simple(3, dims.data(), nullptr), "shape " + name);
    const H5Properties create(H5Pcreate(H5P_DATASET_CREATE), "prepare " + name);
    h5Check(H5Pset_chunk(create, 3, chunk.data()), "chunk " + name);
    const H5Dataset dataset(H5Dcreate2(file, name.c_str(), whole ? H5T_STD_I32LE : H5T_IEEE_F32LE,
                                       space, H5P_DEFAULT, create, H5P_DEFAULT),
                            "create " + name);
    h5WriteAttributes(dataset, attributes);
    const H5Space place(H5Dget_space(dataset), "write " + name);
    for (Index h = 0; h < stats.heads; ++h) {
        job.check();
        const hsize_t start[] = {hsize_t(h), 0, 0}, count[] = {1, dims[1], dims[2]};
        h5Check(H5Sselect_hyperslab(place, H5S_SELECT_SET, start, nullptr, count, nullptr),
                "write " + name);
        h5Check(H5Dwrite(dataset, whole ? H5T_NATIVE_INT32 : H5T_NATIVE_FLOAT, place, place,
                         H5P_DEFAULT, values.data()),
                "write " + name);
    }
}

/// Whether a rectangle holds any bit: -0 and NaN count, so that what is read back has equal bits.
bool anyBits(const float* p, Index rows, Index cols, Index stride) {
    for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < cols; ++c) {
            std::uint32_t bits;
            std::memcpy(&bits, p + r * stride + c, 4);
            if (bits != 0) return true;
        }
    return false;
}

void writeMap(hid_t file, const std::string& name, const std::vector<float>& values, Index heads,
              const LayerStats::Level& level, bool sum, const Job& job) {
    const Index rows = level.rows, cols = level.cols;
    const std::vector<hsize_t> dims{hsize_t(heads), hsize_t(rows), hsize_t(cols)};
    const std::vector<hsize_t> chunk{1, hsize_t(std::min(kMapChunk, rows)),
                                     hsize_t(std::min(kMapChunk, cols))};
    const H5Dataset dataset = makeDataset(file, name, dims, chunk);
    h5WriteAttributes(dataset, {{"units", sum ? "probability mass, sum over block" : "probability"},
                                {"axes", "head,query block,key block"},
                                {"long_name", sum ? "attention mass per block"
                                                  : "largest attention in the block"},
                                {"block", level.block}});
    const H5Space place(H5Dget_space(dataset), "write " + name);
    for (Index h = 0; h < heads; ++h)
        for (Index r = 0; r < rows; r += kMapChunk) {
            job.check();
            for (Index c = 0; c < cols; c += kMapChunk) {
                const Index height = std::min(kMapChunk, rows - r);
                const Index width = std::min(kMapChunk, cols - c);
                if (!anyBits(values.data() + (h * rows + r) * cols + c, height, width, cols))
                    continue;
                const hsize_t start[] = {hsize_t(h), hsize_t(r), hsize_t(c)};
                const hsize_t count[] = {1, hsize_t(height), hsize_t(width)};
                h5Check(H5Sselect_hyperslab(place, H5S_SELECT_SET, start, nullptr, count, nullptr),
                        "write " + name);
                h5Check(
                    H5Dwrite(dataset, H5T_NATIVE_FLOAT, place, place, H5P_DEFAULT, values.data()),
                    "write " + name);
            }
        }
}

void checkShapes(const LayerStats& s) {
    const auto expect = [&](const char* what, std::size_t found, Index wanted) {
        if (Index(found) != wanted)
            throw Error(Errc::Shape, std::string("the statistics of layer ") +
                                         std::to_string(s.layer) + " hold " +
                                         std::to_string(found) + " values of " + what + ", not " +
                                         std::to_string(wanted));
    };
    if (s.heads < 1 || s.Nq < 1 || s.Nk < 1 || s.pyramid.empty())
        throw Error(Errc::Shape, "the statistics of layer " + std::to_string(s.layer) +
                                     " are empty: no heads, tokens or pyramid");
    for (const auto& level : s.pyramid) {
        if (level.block < 1 || level.rows != ceilDiv(s.Nq, level.block) ||
            level.cols != ceilDiv(s.Nk, level.block))
            throw Error(Errc::Shape, "a pyramid level of layer " + std::to_string(s.layer) +
                                         " does not cover its map");
        expect("block mass", level.sum.size(), s.heads * level.rows * level.cols);
        expect("block maxima", level.max.size(), s.heads * level.rows * level.cols);
    }
    for (const Field& f : kFields) {
        const std::size_t size = (s.*f.values).size();
        const bool wide = f.values == &LayerStats::diagMass &&
                          Index(size) == s.heads * (s.Nq + s.Nk - 1);  // not causal
        if (!wide) expect(f.name, size, s.heads * (f.perKey ? s.Nk : s.Nq));
    }
    expect("top keys", s.top.key.size(), s.heads * s.Nq * s.top.k);
    expect("top probabilities", s.top.p.size(), s.heads * s.Nq * s.top.k);
}

/// Takes the bytes of a core-driver file at the moment when HDF5 closes it. H5Fget_file_image() of
/// an open file is no way: in 1.10.8 it clears a flag of the superblock without renewing the
/// checksum, and nobody can open that image.
struct MemoryFile {
    std::vector<std::byte> image;
    std::size_t allocated = 0;

    void install(hid_t access) {
        H5FD_file_image_callbacks_t callbacks{};
        callbacks.image_malloc = [](std::size_t size, H5FD_file_image_op_t, void* self) {
            static_cast<MemoryFile*>(self)->allocated = size;
            return std::malloc(size);
        };
        callbacks.image_memcpy = [](void* to, const void* from, std::size_t size,
                                    H5FD_file_image_op_t,
                                    void*) { return std::memcpy(to, from, size); };
        callbacks.image_realloc = [](void* p, std::size_t size, H5FD_file_image_op_t, void* self) {
            void* moved = std::realloc(p, size);
            if (moved) static_cast<MemoryFile*>(self)->allocated = size;
            return moved;
        };
        callbacks.image_free = [](void* p, H5FD_file_image_op_t when, void* self) -> herr_t {
            if (when == H5FD_FILE_IMAGE_OP_FILE_CLOSE) static_cast<MemoryFile*>(self)->take(p);
            std::free(p);
            return 0;
        };
        callbacks.udata_copy = [](void* self) { return self; };
        callbacks.udata_free = [](void*) -> herr_t { return 0; };
        callbacks.udata = this;
        h5Check(H5Pset_file_image_callbacks(access, &callbacks), "prepare a segment");
    }

private:
    /// The buffer is larger than the file: the superblock (version 2) says where that ends.
    void take(const void* p) {
        constexpr std::size_t kEndOfFile = 28, kSuperblock = 48;
        if (allocated < kSuperblock) return;
        const auto* bytes = static_cast<const std::byte*>(p);
        std::uint64_t end = 0;
        std::memcpy(&end, bytes + kEndOfFile, 8);
        try {
            image.assign(bytes, bytes + std::min<std::uint64_t>(end, allocated));
            image.resize(end);
        } catch (const std::exception&) {
            image.clear();  // the caller sees that there is nothing
        }
    }
};

void writeStats(hid_t file, const nlohmann::json& root, const LayerStats& stats, const Job& job) {
    h5WriteAttributes(file, root);
    for (const bool sum : {true, false}) {
        const H5Group group(
            H5Gcreate2(file, sum ? "mass" : "max", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
            "create a group");
        for (std::size_t l = 0; l < stats.pyramid.size(); ++l) {
            const auto& level = stats.pyramid[l];
            writeMap(group, "L" + std::to_string(l), sum ? level.sum : level.max, stats.heads,
                     level, sum, job);
        }
    }
    for (const Field& f : kFields) {
        job.check();
        const std::vector<float>& values = stats.*f.values;
        const Index width = Index(values.size()) / stats.heads;
        const H5Dataset dataset = makeDataset(file, f.name, {hsize_t(stats.heads), hsize_t(width)},
                                              {1, hsize_t(std::min(kRowChunk, width))});
        h5WriteAttributes(dataset,
                          {{"units", f.units}, {"axes", f.axes}, {"long_name", f.longName}});
        h5Check(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
                std::string("write ") + f.name);
    }
    if (stats.top.k == 0) return;
    writeTop(file, "topk_idx", stats.top.key, stats,
             {{"units", "token"},
              {"axes", "head,query,rank"},
              {"long_name", "keys of the largest probabilities, -1 beyond the visible ones"}},
             job);
    writeTop(file, "topk_p", stats.top.p, stats,
             {{"units", "probability"},
              {"axes", "head,query,rank"},
              {"long_name", "the largest probabilities of each query, descending"}},
             job);
}

// --- reading ------------------------------------------------------------------------------------

/// Opens one of our datasets; refuses anything through which HDF5 would leave the image.
H5Dataset openDataset(hid_t file, const std::string& group, const std::string& name,
                      const std::string& where) {
    const std::string full = group.empty() ? name : group + "/" + name;
    for (const std::string& part : {group, full}) {
        if (part.empty()) continue;
        H5L_info_t link{};
        if (H5Lget_info(file, part.c_str(), &link, H5P_DEFAULT) < 0)
            throw Error(Errc::Format, where + " lacks /" + full);
        if (link.type != H5L_TYPE_HARD)
            throw Error(Errc::Format, where + ": /" + part + " is a link to somewhere else");
    }
    return H5Dataset(H5Dopen2(file, full.c_str(), H5P_DEFAULT), "open /" + full + " of " + where);
}

/// @throws Error(Format) when an array is not of that type and shape, or not stored as we do
void checkArray(hid_t dataset, const char* element, const std::vector<hsize_t>& wanted,
                const std::string& what) {
    constexpr hsize_t kMostChunk = hsize_t(16) << 20;  // elements: 64 MiB
    const H5Properties made(H5Dget_create_plist(dataset), "examine " + what);
    if (H5Pget_layout(made) != H5D_CHUNKED || H5Pget_external_count(made) != 0)
        throw Error(Errc::Format, what + " is not stored as Sparsight does");
    for (int i = 0; i < H5Pget_nfilters(made); ++i) {
        std::size_t values = 0;
        unsigned flags = 0, config = 0;
        const H5Z_filter_t filter =
            H5Pget_filter2(made, unsigned(i), &flags, &values, nullptr, 0, nullptr, &config);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE)
            throw Error(Errc::Format, what + " uses a foreign filter");
    }
    hsize_t chunk[H5S_MAX_RANK] = {}, chunkSize = 1;
    const int chunkRank = H5Pget_chunk(made, H5S_MAX_RANK, chunk);
    for (int r = 0; r < chunkRank; ++r) {
        if (chunk[r] == 0 || chunk[r] > kMostChunk / chunkSize)
            throw Error(Errc::Format, what + " has chunks beyond 64 MiB");
        chunkSize *= chunk[r];
    }
    const H5Space space(H5Dget_space(dataset), "examine " + what);
    const H5Type type(H5Dget_type(dataset), "examine " + what);
    hsize_t dims[H5S_MAX_RANK] = {};
    const int rank = H5Sget_simple_extent_dims(space, dims, nullptr);
    if (h5TypeName(type) != element || rank != int(wanted.size()) ||
        !std::equal(wanted.begin(), wanted.end(), dims))
        throw Error(Errc::Format, what + " does not have the shape that the capture asks for");
}

std::vector<float> readArray(hid_t dataset, const std::vector<hsize_t>& wanted,
                             const std::string& what) {
    checkArray(dataset, "f32", wanted, what);
    hsize_t count = 1;
    for (const hsize_t n : wanted) count *= n;
    std::vector<float> values(count);
    h5Check(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
            "read " + what);
    return values;
}

/// Rows of one head of /topk_idx or /topk_p.
template <class T>
std::vector<T> readTop(hid_t file, const char* name, Index heads, Index Nq, Index head,
                       TokenSpan rows, const std::string& where) {
    constexpr bool whole = std::is_integral_v<T>;
    const H5Dataset dataset = openDataset(file, {}, name, where);
    checkArray(dataset, whole ? "i32" : "f32", {hsize_t(heads), hsize_t(Nq), hsize_t(kTopKeys)},
               where + "/" + name);
    std::vector<T> values(std::size_t(rows.size() * kTopKeys));
    const hsize_t start[] = {hsize_t(head), hsize_t(rows.begin), 0};
    const hsize_t count[] = {1, hsize_t(rows.size()), hsize_t(kTopKeys)};
    const H5Space place(H5Dget_space(dataset), "read " + where);
    const H5Space memory(H5Screate_simple(3, count, nullptr), "read " + where);
    h5Check(H5Sselect_hyperslab(place, H5S_SELECT_SET, start, nullptr, count, nullptr),
            "read " + where);
    h5Check(H5Dread(dataset, whole ? H5T_NATIVE_INT32 : H5T_NATIVE_FLOAT, memory, place,
                    H5P_DEFAULT, values.data()),
            "read " + where);
    return values;
}

/// By the descriptor: HDF5 reads the very file whose checksums were right.
H5File openSegment(int fd, const std::string& where) {
    const H5Properties access = h5Access();
    // Segments never change, so a lock that some other reader holds means nothing.
    h5Check(H5Pset_file_locking(access, 0, 1), "prepare " + where);
    const std::string file = "/proc/self/fd/" + std::to_string(fd);
    return H5File(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access), "open " + where);
}

}  // namespace

std::vector<std::byte> pyramidImage(const nlohmann::json& root, const LayerStats& stats,
                                    const Job& job) {
    checkShapes(stats);
    h5Quiet();
    MemoryFile memory;
    {
        const H5Properties access = h5Access();
        h5Check(H5Pset_fapl_core(access, std::size_t(1) << 20, 0), "prepare a segment");
        memory.install(access);
        const H5File file(H5Fcreate("image", H5F_ACC_TRUNC, H5P_DEFAULT, access),
                          "create a segment");
        writeStats(file, root, stats, job);
        h5Check(H5Fflush(file, H5F_SCOPE_GLOBAL), "finish a segment");
    }
    if (memory.image.empty())
        throw Error(Errc::Resources, "HDF5 cannot finish a segment: " + h5Reason());
    return std::move(memory.image);
}

TopKeys readTopKeys(int fd, Index heads, Index Nq, Index Nk, Index head, TokenSpan rows,
                    const std::string& where) {
    if (head < 0 || head >= heads || rows.begin < 0 || rows.begin >= rows.end || rows.end > Nq)
        throw Error(Errc::NotFound, where + " holds the rows 0.." + std::to_string(Nq - 1) +
                                        " of the heads 0.." + std::to_string(heads - 1));
    h5Quiet();
    const H5File file = openSegment(fd, where);
    TopKeys top{kTopKeys, readTop<std::int32_t>(file, "topk_idx", heads, Nq, head, rows, where),
                readTop<float>(file, "topk_p", heads, Nq, head, rows, where)};
    if (std::any_of(top.key.begin(), top.key.end(),
                    [Nk](std::int32_t key) { return key < -1 || key >= Nk; }))
        throw Error(Errc::Format, where + "/topk_idx names keys that do not exist");
    return top;
}

LayerStats readPyramid(int fd, Index layer, Index heads, Index Nq, Index Nk,
                       const std::string& where) {
    h5Quiet();
    const H5File file = openSegment(fd, where);
    LayerStats stats;
    stats.layer = layer;
    stats.heads = heads;
    stats.Nq = Nq;
    stats.Nk = Nk;
    for (Index l = 0; l < kMostLevels; ++l) {
        const std::string name = "L" + std::to_string(l);
        if (l > 0 && H5Lexists(file, ("mass/" + name).c_str(), H5P_DEFAULT) <= 0) break;
        LayerStats::Level level;
        for (const bool sum : {true, false}) {
            const std::string group = sum ? "mass" : "max", what = "/" + group + "/" + name;
            const H5Dataset dataset = openDataset(file, group, name, where);
            const auto attributes = h5ReadAttributes(dataset, what);
            const auto block = attributes.find("block");
            if (block == attributes.end() || !block->is_number_integer() || block->get<Index>() < 1)
                throw Error(Errc::Format, where + ": " + what + " does not say its block size");
            level.block = block->get<Index>();
            level.rows = ceilDiv(Nq, level.block);
            level.cols = ceilDiv(Nk, level.block);
            (sum ? level.sum : level.max) = readArray(
                dataset, {hsize_t(heads), hsize_t(level.rows), hsize_t(level.cols)}, where + what);
        }
        stats.pyramid.push_back(std::move(level));
    }
    for (const Field& f : kFields) {
        const H5Dataset dataset = openDataset(file, {}, f.name, where);
        Index width = f.perKey ? Nk : Nq;
        if (f.values == &LayerStats::diagMass) {
            const H5Space space(H5Dget_space(dataset), "examine diagsum");
            if (H5Sget_simple_extent_npoints(space) == heads * (Nq + Nk - 1)) width = Nq + Nk - 1;
        }
        stats.*f.values =
            readArray(dataset, {hsize_t(heads), hsize_t(width)}, where + "/" + f.name);
    }
    return stats;
}

}  // namespace sparsight::sessions
