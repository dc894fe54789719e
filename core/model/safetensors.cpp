#include "core/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/model/json_input.h"
#include "core/model/safetensors_header.h"
#include "kernels/base/error.h"
#include "kernels/base/tensor.h"

namespace sparsight {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the official reader's and writer's limit
constexpr std::size_t kMaxIndexFile = 100'000'000;

/// A file that is mapped read-only when somebody wants its bytes.
class File {
public:
    explicit File(const fs::path& path) : m_name(path.string()) {
        m_fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (m_fd < 0) {
            if (errno == ENOENT) throw Error(Errc::NotFound, m_name + " does not exist");
            throw Error(Errc::Io, "cannot open " + m_name + ": " + std::strerror(errno));
        }
        struct stat info {};
        if (::fstat(m_fd, &info) != 0 || !S_ISREG(info.st_mode)) {
            ::close(m_fd);
            throw Error(Errc::Io, m_name + " is not a regular file");
        }
        m_size = std::size_t(info.st_size);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() {
        if (m_data != nullptr) ::munmap(m_data, m_size);
        ::close(m_fd);
    }
    const std::string& name() const { return m_name; }
    std::size_t size() const { return m_size; }
    bool mapped() const { return m_data != nullptr; }

    /// Bytes [at, at + out.size()) without mapping the file.
    void read(std::size_t at, std::span<char> out) const {
        for (std::size_t done = 0; done < out.size();) {
            const ssize_t n = ::pread(m_fd, out.data() + done, out.size() - done, off_t(at + done));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0)
                throw Error(Errc::Io, "cannot read " + m_name + ": " +
                                          (n < 0 ? std::strerror(errno) : "it became shorter"));
            done += std::size_t(n);
        }
    }
    std::span<const std::byte> bytes() {
        if (m_data == nullptr && m_size > 0) {
            void* p = ::mmap(nullptr, m_size, PROT_READ, MAP_PRIVATE, m_fd, 0);
            if (p == MAP_FAILED)
                throw Error(Errc::Io, "cannot map " + m_name + ": " + std::strerror(errno));
            m_data = static_cast<std::byte*>(p);
        }
        return {m_data, m_size};
    }
    void releasePages() {
        if (m_data != nullptr) ::madvise(m_data, m_size, MADV_DONTNEED);
    }

private:
    std::string m_name;
    int m_fd = -1;
    std::byte* m_data = nullptr;
    std::size_t m_size = 0;
};

template <class T>
T load(const std::byte* p) {
    T value;
    std::memcpy(&value, p, sizeof(T));
    return value;
}

/// 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, all ones is NaN.
float e4m3ToFloat(unsigned b) {
    const unsigned e = (b >> 3) & 15u, m = b & 7u;
    if ((b & 0x7fu) == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
    const float v = e == 0 ? std::ldexp(float(m), -9) : std::ldexp(float(8u + m), int(e) - 10);
    return (b & 0x80u) ? -v : v;
}

float e8m0ToFloat(unsigned b) {
    return b == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, int(b) - 127);
}

template <class T, class Out>
void widen(const StTensor& t, std::vector<Out>& out) {
    for (std::size_t i = 0; i < out.size(); ++i)
        out[i] = static_cast<Out>(load<T>(t.bytes.data() + i * sizeof(T)));
}

std::uint64_t headerLength(const File& file) {
    char bytes[8];
    file.read(0, bytes);
    std::uint64_t n = 0;
    for (unsigned i = 0; i < 8; ++i)
        n |= std::uint64_t(static_cast<unsigned char>(bytes[i])) << (8 * i);
    return n;
}

bool isPlainFileName(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
           name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

}  // namespace

struct SafeTensors::Impl {
    /// Where a tensor's bytes are.
    struct Place {
        std::size_t file = 0;
        std::uint64_t begin = 0, end = 0;  ///< in the file
    };
    std::string where;  ///< file or directory, for messages
    std::vector<std::unique_ptr<File>> files;
    std::map<std::string, StTensor> tensors;
    std::map<std::string, Place> places;
    std::map<std::string, std::string> metadata;
    std::vector<std::string> notes;
    Index bytes = 0;

