#include "core/export/write_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <system_error>

#include "kernels/base/error.h"

namespace sparsight {

void writeFile(const std::filesystem::path& file, std::string_view bytes) {
    std::filesystem::path temporary = file;
    temporary += fmt::format(".{}.part", ::getpid());  // two programs may write the same figure
    std::error_code error;
    {
        std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
        out.write(bytes.data(), std::streamsize(bytes.size()));
        out.close();
        if (!out) {
            std::filesystem::remove(temporary, error);
            throw Error(Errc::Io, fmt::format("cannot write {}; does its folder exist, and is "
                                              "there room?",
                                              file.string()));
        }
    }
    std::filesystem::rename(temporary, file, error);
    if (error) {
        const std::string why = error.message();
        std::filesystem::remove(temporary, error);
        throw Error(Errc::Io, fmt::format("cannot write {}: {}", file.string(), why));
    }
}

}  // namespace sparsight
