#include "core/model/stacks.h"

#include <algorithm>
#include <charconv>

#include "core/model/config.h"
#include "kernels/base/error.h"

namespace sparsight {
namespace {

std::string_view trimmed(std::string_view s) {
    while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
    while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
    return s;
}

Index tokensOf(Sequence sequence, const InputSize& size) {
    switch (sequence) {
        case Sequence::Decoder:
            return size.decoder;
        case Sequence::Image:
            return size.image;
        default:
            return size.text;
    }
}

/// Layers of one numbering that a piece of text may choose from.
struct Numbers {
    Index first = 0, count = 0;
    std::string prefix;  ///< "cross." of messages
};

Index parseNumber(std::string_view text, std::string_view all, const Numbers& in) {
    Index n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    const std::string range =
        in.prefix + "0 to " + in.prefix + std::to_string(std::max<Index>(in.count - 1, 0));
    if (error == std::errc::result_out_of_range)
        n = in.count;  // out of range below
    else if (error != std::errc() || end != text.data() + text.size() || n < 0)
        throw Error(Errc::Usage, "layers '" + std::string(all) + "': '" + std::string(text) +
                                     "' is not a layer; write for example " + in.prefix + "0," +
                                     in.prefix + "2-5 or all (" + range + ")");
    if (n >= in.count)
        throw Error(Errc::NotFound, "there is no layer " + in.prefix + std::string(text) +
                                        ": the model has layers " + range);
    return n;
}

/// "3" or "2-5", appended.
void addItem(std::string_view item, std::string_view all, const Numbers& in,
             std::vector<Index>& out) {
    const auto dash = item.find('-');
    const Index first = parseNumber(trimmed(item.substr(0, dash)), all, in);
    const Index last =
        dash == item.npos ? first : parseNumber(trimmed(item.substr(dash + 1)), all, in);
    if (last < first)
        throw Error(Errc::Usage, "layers '" + std::string(all) + "': the range '" +
                                     std::string(item) + "' runs backwards");
    for (Index l = first; l <= last; ++l) out.push_back(in.first + l);
}

template <class AddItem>
std::vector<Index> parseList(std::string_view text, Index layerCount, AddItem add) {
    const std::string_view all = trimmed(text);
    std::vector<Index> out;
    if (all.empty() || all == "all") {
        for (Index l = 0; l < layerCount; ++l) out.push_back(l);
        return out;
    }
    for (std::string_view rest = all;;) {
        const auto comma = rest.find(',');
        add(trimmed(rest.substr(0, comma)), all, out);
        if (comma == rest.npos) break;
        rest.remove_prefix(comma + 1);
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

bool named(const ModelConfig& config) {
    return !config.stacks.empty() && !config.stacks.front().name.empty();
}

const AttentionStack* stackNamed(const ModelConfig& config, std::string_view name) {
    for (const AttentionStack& s : config.stacks)
        if (s.name == name) return &s;
    return nullptr;
}

}  // namespace

const AttentionStack* stackOf(const ModelConfig& config, Index layer) {
    for (const AttentionStack& s : config.stacks)
        if (layer >= s.first && layer < s.first + s.layers) return &s;
    return nullptr;
}

LayerShape layerShape(const ModelConfig& config, Index layer, const InputSize& size) {
    LayerShape shape;
    const AttentionStack* s = stackOf(config, layer);
    if (!s) {
        shape.heads = config.heads;
        shape.kvHeads = config.kvHeads;
        shape.headDim = config.headDim;
        shape.Nq = shape.Nk = size.text;
        return shape;
    }
    shape.heads = shape.kvHeads = s->heads;
    shape.headDim = s->headDim;
    shape.causal = s->causal;
    shape.queries = s->queries;
    shape.keys = s->keys;
    shape.Nq = tokensOf(s->queries, size);
    shape.Nk = tokensOf(s->keys, size);
    return shape;
}

std::string layerName(const ModelConfig& config, Index layer) {
    const AttentionStack* s = stackOf(config, layer);
    if (!s || s->name.empty()) return std::to_string(layer);
    return s->name + "." + std::to_string(layer - s->first);
}

std::string headName(const ModelConfig& config, Index layer, Index head) {
    return (named(config) ? "" : "L") + layerName(config, layer) + "H" + std::to_string(head);
}

std::string layersInWords(const ModelConfig& config) {
    if (!named(config)) return "layers 0 to " + std::to_string(config.layers - 1);
    std::string text = "layers ";
    for (const AttentionStack& s : config.stacks)
        text += (s.first > 0 ? ", " : "") + layerName(config, s.first) + " to " +
                layerName(config, s.first + s.layers - 1);
    return text;
}

std::vector<Index> parseLayers(std::string_view text, Index layerCount) {
    return parseList(text, layerCount,
                     [&](std::string_view item, std::string_view all, std::vector<Index>& out) {
                         addItem(item, all, {0, layerCount, {}}, out);
                     });
}

std::vector<Index> parseLayers(std::string_view text, const ModelConfig& config) {
    if (!named(config)) return parseLayers(text, config.layers);
    return parseList(
        text, config.layers,
        [&](std::string_view item, std::string_view all, std::vector<Index>& out) {
            const auto dot = item.find('.');
            const AttentionStack* s = stackNamed(config, item.substr(0, dot));
            if (!s && dot == item.npos && !item.empty() && item.front() >= '0' &&
                item.front() <= '9') {
                addItem(item, all, {0, config.layers, {}}, out);
            } else if (!s) {
                throw Error(Errc::NotFound,
                            "layers '" + std::string(all) + "': '" + std::string(item) +
                                "' is no layer; the model has " + layersInWords(config));
            } else if (dot == item.npos) {
                for (Index l = 0; l < s->layers; ++l) out.push_back(s->first + l);
            } else {
                addItem(item.substr(dot + 1), all, {s->first, s->layers, s->name + "."}, out);
            }
        });
}

Index parseLayer(std::string_view text, const ModelConfig& config) {
    const std::vector<Index> layers = parseLayers(text, config);
    if (trimmed(text).empty() || layers.size() != 1)
        throw Error(Errc::Usage, "'" + std::string(text) + "' is not one layer; the model has " +
                                     layersInWords(config));
    return layers.front();
}

std::string inputInWords(const ModelConfig& config, Index layer) {
    const AttentionStack* s = stackOf(config, layer);
    if (s && s->keys == Sequence::Image) return "an image";
    return s && s->queries == Sequence::Decoder ? "a decoder's text beside the text" : "a text";
}

std::vector<Index> layersFor(const ModelConfig& config, const InputSize& size) {
    std::vector<Index> layers;
    for (Index l = 0; l < config.layers; ++l) {
        const LayerShape shape = layerShape(config, l, size);
        if (shape.Nq > 0 && shape.Nk > 0) layers.push_back(l);
    }
    return layers;
}

std::vector<Index> layerOrder(const ModelConfig& config, std::span<const Index> wanted) {
    std::vector<Index> order;
    const AttentionStack* dec = stackNamed(config, "dec");
    const AttentionStack* cross = stackNamed(config, "cross");
    if (dec && cross && wanted.back() >= dec->first) {
        for (Index l = 0; l < dec->first; ++l) order.push_back(l);
        for (Index l = 0; l < dec->layers; ++l) {
            order.push_back(dec->first + l);
            order.push_back(cross->first + l);
        }
        // Not further than the last wanted one.
        const auto isWanted = [&](Index l) {
            return std::binary_search(wanted.begin(), wanted.end(), l);
        };
        while (!isWanted(order.back())) order.pop_back();
        return order;
    }
    const AttentionStack* s = stackOf(config, wanted.back());
    for (Index l = s ? s->first : 0; l <= wanted.back(); ++l) order.push_back(l);
    return order;
}

void requireDecoderOnly(const ModelConfig& config, const std::string& what) {
    if (config.stacks.empty()) return;
    throw Error(Errc::Unsupported,
                what + " needs a decoder-only model; '" + config.name + "' (" + config.arch +
                    ") is " + (stackNamed(config, "cross") ? "an encoder-decoder" : "an encoder"));
}

}  // namespace sparsight