    /// Reads the header of one file and adds its tensors. @return their names
    std::vector<std::string> add(const fs::path& path) {
        files.push_back(std::make_unique<File>(path));
        const File& file = *files.back();
        const std::string& name = file.name();
        if (file.size() < 8)
            throw Error(Errc::Format, name + ": " + std::to_string(file.size()) +
                                          " bytes are too few for a safetensors header");
        const std::uint64_t n = headerLength(file);
        if (n > kMaxHeader)
            throw Error(Errc::Format, name + ": header of " + std::to_string(n) +
                                          " bytes announced, at most " +
                                          std::to_string(kMaxHeader) +
                                          " are allowed: this is not a safetensors file");
        if (n > file.size() - 8)
            throw Error(Errc::Format, name + ": header of " + std::to_string(n) +
                                          " bytes announced, but the file has only " +
                                          std::to_string(file.size()) + ": it is truncated");
        std::string json(n, '\0');
        file.read(8, json);
        StHeader header = parseStHeader(json, file.size() - 8 - n, name);
        std::vector<std::string> names;
        for (StEntry& e : header.entries) {
            StTensor t{e.name, e.dtype, std::move(e.dtypeName), std::move(e.shape), {}};
            names.push_back(e.name);
            places[e.name] = {files.size() - 1, 8 + n + e.begin, 8 + n + e.end};
            if (!tensors.emplace(std::move(e.name), std::move(t)).second)
                throw Error(Errc::Format,
                            name + ": tensor \"" + names.back() + "\" is also in another shard");
        }
        metadata.merge(header.metadata);
        bytes += Index(file.size());
        return names;
    }

    /// The tensor with its bytes, which maps its file.
    const StTensor& mapped(StTensor& t) {
        const Place& place = places.at(t.name);
        File& file = *files[place.file];
        if (t.bytes.data() == nullptr || !file.mapped())
            t.bytes = file.bytes().subspan(place.begin, place.end - place.begin);
        return t;
    }

