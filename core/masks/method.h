#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"

namespace sparsight {

/// One parameter of a method. A row makes the GUI field, the CLI key and the JSON key.
struct Param {
    enum Kind { Int, Real, Flag, Text };
    const char* name;
    Kind kind;
    double standard, least, most;  ///< Flag: 0 or 1; Text: unused
    const char* unit;              ///< "tokens", "blocks", "1", "" ...
    const char* help;              ///< one sentence
    double step = 0;  ///< > 0: the value must be `least` + a multiple of it (block: 64 or 128)
};

/// Values by parameter name; missing ones take the standard value.
struct ParamValues {
    std::map<std::string, double> numbers;
    std::map<std::string, std::string> texts;
    bool operator==(const ParamValues&) const = default;
};

/// What a method may look at for one query head. Views stay valid during select() only.
struct HeadInput {
    kernels::Problem problem;    ///< of this head alone: Hq = Hkv = 1
    kernels::TensorView q, k;    ///< [Nq, D], [Nk, D] (head stride unused)
    const float* lse = nullptr;  ///< [Nq] natural log of the dense attention; null = not known
    /// Base level of the sum pyramid [ceil(Nq/64)][ceil(Nk/64)]; null = not known
    const float* blockMass = nullptr;
    kernels::Backend* backend = nullptr;    ///< for scores; never null
    Index layer = 0, head = 0, kvHead = 0;  ///< numbers within the model
    std::optional<double> retrievalScore;   ///< of this head, when a needle probe knows it
};

/// A rule that makes the mask of one head. Pure, safe in parallel.
class MaskPolicy {
public:
    virtual ~MaskPolicy() = default;
    /// The nominal, token-exact set for these queries (Nq = Nk in a prefill; with Nq < Nk the rows
    /// are the last ones). @throws Error(Usage) when something it needs is not known
    virtual kernels::Policy select(const HeadInput& head, const Job& job = {}) const = 0;
    /// The set that the released code really executes, where it differs from select() by more than
    /// tiles of ours (MInference's own tiles); empty = no such set.
    virtual std::optional<kernels::Policy> released(const HeadInput&, const Job& = {}) const {
        return std::nullopt;
    }
};

/// A row of the method registry. Ids are forever.
struct Method {
    std::string_view id, title, source;  ///< source: paper, year
    std::string_view summary;            ///< one sentence for lists and tooltips
    std::string_view colour;             ///< overlay colour "#rrggbb" (Okabe-Ito)
    std::span<const Param> params;
    bool decodes;                  ///< has a rule for single decode rows; else dense there
    Index block;                   ///< 0 = token method; else the standard block edge of its masks
    std::string_view budgetParam;  ///< the parameter that a recall/density curve sweeps; "" = none
    std::unique_ptr<MaskPolicy> (*make)(const ParamValues& complete);
};

/// All methods: dense, a-shape, vertical-slash, antidiagonal, retrieval-heads, oracle-blocks.
std::span<const Method> methods();
/// @throws Error(NotFound) suggesting the nearest id
const Method& method(std::string_view id);

/// A method with its parameters, as the CLI writes it: `a-shape:sink=4,window=256`.
struct MethodSpec {
    std::string id;
    ParamValues params;  ///< only what was given
    bool operator==(const MethodSpec&) const = default;
};
/// @throws Error(NotFound) unknown method, Error(Usage) unknown or out-of-range parameter (suggests
///         the nearest name, states the range)
MethodSpec parseMethod(std::string_view text);
std::string toString(const MethodSpec& spec);
/// Given values checked and standard ones filled in.
ParamValues complete(const Method& method, const ParamValues& given);
std::unique_ptr<MaskPolicy> makePolicy(const MethodSpec& spec);

/// The candidate nearest to `word` by edit distance, or "" when nothing is near.
std::string nearest(std::string_view word, std::span<const std::string_view> candidates);

/// For rules with a window before the query: in cross-attention rows and keys are different
/// sequences, and no key is the query's own. @throws Error(Unsupported)
void requireOneSequence(const kernels::Problem& problem, const std::string& method);

/// Kept share of the valid pairs in each pixel (-1 where a pixel has none): the overlay's picture.
/// Bins as in kernels::RenderSpec. @param px [height][width]
void rasterize(const kernels::Policy& policy, const kernels::Problem& problem, Index q0, Index q1,
               Index k0, Index k1, Index width, Index height, float* px, const Job& job = {});

/// Token mask [Nq][Nk] (1 = kept), or block mask of `block` x `block` (1 = any pair kept).
std::vector<std::uint8_t> tokenMask(const kernels::Policy& policy, const kernels::Problem& problem);
std::vector<std::uint8_t> blockMask(const kernels::Policy& policy, const kernels::Problem& problem,
                                    Index block);

}  // namespace sparsight
