#pragma once

#include <optional>

#include "core/import/name_pattern.h"
#include "core/import/tensor_file.h"
#include "kernels/problem.h"

namespace sparsight {

/// All tensors of the files that an import names. Where files share names (layer0.npz and
/// layer1.npz with q, k, v), every name is "<file's stem>:<name>".
class TensorSet {
public:
    /// @throws Error(Usage) no file, or two tensors of one name in one file
    explicit TensorSet(std::vector<std::unique_ptr<TensorFile>> files);

    struct Entry {
        std::size_t file, tensor;  ///< place in files() and in that file's tensors()
        std::string name;          ///< unique in the set
    };
    const std::vector<Entry>& entries() const { return m_entries; }
    const ForeignTensor& tensor(std::size_t entry) const;
    TensorFile& file(std::size_t entry) const;
    const std::vector<std::unique_ptr<TensorFile>>& files() const { return m_files; }

private:
    std::vector<std::unique_ptr<TensorFile>> m_files;
    std::vector<Entry> m_entries;
};

/// The order of the axes of q, k and v.
enum class AxisOrder : std::uint8_t { HeadsTokens, TokensHeads };  ///< [.., H, T, d], [.., T, H, d]

/// Keys that a finished map may have: the widest head that a session may hold.
inline constexpr Index kMostMapKeys = 1024;

/// What the user says about the files; everything left out is guessed or read from the files.
struct ImportOptions {
    /// By Part: a name pattern, e.g. "layer.{layer}.q"; "" = by the names; "-" = leave it out.
    std::string patterns[kParts];
    AxisOrder axes = AxisOrder::HeadsTokens;
    bool rawIsBf16 = false;      ///< 16-bit integers are bfloat16
    std::vector<Index> layers;   ///< ascending; empty = all
    std::optional<bool> causal;  ///< empty: the file's word, else causal unless Nq > Nk
    std::optional<double> scale, softcap;
    std::optional<Index> window;  ///< 0 = none
};

/// A tensor, or a slice of it along a leading axis, that holds heads [head, head + heads).
struct Piece {
    std::size_t entry = 0;
    Index leading = -1;  ///< index in the leading axis; -1 = the tensor has none
    Index head = 0, heads = 0;
    int headAxis = -1, tokenAxis = -1, widthAxis = -1;  ///< axes of the tensor; -1 = it has none
};
/// One part of one layer.
struct PartSource {
    std::vector<Piece> pieces;                  ///< by head; empty = not in the files
    kernels::DType type = kernels::DType::F32;  ///< as it is stored
};
struct ImportLayer {
    Index layer = 0;
    PartSource q, k, v, lse, sinks;
    /// Finished probabilities [Hq, Nq, Nk], in place of q and k: the layer that is read has
    /// q = ln P, one head k = the identity, d = Nk and scale 1, whose softmax is P again.
    PartSource map;
    kernels::Problem problem;  ///< sinks are set when the layer is read; dv = 0 without V
};

/// What one tensor of the set is taken for: a row of the preview.
struct PreviewRow {
    std::size_t entry = 0;
    std::optional<Part> part;
    Index layer = -1, head = -1;  ///< -1 = all, or none
    std::string problem;          ///< a sentence; "" = fine
};

/// Every tensor's place, checked.
struct ImportPlan {
    std::vector<PreviewRow> rows;         ///< of all tensors of the set, in its order
    std::vector<std::string> problems;    ///< sentences; an import needs an empty list
    std::vector<std::string> notes;       ///< what was taken for granted
    std::vector<ImportLayer> layers;      ///< ascending; complete when there is no problem
    std::optional<std::size_t> inputIds;  ///< entry
    std::string patterns[kParts];         ///< in use; "" = none
    /// Patterns that the names suggest for each part, the fullest first.
    std::vector<std::string> candidates[kParts];
    std::string modelName;  ///< as the file says; "" = it does not

    Index layerCount() const { return layers.empty() ? 0 : layers.back().layer + 1; }
    const kernels::Problem& problem() const { return layers.front().problem; }
};

/// Maps names to layers and heads and checks every shape. Reads no values. Never throws for what
/// the files hold: that is in `problems`, so that a window can show all of it.
/// @throws Error(Usage) for a malformed pattern
ImportPlan planImport(const TensorSet& set, const ImportOptions& options);

}  // namespace sparsight