    void addShards(const fs::path& directory, const fs::path& index) {
        const std::string name = index.string();
        const nlohmann::json j = parseJson(readTextFile(index, kMaxIndexFile), name);
        if (!j.is_object() || !j.contains("weight_map") || !j["weight_map"].is_object())
            throw Error(Errc::Format, name + ": has no object \"weight_map\"");
        std::map<std::string, std::vector<std::string>> byFile;
        for (const auto& [tensor, file] : j["weight_map"].items()) {
            if (!file.is_string() || !isPlainFileName(file.get<std::string>()))
                throw Error(Errc::Format, name + ": tensor \"" + tensor +
                                              "\": its file must be a plain file name, not " +
                                              file.dump(-1, ' ', true).substr(0, 80));
            byFile[file.get<std::string>()].push_back(tensor);
        }
        if (byFile.empty()) throw Error(Errc::Format, name + ": \"weight_map\" is empty");
        for (const auto& [file, wanted] : byFile) {
            std::error_code code;  // a name may be longer than the file system takes
            if (!fs::exists(directory / file, code))
                throw Error(Errc::NotFound, (directory / file).string() + " is missing; " + name +
                                                " says that tensor \"" + wanted.front() +
                                                "\" is in it");
            std::vector<std::string> found = add(directory / file);
            std::sort(found.begin(), found.end());
            for (const std::string& tensor : wanted)
                if (!std::binary_search(found.begin(), found.end(), tensor))
                    throw Error(Errc::Format,
                                name + ": tensor \"" + tensor + "\" is not in " + file);
            const std::size_t extra = found.size() - wanted.size();
            if (extra > 0)
                notes.push_back(file + ": " + std::to_string(extra) +
                                " tensors that the index does not list");
        }
    }
};

Index StTensor::elements() const {
    Index n = 1;
    for (const Index d : shape) n *= d;
    return n;
}

std::vector<float> StTensor::toFloat() const {
    std::vector<float> out(dtype == StDType::Other ? 0 : std::size_t(elements()));
    const auto byByte = [&](auto convert) {
        for (std::size_t i = 0; i < out.size(); ++i)
            out[i] = convert(std::to_integer<unsigned>(bytes[i]));
    };
    const auto byHalf = [&](auto convert) {
        for (std::size_t i = 0; i < out.size(); ++i)
            out[i] = convert(load<std::uint16_t>(bytes.data() + 2 * i));
    };
    switch (dtype) {
        case StDType::F32:
            if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
            break;
        case StDType::F16:
            byHalf(kernels::halfToFloat);
            break;
        case StDType::BF16:
            byHalf(kernels::bfloatToFloat);
            break;
        case StDType::F64:
            widen<double>(*this, out);
            break;
        case StDType::F8_E4M3:
            byByte(e4m3ToFloat);
            break;
        case StDType::F8_E5M2:  // the upper byte of a half
            byByte([](unsigned b) { return kernels::halfToFloat(std::uint16_t(b << 8)); });
            break;
        case StDType::F8_E8M0:
            byByte(e8m0ToFloat);
            break;
        case StDType::Other:
            throw Error(Errc::Unsupported, "tensor \"" + name + "\" has dtype " + dtypeName +
                                               ", which Sparsight cannot convert to float");
        default:
            const std::vector<std::int64_t> whole = toInt();
            std::transform(whole.begin(), whole.end(), out.begin(), [&](std::int64_t v) {
                return dtype == StDType::U64 ? float(std::uint64_t(v)) : float(v);
            });
    }
    return out;
}

std::vector<std::int64_t> StTensor::toInt() const {
    std::vector<std::int64_t> out(dtype == StDType::Other ? 0 : std::size_t(elements()));
    switch (dtype) {
        case StDType::BOOL:
        case StDType::U8:
            widen<std::uint8_t>(*this, out);
            break;
        case StDType::I8:
            widen<std::int8_t>(*this, out);
            break;
        case StDType::U16:
            widen<std::uint16_t>(*this, out);
            break;
        case StDType::I16:
            widen<std::int16_t>(*this, out);
            break;
        case StDType::U32:
            widen<std::uint32_t>(*this, out);
            break;
        case StDType::I32:
            widen<std::int32_t>(*this, out);
            break;
        case StDType::U64:
            widen<std::uint64_t>(*this, out);
            break;
        case StDType::I64:
            widen<std::int64_t>(*this, out);
            break;
        default:
            throw Error(Errc::Unsupported, "tensor \"" + name + "\" has dtype " + dtypeName +
                                               ", which is not a whole-number type");
    }
    return out;
}

SafeTensors SafeTensors::openFile(const fs::path& file) {
    auto impl = std::make_shared<Impl>();
    impl->where = file.string();
    impl->add(file);
    for (auto& [name, tensor] : impl->tensors) impl->mapped(tensor);
    SafeTensors result;
    result.m_impl = std::move(impl);
    return result;
}

SafeTensors SafeTensors::openModel(const fs::path& directory) {
    if (!fs::is_directory(directory))
        throw Error(Errc::NotFound, directory.string() + " is not a directory");
    auto impl = std::make_shared<Impl>();
    impl->where = directory.string();
    std::string chosen;  // config.json may name the file
    if (fs::exists(directory / "config.json")) {
        const std::string name = (directory / "config.json").string();
        const auto config =
            parseJson(readTextFile(directory / "config.json", 16u << 20), name, true);
        if (config.is_object() && config.contains("transformers_weights") &&
            !config["transformers_weights"].is_null()) {
            const auto& wanted = config["transformers_weights"];
            if (!wanted.is_string() || !isPlainFileName(wanted.get<std::string>()))
                throw Error(Errc::Format, name +
                                              ": transformers_weights must be a file name inside "
                                              "the model directory, not " +
                                              wanted.dump(-1, ' ', true).substr(0, 80));
            chosen = wanted.get<std::string>();
        }
    }
    if (chosen.ends_with(".index.json")) {
        impl->addShards(directory, directory / chosen);
    } else if (!chosen.empty()) {
        impl->add(directory / chosen);
    } else if (fs::exists(directory / "model.safetensors")) {
        impl->add(directory / "model.safetensors");
    } else if (fs::exists(directory / "model.safetensors.index.json")) {
        impl->addShards(directory, directory / "model.safetensors.index.json");
    } else {
        std::string variants;
        bool pickled = false;
        for (const auto& entry : fs::directory_iterator(directory)) {
            const std::string name = entry.path().filename().string();
            pickled = pickled || (name.starts_with("pytorch_model") && name.ends_with(".bin"));
            if (name.ends_with(".safetensors")) variants += (variants.empty() ? "" : ", ") + name;
        }
        if (!variants.empty())
            throw Error(Errc::NotFound, directory.string() + " has no model.safetensors; it has " +
                                            variants + ": rename the one you want");
        if (pickled)
            throw Error(Errc::Unsupported,
                        directory.string() +
                            " holds pytorch_model.bin only, a pickle that may run "
                            "code: convert it with save_pretrained(..., "
                            "safe_serialization=True)");
        throw Error(Errc::NotFound, directory.string() +
                                        " has neither model.safetensors nor "
                                        "model.safetensors.index.json");
    }
    SafeTensors result;
    result.m_impl = std::move(impl);
    return result;
}

const std::map<std::string, StTensor>& SafeTensors::tensors() const {
    return m_impl->tensors;
}
bool SafeTensors::contains(const std::string& name) const {
    return m_impl->tensors.contains(name);
}
const StTensor& SafeTensors::at(const std::string& name) const {
    const auto it = m_impl->tensors.find(name);
    if (it == m_impl->tensors.end())
        throw Error(Errc::NotFound, "tensor \"" + name + "\" is not in " + m_impl->where);
    return m_impl->mapped(it->second);
}
const std::vector<Index>& SafeTensors::shape(const std::string& name) const {
    const auto it = m_impl->tensors.find(name);
    if (it == m_impl->tensors.end())
        throw Error(Errc::NotFound, "tensor \"" + name + "\" is not in " + m_impl->where);
    return it->second.shape;
}
const std::map<std::string, std::string>& SafeTensors::metadata() const {
    return m_impl->metadata;
}
const std::vector<std::string>& SafeTensors::notes() const {
    return m_impl->notes;
}
Index SafeTensors::fileBytes() const {
    return m_impl->bytes;
}
Index SafeTensors::fileCount() const {
    return Index(m_impl->files.size());
}
Index SafeTensors::mappedFiles() const {
    return std::count_if(m_impl->files.begin(), m_impl->files.end(),
                         [](const auto& file) { return file->mapped(); });
}
void SafeTensors::releasePages() const {
    for (const auto& file : m_impl->files) file->releasePages();
}

void writeSafeTensors(const fs::path& file, const std::vector<StWrite>& tensors,
                      const std::map<std::string, std::string>& metadata) {
    struct Item {
        const StWrite* tensor;
        const StType* type;
        std::uint64_t bytes;
    };
    std::vector<Item> items;
    for (const StWrite& t : tensors) {
        const StType* type = findStType(t.dtype);
        if (type == nullptr)
            throw Error(Errc::Unsupported,
                        "tensor \"" + t.name + "\" has a dtype that is not written");
        std::uint64_t bytes = type->bits / 8;
        for (const Index d : t.shape) bytes *= std::uint64_t(d);
        items.push_back({&t, type, bytes});
    }
    // The official writer's order: widest type first, so that every tensor ends up aligned.
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
        if (a.type->bits != b.type->bits) return a.type->bits > b.type->bits;
        return a.tensor->name < b.tensor->name;
    });
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t at = 0;
    for (const Item& i : items) {
        if (header.contains(i.tensor->name))
            throw Error(Errc::Usage, "two tensors are named \"" + i.tensor->name + "\"");
        header[i.tensor->name] = {{"dtype", i.type->name},
                                  {"shape", i.tensor->shape},
                                  {"data_offsets", {at, at + i.bytes}}};
        at += i.bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    unsigned char length[8];
    for (unsigned i = 0; i < 8; ++i)
        length[i] = static_cast<unsigned char>(std::uint64_t(text.size()) >> (8 * i));
    out.write(reinterpret_cast<const char*>(length), 8);
    out.write(text.data(), std::streamsize(text.size()));
    for (const Item& i : items)
        out.write(static_cast<const char*>(i.tensor->data), std::streamsize(i.bytes));
    out.close();
    if (!out) throw Error(Errc::Io, "cannot write " + file.string());
}

}  // namespace sparsight
