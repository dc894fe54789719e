#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/import/npy.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

/// One array, read where it is asked for.
class NpyFile final : public TensorFile {
public:
    explicit NpyFile(const std::filesystem::path& file) : TensorFile(file) {
        const std::string where = "'" + file.string() + "'";
        m_fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
        struct stat info {};
        if (m_fd < 0 || ::fstat(m_fd, &info) != 0) {
            const int why = errno;
            closeFile();
            throw Error(Errc::Io, "cannot read " + where + ": " + std::strerror(why));
        }
        try {
            std::vector<std::byte> begin(
                std::size_t(std::min<Index>(kMostNpyHeader, Index(info.st_size))));
            readAt(0, begin);
            NpyHeader header = parseNpyHeader(begin, where);
            m_offset = header.dataOffset;
            header.tensor.name = file.stem().string();
            const Index bytes = header.tensor.elements() * header.tensor.width;
            if (Index(info.st_size) - m_offset != bytes)
                throw Error(
                    Errc::Format,
                    where + " does not hold what its header says: " + header.tensor.shapeText() +
                        " of " + header.tensor.dtype + " takes " + std::to_string(bytes) +
                        " bytes, " + std::to_string(Index(info.st_size) - m_offset) + " are there");
            m_tensors.push_back(std::move(header.tensor));
        } catch (...) {
            closeFile();
            throw;
        }
    }
    NpyFile(const NpyFile&) = delete;
    NpyFile& operator=(const NpyFile&) = delete;
    ~NpyFile() override { closeFile(); }

    void read(std::size_t tensor, Index first, Index count, std::byte* out) override {
        const Index width = m_tensors.at(tensor).width;
        readAt(m_offset + first * width, {out, std::size_t(count * width)});
    }

private:
    void readAt(Index at, std::span<std::byte> out) const {
        while (!out.empty()) {
            const ssize_t n = ::pread(m_fd, out.data(), out.size(), off_t(at));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0)
                throw Error(Errc::Io,
                            "cannot read '" + m_path.string() +
                                "': " + (n < 0 ? std::strerror(errno) : "the file became shorter"));
            at += n;
            out = out.subspan(std::size_t(n));
        }
    }
    void closeFile() {
        if (m_fd >= 0) ::close(m_fd);
        m_fd = -1;
    }
    int m_fd = -1;
    Index m_offset = 0;
};

}  // namespace

std::unique_ptr<TensorFile> openNpyFile(const std::filesystem::path& file) {
    return std::make_unique<NpyFile>(file);
}

}  // namespace sparsight
