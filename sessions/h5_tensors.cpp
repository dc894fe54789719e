#include "sessions/h5_tensors.h"

#include <algorithm>

#include "sessions/h5_handles.h"
#include "sessions/helper_process.h"

namespace sparsight::sessions {
namespace {

constexpr std::size_t kMostDatasets = 1'000'000;

/// Element and width of a stored type. Bytes are read little-endian whatever the file's order is.
void setElement(hid_t type, ForeignTensor& t) {
    const auto bits = 8 * H5Tget_size(type);
    t.width = Index(H5Tget_size(type));
    switch (H5Tget_class(type)) {
        case H5T_FLOAT: {
            std::size_t sign = 0, exponent = 0, exponentSize = 0, mantissa = 0, mantissaSize = 0;
            H5Tget_fields(type, &sign, &exponent, &exponentSize, &mantissa, &mantissaSize);
            t.dtype = "float" + std::to_string(bits);
            if (bits == 16 && exponentSize == 5) t.element = Element::F16;
            if (bits == 16 && exponentSize == 8) {
                t.element = Element::BF16;
                t.dtype = "bfloat16";
            }
            if (bits == 32 && exponentSize == 8) t.element = Element::F32;
            if (bits == 64 && exponentSize == 11) t.element = Element::F64;
            return;
        }
        case H5T_INTEGER: {
            const bool isSigned = H5Tget_sign(type) == H5T_SGN_2;
            t.dtype = (isSigned ? "int" : "uint") + std::to_string(bits);
            if (bits == 8 || bits == 16 || bits == 32 || bits == 64)
                t.element = isSigned ? Element::Int : bits == 16 ? Element::Raw16 : Element::UInt;
            return;
        }
        default:
            t.dtype = "another type";
    }
}

class Hdf5File final : public TensorFile {
public:
    explicit Hdf5File(const std::filesystem::path& file) : TensorFile(file) {
        const std::lock_guard lock(h5Mutex());
        h5Quiet();
        const std::string where = "'" + file.string() + "'";
        const H5Properties access(H5Pcreate(H5P_FILE_ACCESS), "prepare " + where);
        m_file = std::make_unique<H5File>(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access),
                                          "open " + where);
        struct Walk {
            Hdf5File* self;
            std::exception_ptr failed;
        } walk{this, {}};
        const auto visit = [](hid_t group, const char* name, const H5L_info_t* link,
                              void* data) -> herr_t {
            auto& w = *static_cast<Walk*>(data);
            try {
                if (link->type == H5L_TYPE_HARD) w.self->add(group, name);
                return 0;
            } catch (...) {
                w.failed = std::current_exception();
                return -1;
            }
        };
        const herr_t done = H5Lvisit(*m_file, H5_INDEX_NAME, H5_ITER_NATIVE, visit, &walk);
        if (walk.failed) std::rethrow_exception(walk.failed);
        h5Check(done, "list " + where);
        if (m_tensors.empty())
            throw Error(Errc::Format, where + " holds no array that can be imported");
    }
    ~Hdf5File() override {
        const std::lock_guard lock(h5Mutex());
        m_file.reset();
    }

    void read(std::size_t tensor, Index first, Index count, std::byte* out) override {
        const ForeignTensor& t = m_tensors.at(tensor);
        const std::lock_guard lock(h5Mutex());
        h5Quiet();
        const std::string what = "read '" + m_path.string() + "', " + t.name;
        const H5Dataset dataset(H5Dopen2(*m_file, t.name.c_str(), H5P_DEFAULT), what);
        const H5Space space(H5Dget_space(dataset), what);
        const H5Type stored(H5Dget_type(dataset), what);
        const H5Type memory(H5Tcopy(stored), what);
        h5Check(H5Tset_order(memory, H5T_ORDER_LE), what);
        // A range of elements in C order is rows of the first axis, or everything.
        Index perRow = 1;
        for (std::size_t a = 1; a < t.shape.size(); ++a) perRow *= t.shape[a];
        if (t.shape.empty() || (first == 0 && count == t.elements())) {
            h5Check(H5Dread(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out), what);
            return;
        }
        std::vector<hsize_t> start(t.shape.size(), 0), size(t.shape.begin(), t.shape.end());
        start[0] = hsize_t(first / perRow);
        size[0] = hsize_t(count / perRow);
        h5Check(
            H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr),
            what);
        const H5Space room(H5Screate_simple(int(size.size()), size.data(), nullptr), what);
        h5Check(H5Dread(dataset, memory, room, space, H5P_DEFAULT, out), what);
    }

private:
    void add(hid_t group, const char* name) {
        H5O_info_t about;
        if (H5Oget_info_by_name(group, name, &about, H5P_DEFAULT) < 0 ||
            about.type != H5O_TYPE_DATASET)
            return;
        if (m_tensors.size() >= kMostDatasets)
            throw Error(Errc::Unsupported, "'" + m_path.string() + "' holds over a million arrays");
        const std::string what = "examine '" + m_path.string() + "', " + name;
        const H5Dataset dataset(H5Dopen2(group, name, H5P_DEFAULT), what);
        const H5Properties made(H5Dget_create_plist(dataset), what);
        const H5Space space(H5Dget_space(dataset), what);
        const H5Type type(H5Dget_type(dataset), what);
        ForeignTensor t;
        t.name = name;
        setElement(type, t);
        const int rank = H5Sget_simple_extent_ndims(space);
        if (rank < 0) return;
        std::vector<hsize_t> dims(std::size_t(rank), 0);
        h5Check(H5Sget_simple_extent_dims(space, dims.data(), nullptr), what);
        Index product = t.width;
        for (const hsize_t n : dims) {
            if (n > 0 && product > (Index(1) << 50) / Index(std::min<hsize_t>(n, hsize_t(1) << 50)))
                throw Error(Errc::Format, "'" + m_path.string() + "': " + name +
                                              " is larger than any file can be");
            product *= std::max<Index>(Index(n), 1);
            t.shape.push_back(Index(n));
        }
        // Data in other files, or spread over them, are not followed.
        if (H5Pget_layout(made) == H5D_VIRTUAL || H5Pget_external_count(made) > 0)
            t.element = Element::Other;
        m_tensors.push_back(std::move(t));
    }

    std::unique_ptr<H5File> m_file;
};

}  // namespace

std::unique_ptr<TensorFile> openHdf5File(const std::filesystem::path& file) {
    return std::make_unique<Hdf5File>(file);
}

TensorSet openTensors(const std::vector<std::filesystem::path>& files) {
    std::vector<std::unique_ptr<TensorFile>> opened;
    for (const auto& file : files) switch (tensorFormat(file)) {
            case TensorFormat::Safetensors:
                opened.push_back(openSafetensorsFile(file));
                break;
            case TensorFormat::Npy:
                opened.push_back(openNpyFile(file));
                break;
            case TensorFormat::Npz:
                opened.push_back(openNpzFile(file));
                break;
            case TensorFormat::Hdf5:
                opened.push_back(openHdf5File(file));
                break;
        }
    return TensorSet(std::move(opened));
}

}  // namespace sparsight::sessions
