#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/job.h"
#include "kernels/base/tensor.h"

namespace sparsight {

/// How the elements of a foreign array are stored.
enum class Element : std::uint8_t {
    F16,
    BF16,
    F32,
    F64,
    Raw16,  ///< uint16 or two untyped bytes: bfloat16 when the user says so
    Int,    ///< signed integers of 1 to 8 bytes
    UInt,   ///< unsigned integers of 1, 4 or 8 bytes (2: Raw16)
    Other   ///< nothing that can be imported
};

/// One array as its file describes it; no value is read yet.
struct ForeignTensor {
    std::string name;   ///< key of a safetensors file, entry of a .npz, stem of a .npy, HDF5 path
    std::string dtype;  ///< as the file spells it, for messages
    Element element = Element::Other;
    Index width = 0;  ///< bytes of one element
    std::vector<Index> shape;
    bool fortran = false;  ///< first axis fastest (numpy's fortran_order)

    Index elements() const;
    std::string shapeText() const;  ///< "[8, 130, 64]"
};

/// A file of named arrays. Not safe in parallel.
class TensorFile {
public:
    virtual ~TensorFile() = default;
    const std::filesystem::path& path() const { return m_path; }
    const std::vector<ForeignTensor>& tensors() const { return m_tensors; }
    const std::map<std::string, std::string>& metadata() const { return m_metadata; }

    /// Copies elements [first, first + count) in stored order, little-endian. Reading a compressed
    /// array from front to back decompresses it once.
    /// @param out  count * width bytes
    /// @throws Error(Format) damaged data, Error(Io)
    virtual void read(std::size_t tensor, Index first, Index count, std::byte* out) = 0;

protected:
    explicit TensorFile(std::filesystem::path path) : m_path(std::move(path)) {}
    std::filesystem::path m_path;
    std::vector<ForeignTensor> m_tensors;
    std::map<std::string, std::string> m_metadata;
};

/// A safetensors file, mapped.
std::unique_ptr<TensorFile> openSafetensorsFile(const std::filesystem::path& file);
/// A numpy array; its tensor has the name of the file without `.npy`.
std::unique_ptr<TensorFile> openNpyFile(const std::filesystem::path& file);
/// A zip of .npy entries, stored or deflated, also beyond 4 GiB.
std::unique_ptr<TensorFile> openNpzFile(const std::filesystem::path& file);

/// What a file is, by its first bytes; its name decides nothing but the words of a refusal.
enum class TensorFormat : std::uint8_t { Safetensors, Npy, Npz, Hdf5 };
/// @throws Error(Unsupported) for pickles, PyTorch files, GGUF and unknown files: the sentence says
///         how to convert; Error(NotFound), Error(Io)
TensorFormat tensorFormat(const std::filesystem::path& file);

/// Integers of a tensor of Element::Int, UInt or Raw16. @throws Error(Format) of another type
std::vector<std::int64_t> readIntegers(TensorFile& file, std::size_t tensor);

/// The name of the elements' type once they are read: f32, f16 or bf16 (f64 becomes f32).
/// @param rawIsBf16  16-bit elements without a float type are bfloat16
/// @return false when the elements are no floating-point values
bool valueType(const ForeignTensor& tensor, bool rawIsBf16, kernels::DType& type);

}  // namespace sparsight
