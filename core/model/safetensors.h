#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/view.h"

namespace sparsight {

enum class StDType {
    BOOL,
    U8,
    I8,
    F8_E4M3,
    F8_E5M2,
    F8_E8M0,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
    Other
};

/// One tensor of a mapped file. The bytes are not aligned: copy, never cast.
struct StTensor {
    std::string name;
    StDType dtype = StDType::Other;
    std::string dtypeName;
    std::vector<Index> shape;
    std::span<const std::byte> bytes;  ///< valid as long as the SafeTensors object lives
    Index elements() const;
    /// Values converted to float. @throws Error(Unsupported) for non-numeric types
    std::vector<float> toFloat() const;
    std::vector<std::int64_t> toInt() const;  ///< integers and booleans
};

/// A safetensors file, or all shards of a model directory. Checks every validity rule of the format
/// (model-formats.md 1) before anything is exposed. Opening reads headers only; a file is memory
/// mapped, read-only, when the first of its tensors is asked for. One thread at a time.
class SafeTensors {
public:
    /// @throws Error(Format) naming file, tensor and rule; Error(Io), Error(NotFound)
    static SafeTensors openFile(const std::filesystem::path& file);
    /// `model.safetensors`, else `model.safetensors.index.json` and its shards.
    static SafeTensors openModel(const std::filesystem::path& directory);

    /// All tensors by name. Their bytes are there for files opened by openFile(); those of a model
    /// directory come with at().
    const std::map<std::string, StTensor>& tensors() const;
    bool contains(const std::string& name) const;
    /// Maps the file when it is not. @throws Error(NotFound) naming the tensor and the file
    const StTensor& at(const std::string& name) const;
    /// From the header, without mapping. @throws Error(NotFound)
    const std::vector<Index>& shape(const std::string& name) const;
    const std::map<std::string, std::string>& metadata() const;
    /// Oddities that are no errors (tensors that the index does not list), for the model panel.
    const std::vector<std::string>& notes() const;
    Index fileBytes() const;  ///< of all files together
    Index fileCount() const;
    Index mappedFiles() const;  ///< how many of them are mapped by now
    /// Tells the system that the pages read so far are not needed soon: they leave this process'
    /// memory and are read again when something asks for them.
    void releasePages() const;

    struct Impl;

private:
    std::shared_ptr<Impl> m_impl;
};

struct StWrite {
    std::string name;
    StDType dtype;
    std::vector<Index> shape;
    const void* data;
};
/// Writes a valid file (tests, exports). @throws Error(Io)
void writeSafeTensors(const std::filesystem::path& file, const std::vector<StWrite>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace sparsight
