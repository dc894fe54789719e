#include "sessions/h5_skeleton.h"

#include <sys/stat.h>

#include "sessions/h5_handles.h"

namespace sparsight::sessions {
namespace {

using Json = nlohmann::json;

/// Everything of a file aligned to pages, so that a mapped tensor starts on one and pwrite is fast.
constexpr hsize_t kAlignment = 4096;

Json describeDataset(hid_t group, const std::string& link, const std::string& name) {
    const H5Dataset dataset(H5Dopen2(group, link.c_str(), H5P_DEFAULT), "open " + name);
    const H5Properties made(H5Dget_create_plist(dataset), "examine " + name);
    const H5D_layout_t layout = H5Pget_layout(made);
    if ((layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED) || H5Pget_external_count(made) != 0)
        throw Error(Errc::Format, "the segment's " + name + " is stored outside of the file");
    for (int i = 0; i < H5Pget_nfilters(made); ++i) {
        unsigned flags = 0, config = 0;
        std::size_t values = 0;
        const H5Z_filter_t filter =
            H5Pget_filter2(made, unsigned(i), &flags, &values, nullptr, 0, nullptr, &config);
        if (filter < 1 || filter > 3)
            throw Error(Errc::Format, "the segment's " + name + " uses HDF5 filter " +
                                          std::to_string(filter) + "; Sparsight uses 1 to 3 only");
    }
    const H5Type type(H5Dget_type(dataset), "examine " + name);
    const H5Space space(H5Dget_space(dataset), "examine " + name);
    hsize_t dims[H5S_MAX_RANK] = {};
    const int rank = H5Sget_simple_extent_dims(space, dims, nullptr);
    if (rank < 1 || rank > 4)
        throw Error(Errc::Format, "the segment's " + name + " has " + std::to_string(rank) +
                                      " dimensions; 1 to 4 were expected");
    Json shape = Json::array();
    for (int r = 0; r < rank; ++r) shape.push_back(dims[r]);
    const haddr_t offset = layout == H5D_CONTIGUOUS ? H5Dget_offset(dataset) : HADDR_UNDEF;
    return {{"type", h5TypeName(type)},
            {"shape", shape},
            {"offset", offset == HADDR_UNDEF ? -1 : static_cast<long long>(offset)}};
}

void describeGroup(hid_t group, const std::string& prefix, int depth, Json& tensors) {
    constexpr hsize_t kMostLinks = 64;
    H5G_info_t info{};
    h5Check(H5Gget_info(group, &info), "list " + prefix);
    if (info.nlinks > kMostLinks || depth > 1)
        throw Error(Errc::Format, "the segment holds more objects than Sparsight ever writes");
    for (hsize_t i = 0; i < info.nlinks; ++i) {
        char link[65] = {};
        H5L_info_t about{};
        h5Check(H5Lget_info_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, &about, H5P_DEFAULT),
                "list " + prefix);
        if (H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, link, sizeof link,
                               H5P_DEFAULT) < 1)
            throw Error(Errc::Format, "the segment holds an object without a name");
        const std::string name = prefix + link;
        if (about.type != H5L_TYPE_HARD)
            throw Error(Errc::Format, "the segment's " + name + " is a link to somewhere else");
        H5O_info_t object{};
        h5Check(H5Oget_info_by_name(group, link, &object, H5P_DEFAULT), "examine " + name);
        if (object.type == H5O_TYPE_DATASET) {
            tensors[name] = describeDataset(group, link, name);
        } else if (object.type == H5O_TYPE_GROUP) {
            const H5Group inner(H5Gopen2(group, link, H5P_DEFAULT), "open " + name);
            describeGroup(inner, name + "/", depth + 1, tensors);
        } else {
            throw Error(Errc::Format, "the segment's " + name + " is no array");
        }
    }
}

}  // namespace

Json createSkeleton(const std::filesystem::path& file, const Json& spec) {
    h5Quiet();
    Json tensors = Json::object();
    {
        const H5Properties access = h5Access();
        h5Check(H5Pset_alignment(access, 1, kAlignment), "align the file");
        // Small arrays must not share a block: each is to start on a page of its own.
        h5Check(H5Pset_small_data_block_size(access, 0), "align the file");
        const H5File out(H5Fcreate(file.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, access),
                         "create '" + file.string() + "'");
        h5WriteAttributes(out, spec.at("root"));
        for (const Json& tensor : spec.at("tensors")) {
            const auto name = tensor.at("name").get<std::string>();
            const auto dims = h5Dims(tensor.at("shape").get<std::vector<Index>>());
            const H5Space space(H5Screate_simple(int(dims.size()), dims.data(), nullptr),
                                "shape " + name);
            const H5Properties create(H5Pcreate(H5P_DATASET_CREATE), "prepare " + name);
            h5Check(H5Pset_layout(create, H5D_CONTIGUOUS), "lay out " + name);
            h5Check(H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY), "lay out " + name);
            h5Check(H5Pset_fill_time(create, H5D_FILL_TIME_NEVER), "lay out " + name);
            const H5Type type = h5TypeOf(tensor.at("type").get<std::string>());
            const H5Dataset dataset(
                H5Dcreate2(out, name.c_str(), type, space, H5P_DEFAULT, create, H5P_DEFAULT),
                "create " + name);
            h5WriteAttributes(dataset, tensor.at("attributes"));
            const haddr_t offset = H5Dget_offset(dataset);
            if (offset == HADDR_UNDEF || offset % kAlignment != 0)
                throw Error(Errc::Io, "HDF5 gave " + name + " no page-aligned place");
            tensors[name] = {{"type", tensor.at("type")},
                             {"shape", tensor.at("shape")},
                             {"offset", static_cast<long long>(offset)}};
        }
        h5Check(H5Fflush(out, H5F_SCOPE_GLOBAL), "write '" + file.string() + "'");
    }
    struct stat st {};
    if (::stat(file.c_str(), &st) != 0)
        throw Error(Errc::Io, "the new segment '" + file.string() + "' vanished");
    return {{"bytes", static_cast<long long>(st.st_size)}, {"tensors", tensors}};
}

Json describeSegment(const std::filesystem::path& file) {
    h5Quiet();
    const H5Properties access = h5Access();
    // Segments never change, so a lock that some other reader holds means nothing.
    h5Check(H5Pset_file_locking(access, 0, 1), "prepare the file");
    const H5File in(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access), "open '" + file.string() + "'");
    const H5Group root(H5Gopen2(in, "/", H5P_DEFAULT), "open '" + file.string() + "'");
    Json tensors = Json::object();
    describeGroup(root, "/", 0, tensors);
    return {{"root", h5ReadAttributes(root, "/")}, {"tensors", tensors}};
}

}  // namespace sparsight::sessions
