#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/model/config.h"

namespace sparsight {

/// Tensor names of one block below the layer's prefix; "" = the architecture has no such part.
/// Each stands for `<name>.weight` and, where the architecture has biases, `<name>.bias`.
struct BlockNames {
    std::string layer;  ///< prefix of layer #, "encoder.layer.#."
    std::string q, k, v, o, attentionNorm;
    std::string up, down, mlpNorm;
    std::string gate = {};  ///< the MLP is act(gate x) * up x
    std::string crossQ = {}, crossK = {}, crossV = {}, crossO = {}, crossNorm = {};
};

/// One stack of transformer blocks: x += attention, (x += cross-attention,) x += MLP, with the norm
/// before each branch (pre) or after each sum (post).
struct Tower {
    std::string prefix;             ///< of all its tensors ("text_model."); files may leave it out
    std::vector<BlockNames> names;  ///< spellings, the first that fits is taken
    std::string finalNorm;          ///< over the last hidden states; "" = none
    Index layers = 0, hidden = 0, intermediate = 0, heads = 0, headDim = 0;
    bool preNorm = false, rmsNorm = false, causal = false;
    bool bias = true, qkvBias = true;  ///< of the matrices, of q, k, v
    bool relativeBias = false;         ///< T5: a bias by distance, of block 0, for all blocks
    double normEps = 1e-12, scale = 1.0;
    std::string activation = "gelu";
};

/// How tokens become the first hidden states.
struct TextEmbedding {
    std::vector<std::string> words;  ///< tensor names, the first that exists
    std::string positions;           ///< learned positions; "" = none
    std::string types;               ///< token types, row 0 for all tokens; "" = none
    std::string norm;                ///< LayerNorm of the sum; "" = none
    Index typeRows = 0, positionRows = 0, positionOffset = 0;
    bool positionsCountNonPad = false;  ///< RoBERTa: pad + running count of tokens that are not pad
    Index padToken = 0;
    double scale = 1.0;  ///< of the words
};
struct ImageEmbedding {
    std::string patches, classToken, positions, norm;  ///< norm "" = none
    bool patchBias = true;
    Index channels = 3, patch = 16, height = 224, width = 224;  ///< pixels
    ImageGrid grid() const { return {height / patch, width / patch, 1}; }
};

/// What turns the last hidden states into logits.
enum class EncoderHead {
    None,
    BertMaskedLm,     ///< cls.predictions
    RobertaMaskedLm,  ///< lm_head
    ImageClasses,     ///< classifier of the class token
    ClipProjection,   ///< projection of the pooled token
    LanguageModel     ///< lm_head or the shared embedding
};

/// What config.json says about a model that is not one causal decoder: the forward pass of
/// core/torch/encoder_runner reads only this.
struct EncoderConfig {
    std::vector<std::string> prefixes;  ///< of all tensors, one of them; files may leave it out
    Tower text, decoder, vision;        ///< layers = 0: not there
    TextEmbedding words, decoderWords;
    ImageEmbedding image;
    EncoderHead head = EncoderHead::None;
    Index outputs = 0;                   ///< width of the logits: vocabulary, classes, projection
    double logitsScale = 1.0;            ///< T5 with tied embeddings: hidden^-1/2
    Index startToken = 0;                ///< encoder-decoders: the decoder's first id
    Index poolToken = 0;                 ///< CLIP: the text's pooled token is the first of this id
    bool poolLargest = false;            ///< CLIP's old files: the token with the largest id
    Index buckets = 0, maxDistance = 0;  ///< T5's relative bias
};

/// The tower that a stack's layers belong to; cross-attention is the decoder's.
const Tower& towerOf(const EncoderConfig& config, const AttentionStack& stack);

/// The relative position bucket of key - query = `distance` (T5).
/// @param bidirectional  half of the buckets for keys after the query
Index relativeBucket(Index distance, bool bidirectional, Index buckets, Index maxDistance);

/// Model types that parseEncoder() reads, with their titles alone.
std::vector<Architecture> encoderArchitectures();
bool isEncoder(const std::string& modelType);

/// Fills `config` (its name, json, sha256 and arch are there already) from config.json's object.
/// @throws Error as parseConfig
void parseEncoder(const nlohmann::json& object, const std::string& where, ModelConfig& config);

}  // namespace sparsight
