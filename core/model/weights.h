#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/model/safetensors.h"
#include "kernels/base/job.h"

namespace sparsight {

/// A decoder whose weights take at most this many bytes as float32 is converted when it is loaded;
/// of a larger one, layers are converted when they are needed.
constexpr Index kConvertedAtOnce = Index(256) << 20;
/// Bytes that a new allocation may take without pushing other things out of memory.
Index availableMemory();

/// The numbers of a weight as its file holds them: row r = g * (rows / groups) + i begins
/// g * groupStride + i * rowStride elements after `first`.
struct StoredWeight {
    const std::byte* first = nullptr;  ///< need not be aligned; valid as long as the file is mapped
    StDType type = StDType::F32;       ///< F32, F16 or BF16
    Index groups = 1, groupStride = 0, rowStride = 0, colStride = 1;
    Index bytesPerElement() const { return type == StDType::F32 ? 4 : 2; }
};

/// A matrix [rows, cols] or vector [rows] in float32, or as the file stores it
/// (WeightFile::Mode::Stored). Copies share the numbers.
struct Weight {
    std::shared_ptr<const std::vector<float>> own;  ///< null when the numbers lie in a mapped file
    const float* data = nullptr;  ///< null: the model has no such weight, only its shape was read,
                                  ///< or `stored` has it
    StoredWeight stored;
    Index rows = 0, cols = 1;
    bool given() const { return data != nullptr || stored.first != nullptr; }
    Index count() const { return rows * cols; }
    /// Rows [first, first + n), sharing the numbers.
    Weight slice(Index first, Index n) const;
};

/// y = x w^T (+ b); the matrix is [out, in].
struct Linear {
    Weight w, b;
    bool given() const { return w.given(); }
};
struct NormWeight {
    Weight w, b;  ///< b: LayerNorm only
    bool given() const { return w.given(); }
};

/// True when no value is NaN or infinite.
bool allFinite(const float* x, Index count);

/// The tensors of a model directory under their prefix, converted to float32 on demand: nothing is
/// converted before it is asked for. float32 matrices are not copied, they stay in the mapped file.
class WeightFile {
public:
    /// What reading does: convert to float32, only check that tensors are there with the right
    /// shape, or leave 16- and 32-bit values where they are in the file, unread and unchecked.
    enum class Mode { Convert, CheckOnly, Stored };

    /// @param prefixes   where the model's tensors may be; the first under which `landmark` is
    /// there
    /// @param landmark   a tensor that every such model has
    WeightFile(const std::filesystem::path& directory, const std::vector<std::string>& prefixes,
               const std::string& landmark, Mode mode = Mode::Convert);

    void setMode(Mode mode) { m_mode = mode; }
    Mode mode() const { return m_mode; }
    const std::string& prefix() const { return m_prefix; }
    bool contains(const std::string& name) const { return m_file.contains(name); }
    const SafeTensors& file() const { return m_file; }

    /// A tensor by its whole name; 16-bit, 8-bit and float64 values are widened or rounded to
    /// float32, fp8 tiles multiplied by their scales.
    /// @param shape  what the model calls for: one or two dimensions
    /// @throws Error(Format) missing, another shape, NaN or infinite values: names the tensor
    Weight read(const std::string& name, const std::vector<Index>& shape);
    /// The same for a matrix that the file holds as [cols, rows].
    Weight readTransposed(const std::string& name, Index rows, Index cols);
    /// `name`.weight and, when `bias`, `name`.bias.
    Linear linear(const std::string& name, Index out, Index in, bool bias, bool transposed = false);
    NormWeight norm(const std::string& name, Index width, bool bias);

    /// Elements [first, first + out.size()) of a tensor, as float32: rows of an embedding, one
    /// expert of a stack. The shape is not checked. @throws Error(Format) for NaN or infinite
    /// values
    void readPart(const std::string& name, Index first, std::span<float> out);
    /// One expert's matrix of MXFP4 blocks: `name`_blocks [E, rows, cols / 32, 16] and
    /// `name`_scales [E, rows, cols / 32]. @param out [rows][cols]
    void readMxfp4(const std::string& name, Index expert, Index rows, Index cols, float* out);
    /// Checks a tensor's shape and counts it as used. @throws Error(Format)
    void require(const std::string& name, const std::vector<Index>& shape);

    /// The pages of the mapped files may leave the memory (they come back when they are read).
    void releasePages() { m_file.releasePages(); }
    /// Tensors that nobody asked for, without masks and frequencies that old files carry.
    std::vector<std::string> leftovers() const;
    /// Bytes of everything that was asked for, as float32.
    Index wantedBytes() const { return m_wanted; }

    /// Elements [first, first + rows * cols) of a tensor as it is stored; a Weight that is not
    /// given when the mode or the tensor's type calls for a conversion.
    Weight storedPart(const std::string& name, Index first, Index rows, Index cols) const;

private:
    void check(const std::string& name, const float* x, Index count) const;

    std::string m_where, m_prefix;
    SafeTensors m_file;
    Mode m_mode;
    std::set<std::string> m_used;
    Index m_wanted = 0;
};

/// A multi-layer perceptron: down(act(gate x) * up x), without a gate down(act(up x)).
struct MlpWeights {
    Linear gate, up, down;
};

/// One decoder layer in float32, whatever its stored layout: fused matrices are split, [in, out]
/// ones transposed.
struct LayerWeights {
    NormWeight attentionNorm, attentionOutNorm, attentionSumNorm, mlpNorm, mlpOutNorm, mlpSumNorm;
    Linear q, k, v, o;
    NormWeight qNorm, kNorm;
    Weight sinks;
    Linear qDown, kvDown, kvUp;  ///< latent attention; q is then the matrix up from qDown
    NormWeight qDownNorm, kvDownNorm;
    MlpWeights mlp;  ///< also the shared expert of a mixture
    Linear router;
    Weight correction;                ///< of the choice of experts
    std::vector<MlpWeights> experts;  ///< empty until readExperts()
};

/// Reads layer `l` without its experts. @throws Error as WeightFile
LayerWeights readLayer(WeightFile& file, const ModelConfig& config, Index l);
/// One expert of layer `l`. @throws Error as WeightFile
MlpWeights readExpert(WeightFile& file, const ModelConfig& config, Index l, Index expert);
/// Checks all tensors of a decoder against its config.json: nothing is converted.
/// @return sentences for the model panel: tensors left over, a missing head that is tied
/// @throws Error(Format) a tensor is missing or has another shape
std::vector<std::string> checkWeights(WeightFile& file, const ModelConfig& config);

/// Opens the weights of a decoder.
WeightFile openWeights(const std::filesystem::path& directory, const ModelConfig& config);
/// The name of the output matrix, or of the embedding when the two are one.
std::string outputMatrix(const WeightFile& file, const ModelConfig& config);

}  // namespace sparsight
