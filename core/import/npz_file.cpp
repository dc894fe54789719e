#include <zip.h>

#include <algorithm>

#include "core/import/npy.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

struct CloseArchive {
    void operator()(zip_t* z) const { zip_discard(z); }
};
struct CloseEntry {
    void operator()(zip_file_t* f) const { zip_fclose(f); }
};
using Archive = std::unique_ptr<zip_t, CloseArchive>;
using Entry = std::unique_ptr<zip_file_t, CloseEntry>;

/// A zip of .npy arrays. An entry's stream stays open, so that reading an array layer by layer
/// decompresses it once; libzip compares the checksum when an entry was read to its end.
class NpzFile final : public TensorFile {
public:
    explicit NpzFile(const std::filesystem::path& file) : TensorFile(file) {
        int code = 0;
        m_archive.reset(zip_open(file.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &code));
        if (!m_archive) {
            zip_error_t error;
            zip_error_init_with_code(&error, code);
            const std::string why = zip_error_strerror(&error);
            zip_error_fini(&error);
            throw Error(Errc::Format, "'" + file.string() + "' is not a sound zip file: " + why);
        }
        const auto entries = zip_get_num_entries(m_archive.get(), 0);
        for (zip_uint64_t i = 0; i < zip_uint64_t(entries); ++i) addEntry(i);
        if (m_tensors.empty())
            throw Error(Errc::Format, "'" + file.string() + "' holds no .npy array");
    }

    void read(std::size_t tensor, Index first, Index count, std::byte* out) override {
        Stream& s = m_streams.at(tensor);
        const Index width = m_tensors[tensor].width, begin = s.dataOffset + first * width;
        if (!s.entry || s.at > begin) {
            s.entry = openEntry(s.index, where(tensor));
            s.at = 0;
        }
        std::vector<std::byte> skipped(std::size_t(std::min<Index>(begin - s.at, 1 << 20)));
        while (s.at < begin)
            readOn(s, {skipped.data(), std::size_t(std::min(begin - s.at, Index(skipped.size())))},
                   tensor);
        readOn(s, {out, std::size_t(count * width)}, tensor);
        if (s.at == s.bytes) {  // libzip compares the checksum at the read that finds the end
            std::byte one;
            if (zip_fread(s.entry.get(), &one, 1) < 0) fail(s, tensor);
        }
    }

private:
    struct Stream {
        zip_uint64_t index = 0;
        Index dataOffset = 0, bytes = 0;
        Entry entry;
        Index at = 0;  ///< next byte of the entry
    };

    std::string where(std::size_t tensor) const {
        return "'" + m_path.string() + "', " + m_tensors[tensor].name;
    }
    [[noreturn]] void fail(const Stream& s, std::size_t tensor) const {
        throw Error(Errc::Format, where(tensor) + " cannot be read: " +
                                      zip_error_strerror(zip_file_get_error(s.entry.get())));
    }

    Entry openEntry(zip_uint64_t index, const std::string& name) const {
        Entry entry(zip_fopen_index(m_archive.get(), index, 0));
        if (!entry)
            throw Error(Errc::Format, name + " cannot be read: " + zip_strerror(m_archive.get()));
        return entry;
    }

    void readOn(Stream& s, std::span<std::byte> out, std::size_t tensor) const {
        while (!out.empty()) {
            const auto n = zip_fread(s.entry.get(), out.data(),
                                     std::min<zip_uint64_t>(out.size(), zip_uint64_t(1) << 30));
            if (n < 0) fail(s, tensor);
            if (n == 0) throw Error(Errc::Format, where(tensor) + " ends before its last element");
            out = out.subspan(std::size_t(n));
            s.at += n;
        }
    }

    void addEntry(zip_uint64_t index) {
        zip_stat_t stat;
        zip_stat_init(&stat);
        if (zip_stat_index(m_archive.get(), index, 0, &stat) != 0 ||
            !(stat.valid & ZIP_STAT_NAME) || !(stat.valid & ZIP_STAT_SIZE))
            throw Error(Errc::Format, "'" + m_path.string() + "': an entry has no name or size");
        std::string name = stat.name;
        if (name.ends_with("data.pkl") || name.ends_with("constants.pkl"))
            throw Error(
                Errc::Unsupported,
                "'" + m_path.string() +
                    "' is a PyTorch file (.pt, .bin): a pickle, which runs code of its author when "
                    "it is read; convert it where you trust it, with Python: import torch, "
                    "safetensors.torch as st; st.save_file(torch.load('" +
                    m_path.filename().string() + "', weights_only=True), 'tensors.safetensors')");
        if (!name.ends_with(".npy")) return;
        const std::string who = "'" + m_path.string() + "', " + name;
        Stream stream;
        stream.index = index;
        stream.bytes = Index(stat.size);
        const Entry entry = openEntry(index, who);
        std::vector<std::byte> begin(std::size_t(std::min<Index>(kMostNpyHeader, stream.bytes)));
        std::size_t got = 0;
        while (got < begin.size()) {
            const auto n = zip_fread(entry.get(), begin.data() + got, begin.size() - got);
            if (n <= 0) throw Error(Errc::Format, who + " is damaged");
            got += std::size_t(n);
        }
        NpyHeader header = parseNpyHeader(begin, who);
        stream.dataOffset = header.dataOffset;
        const Index bytes = header.tensor.elements() * header.tensor.width;
        if (stream.bytes - stream.dataOffset != bytes)
            throw Error(Errc::Format,
                        who + " does not hold what its header says: " + header.tensor.shapeText() +
                            " of " + header.tensor.dtype + " takes " + std::to_string(bytes) +
                            " bytes, " + std::to_string(stream.bytes - stream.dataOffset) +
                            " are there");
        name.resize(name.size() - 4);
        header.tensor.name = std::move(name);
        m_tensors.push_back(std::move(header.tensor));
        m_streams.push_back(std::move(stream));
    }

    Archive m_archive;
    std::vector<Stream> m_streams;
};

}  // namespace

std::unique_ptr<TensorFile> openNpzFile(const std::filesystem::path& file) {
    return std::make_unique<NpzFile>(file);
}

}  // namespace sparsight
