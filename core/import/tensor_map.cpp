#include "core/import/tensor_map.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/base/error.h"

namespace sparsight {
namespace {

using Json = nlohmann::json;

constexpr Index kMostLayers = 4096, kMostHeads = 4096, kMostTokens = Index(1) << 27;

bool isFloat(const ForeignTensor& t) {
    return t.element == Element::F16 || t.element == Element::BF16 || t.element == Element::F32 ||
           t.element == Element::F64 || t.element == Element::Raw16;
}

std::string listed(const std::vector<std::string>& words, std::size_t most = 6) {
    std::string text;
    for (std::size_t i = 0; i < words.size() && i < most; ++i)
        text += (i > 0 ? ", " : "") + words[i];
    return words.size() > most ? text + ", ..." : text;
}

/// What a file says about a layer's attention in `__metadata__.sparsight`.
struct Spoken {
    std::optional<double> scale, softcap;
    std::optional<Index> window;
    std::optional<bool> causal;
};

/// One tensor that a part's pattern matches.
struct Found {
    Piece piece;
    Index tokens = 0, width = 1;
};

/// Everything that planImport() works out, step by step.
class Planner {
public:
    Planner(const TensorSet& set, const ImportOptions& options) : m_set(set), m_options(options) {}

    ImportPlan run() {
        for (const std::string& pattern : m_options.patterns)
            if (!pattern.empty() && pattern != "-") checkPattern(pattern);
        m_plan.rows.resize(m_set.entries().size());
        for (std::size_t i = 0; i < m_plan.rows.size(); ++i) m_plan.rows[i].entry = i;
        readMetadata();
        guess();
        if (choosePatterns()) {
            if (m_maps)
                find(Part::Attention);
            else
                for (const Part part : {Part::Q, Part::K, Part::V, Part::Lse, Part::Sinks})
                    find(part);
            chooseInputIds();
            buildLayers();
        }
        if (!m_plan.problems.empty()) m_plan.layers.clear();
        return std::move(m_plan);
    }

private:
    void problem(const std::string& text) { m_plan.problems.push_back(text); }
    void problem(std::size_t entry, const std::string& text) {
        m_plan.rows[entry].problem = text;
        problem(m_set.entries()[entry].name + " " + m_set.tensor(entry).shapeText() + ": " + text);
    }
    const std::string& pattern(Part part) const { return m_plan.patterns[std::size_t(part)]; }

    void readMetadata() {
        for (const auto& file : m_set.files()) {
            const auto at = file->metadata().find("sparsight");
            if (at == file->metadata().end()) continue;
            const std::string who = "'" + file->path().string() + "': its metadata \"sparsight\"";
            const Json all = Json::parse(at->second, nullptr, false);
            if (!all.is_object()) {
                problem(who + " is not a JSON object");
                continue;
            }
            try {
                if (all.value("version", 1) > 1)
                    problem(who + " is of a newer version than this program knows");
                if (m_plan.modelName.empty())
                    m_plan.modelName =
                        std::filesystem::path(all.value("model", "")).filename().string();
                if (all.contains("position_bias") && all["position_bias"] == true)
                    problem(who +
                            " says that the model adds a bias by position to its scores, "
                            "which q and k alone do not hold: such a model cannot be "
                            "imported");
                std::vector<Spoken>& spoken = m_spoken[file.get()];
                for (const Json& l : all.value("layers", Json::array())) {
                    Spoken s;
                    const auto number = [&](const char* key) -> std::optional<double> {
                        if (!l.contains(key) || l[key].is_null()) return std::nullopt;
                        return l[key].get<double>();
                    };
                    s.scale = number("scaling");
                    s.softcap = number("softcap");
                    if (const auto window = number("window")) {
                        if (!(*window >= 0 && *window <= double(kMostTokens))) {
                            problem(who + " has a window that is no number of tokens");
                            continue;
                        }
                        s.window = Index(*window);
                    }
                    if (l.contains("causal") && !l["causal"].is_null())
                        s.causal = l["causal"].get<bool>();
                    spoken.push_back(s);
                }
            } catch (const Json::exception&) {
                problem(who + " does not have the keys and types that docs/importing.md lists");
            }
        }
    }

    void guess() {
        std::map<std::string, int> found[kParts];
        for (std::size_t i = 0; i < m_set.entries().size(); ++i) {
            const std::string& name = m_set.entries()[i].name;
            if (name.ends_with(".weight")) ++m_weights;
            const auto g = guessName(name);
            const bool floats = isFloat(m_set.tensor(i));
            if (!g || (g->part == Part::InputIds) == floats) continue;
            ++found[std::size_t(g->part)][g->pattern];
        }
        for (int p = 0; p < kParts; ++p) {
            std::vector<std::pair<std::string, int>> list(found[p].begin(), found[p].end());
            std::stable_sort(list.begin(), list.end(),
                             [](const auto& a, const auto& b) { return a.second > b.second; });
            for (const auto& [text, count] : list) m_plan.candidates[p].push_back(text);
        }
    }

    /// The pattern of a part whose names go with those of q; "" when no tensor has such a name.
    std::string beside(Part part, const std::string& q) const {
        for (const std::string& text : patternsOf(part, q))
            for (const auto& entry : m_set.entries())
                if (matchName(text, entry.name)) return text;
        return {};
    }

    bool choosePatterns() {
        auto& chosen = m_plan.patterns;
        for (int p = 0; p < kParts; ++p)
            if (m_options.patterns[p] != "-") chosen[p] = m_options.patterns[p];
        const auto& queries = m_plan.candidates[std::size_t(Part::Q)];
        std::string& q = chosen[std::size_t(Part::Q)];
        const bool mapsAsked = !pattern(Part::Attention).empty();
        if (q.empty() && (queries.empty() || mapsAsked) && chooseMaps())
            return m_plan.problems.empty();
        if (q.empty()) {
            std::vector<std::string> paired;
            for (const std::string& text : queries)
                if (!beside(Part::K, text).empty()) paired.push_back(text);
            const auto& from = paired.empty() ? queries : paired;
            if (from.size() > 1) {
                problem("the files hold several sets of queries: " + listed(from) +
                        "; choose one, for example with --map 'q=" + from.front() + "'");
                return false;
            }
            if (from.empty()) {
                noQueries();
                return false;
            }
            q = from.front();
        }
        for (const Part part : {Part::K, Part::V, Part::Lse, Part::Sinks}) {
            const auto p = std::size_t(part);
            if (!chosen[p].empty() || m_options.patterns[p] == "-") continue;
            chosen[p] = beside(part, q);
            // Names that do not go with q's are taken only when there is no choice.
            const bool keys = part == Part::K || part == Part::V;
            if (chosen[p].empty() && m_plan.candidates[p].size() == 1 &&
                (keys || queries.size() == 1))
                chosen[p] = m_plan.candidates[p].front();
        }
        if (pattern(Part::K).empty()) {
            const auto& keys = m_plan.candidates[std::size_t(Part::K)];
            problem(keys.empty()
                        ? "no tensor looks like keys: say which with --map 'k=NAME'; names here "
                          "are " +
                              listed(names())
                        : "which keys belong to " + q + "? choose with --map k=..., for example " +
                              listed(keys));
            return false;
        }
        return true;
    }

    std::vector<std::string> names() const {
        std::vector<std::string> all;
        for (const auto& e : m_set.entries()) all.push_back(e.name);
        return all;
    }

    /// Finished maps, where there are no queries. @return whether there are any
    bool chooseMaps() {
        const auto& maps = m_plan.candidates[std::size_t(Part::Attention)];
        std::string& text = m_plan.patterns[std::size_t(Part::Attention)];
        if (m_options.patterns[std::size_t(Part::Attention)] == "-") return false;
        if (text.empty() && maps.empty()) return false;
        m_maps = true;
        if (text.empty() && maps.size() > 1)
            problem("the files hold several sets of attention maps: " + listed(maps) +
                    "; choose one, for example with --map 'attention=" + maps.front() + "'");
        else if (text.empty())
            text = maps.front();
        return true;
    }

    void noQueries() {
        if (m_weights > 0) {
            problem(
                "the files hold a model's weights, not the q and k of a prompt: open the "
                "model's directory with `sparsight capture` or run docs/dump_qkv.py on it");
            return;
        }
        problem(
            "no tensor looks like queries: say which with --map 'q=NAME', where {layer} and "
            "{head} stand for numbers; names here are " +
            listed(names()));
    }

    /// Axes of one tensor. False (with a problem) when its shape is not one of the part's.
    bool place(Part part, std::size_t entry, bool hasLayer, bool hasHead, Index layer,
               std::map<Index, std::vector<Found>>& out, Index head) {
        const ForeignTensor& t = m_set.tensor(entry);
        const int rank = int(t.shape.size());
        const bool values =
            part == Part::Q || part == Part::K || part == Part::V || part == Part::Attention;
        // Axes of one layer: [H, T, d], [H, T] or [H], without H where the name has the head.
        // A map's are [H, Tq, Tk].
        const int full = (values ? 3 : part == Part::Lse ? 2 : 1) - (hasHead ? 1 : 0);
        int core = full;
        if (!hasHead && rank == full - 1 && part != Part::Sinks) core = full - 1;  // one head
        int extra = rank - core;
        if (extra < 0 || extra > (hasLayer ? 1 : 2)) {
            static const char* kForms[] = {"[H, T, d]", "[H, T]", "[H]"};
            problem(entry, std::string("a tensor of ") + partName(part) + " has the axes " +
                               (hasHead ? (values ? "[T, d]" : "[T]")
                                        : kForms[values              ? 0
                                                 : part == Part::Lse ? 1
                                                                     : 2]) +
                               (hasLayer ? "" : ", after one of layers where it holds them all"));
            return false;
        }
        // A leading axis is that of the layers when the name has none, else of a batch of one.
        const bool stacked = !hasLayer && extra > 0;
        for (int a = stacked ? 1 : 0; a < extra; ++a)
            if (t.shape[std::size_t(a)] != 1) {
                problem(entry, "its first axis is a batch of " +
                                   std::to_string(t.shape[std::size_t(a)]) +
                                   "; save one prompt's tensors");
                return false;
            }
        Found f;
        Piece& piece = f.piece;
        piece.entry = entry;
        int at = extra;
        const bool headFirst =
            !values || part == Part::Attention || m_options.axes == AxisOrder::HeadsTokens;
        const bool hasHeadAxis = core == (values ? 3 : part == Part::Lse ? 2 : 1);
        if (part == Part::Sinks) {
            piece.headAxis = at;
        } else {
            if (hasHeadAxis && headFirst) piece.headAxis = at++;
            piece.tokenAxis = at++;
            if (hasHeadAxis && !headFirst) piece.headAxis = at++;
            if (values) piece.widthAxis = at;
        }
        const auto length = [&](int axis, Index otherwise) {
            return axis < 0 ? otherwise : t.shape[std::size_t(axis)];
        };
        piece.heads = length(piece.headAxis, 1);
        piece.head = std::max<Index>(head, 0);
        f.tokens = length(piece.tokenAxis, 1);
        f.width = length(piece.widthAxis, 1);
        if (t.elements() == 0) {
            problem(entry, "it is empty");
            return false;
        }
        const Index layers = stacked ? t.shape[0] : 1;
        if (layers > kMostLayers || layer >= kMostLayers || piece.heads > kMostHeads ||
            head >= kMostHeads || f.tokens > kMostTokens) {
            problem(entry, "more than 4096 layers or heads, or 2^27 tokens, cannot be imported");
            return false;
        }
        for (Index l = 0; l < layers; ++l) {
            if (stacked) piece.leading = l;
            out[stacked ? l : std::max<Index>(layer, 0)].push_back(f);
        }
        return true;
    }

    void find(Part part) {
        const std::string& text = pattern(part);
        if (text.empty()) return;
        const bool hasLayer = text.find("{layer}") != std::string::npos;
        const bool hasHead = text.find("{head}") != std::string::npos;
        if (hasHead && part == Part::Sinks) {
            problem("the learned sinks of all heads are one tensor [H]; '" + text +
                    "' asks for one per head");
            return;
        }
        auto& out = m_found[std::size_t(part)];
        bool any = false;
        for (std::size_t i = 0; i < m_set.entries().size(); ++i) {
            const auto match = matchName(text, m_set.entries()[i].name);
            if (!match) continue;
            any = true;
            PreviewRow& row = m_plan.rows[i];
            row.part = part;
            row.layer = match->layer;
            row.head = match->head;
            const ForeignTensor& t = m_set.tensor(i);
            kernels::DType type;
            if (!valueType(t, m_options.rawIsBf16, type)) {
                problem(i, t.element == Element::Raw16
                               ? "16-bit integers: if they are bfloat16, say so (--bf16)"
                               : "its type " + t.dtype + " is no floating-point type of q, k or v");
                continue;
            }
            place(part, i, hasLayer, hasHead, match->layer, out, match->head);
        }
        if (!any)
            problem("no tensor is named '" + text + "' (" + partName(part) + "); names here are " +
                    listed(names()));
        for (auto& [layer, list] : out)
            std::stable_sort(list.begin(), list.end(), [](const Found& a, const Found& b) {
                return a.piece.head < b.piece.head;
            });
    }

    void chooseInputIds() {
        const std::string& text = pattern(Part::InputIds);
        if (m_options.patterns[std::size_t(Part::InputIds)] == "-") return;
        std::size_t best = 0;
        int candidates = 0;
        for (std::size_t i = 0; i < m_set.entries().size(); ++i) {
            const std::string& name = m_set.entries()[i].name;
            const ForeignTensor& t = m_set.tensor(i);
            const bool integers = t.element == Element::Int || t.element == Element::UInt ||
                                  t.element == Element::Raw16;
            if (text.empty()) {
                const auto g = guessName(name);
                if (!g || g->part != Part::InputIds || !integers) continue;
            } else if (name != text) {
                continue;
            }
            const std::string& q = pattern(Part::Q);
            const auto common = std::size_t(
                std::mismatch(q.begin(), q.end(), name.begin(), name.end()).first - q.begin());
            // Among several prompts' ids those whose name begins as the queries' does.
            if (candidates == 0 || common > best) {
                best = common;
                candidates = 1;
                m_plan.inputIds = i;
            } else if (common == best) {
                ++candidates;
            }
        }
        if (candidates > 1) {
            m_plan.inputIds.reset();
            m_plan.notes.push_back(
                "several tensors look like token ids; none is taken (choose "
                "with --map input_ids=NAME)");
        } else if (candidates == 0 && !text.empty()) {
            problem("no tensor is named '" + text + "' (input_ids); names here are " +
                    listed(names()));
        }
        if (m_plan.inputIds) m_plan.rows[*m_plan.inputIds].part = Part::InputIds;
    }

    /// The pieces of one part of one layer, which must be heads 0, 1, 2, ...
    /// @return heads; 0 with a problem
    Index join(Part part, Index layer, PartSource& source, Index& tokens, Index& width) {
        const auto& all = m_found[std::size_t(part)];
        const auto at = all.find(layer);
        if (at == all.end()) return 0;
        Index heads = 0;
        for (const Found& f : at->second) {
            const ForeignTensor& t = m_set.tensor(f.piece.entry);
            kernels::DType type = kernels::DType::F32;
            valueType(t, m_options.rawIsBf16, type);
            if (f.piece.head != heads) {
                problem(f.piece.entry, f.piece.head < heads
                                           ? "there is another tensor for the same layer and head"
                                           : "head " + std::to_string(heads) + " of layer " +
                                                 std::to_string(layer) + " is missing");
                return 0;
            }
            if (heads > 0 && (f.tokens != tokens || f.width != width || type != source.type)) {
                problem(f.piece.entry, "the other heads of layer " + std::to_string(layer) +
                                           " have another shape or type");
                return 0;
            }
            tokens = f.tokens;
            width = f.width;
            source.type = type;
            heads += f.piece.heads;
            source.pieces.push_back(f.piece);
        }
        return heads;
    }

    Spoken spokenOf(const ImportLayer& layer) const {
        const std::size_t entry = (m_maps ? layer.map : layer.q).pieces.front().entry;
        const auto at = m_spoken.find(&m_set.file(entry));
        if (at == m_spoken.end() || std::size_t(layer.layer) >= at->second.size()) return {};
        return at->second[std::size_t(layer.layer)];
    }

    bool buildMap(Index number, ImportLayer& layer) {
        kernels::Problem& p = layer.problem;
        layer.layer = number;
        p.Hkv = 1;
        p.Hq = join(Part::Attention, number, layer.map, p.Nq, p.Nk);
        if (p.Hq == 0) return false;
        const std::string who = "layer " + std::to_string(number) + ": ";
        if (p.Nk > kMostMapKeys) {
            problem(who + "a map of " + std::to_string(p.Nk) +
                    " keys; finished maps are read up to " + std::to_string(kMostMapKeys) +
                    " keys, because a session computes its maps from q and k: write these with "
                    "docs/dump_qkv.py");
            return false;
        }
        if (m_options.scale || m_options.softcap || m_options.window) {
            problem("scale, softcap and window are in a finished map already: leave them out");
            return false;
        }
        p.d = p.Nk;
        p.scale = 1;
        const std::optional<bool> causal =
            m_options.causal ? m_options.causal : spokenOf(layer).causal;
        if (!causal) m_causalGuessed = true;
        p.causal = causal.value_or(p.Nq <= p.Nk);
        if (p.causal && p.Nq > p.Nk) {
            problem(who + std::to_string(p.Nq) + " queries cannot be causal over " +
                    std::to_string(p.Nk) + " keys; choose bidirectional (--bidirectional)");
            return false;
        }
        return true;
    }

    bool buildLayer(Index number, ImportLayer& layer) {
        if (m_maps) return buildMap(number, layer);
        kernels::Problem& p = layer.problem;
        layer.layer = number;
        const std::string who = "layer " + std::to_string(number) + ": ";
        Index keyWidth = 0, valueTokens = 0;
        p.Hq = join(Part::Q, number, layer.q, p.Nq, p.d);
        p.Hkv = join(Part::K, number, layer.k, p.Nk, keyWidth);
        if (p.Hq == 0 || p.Hkv == 0) {
            if (p.Hkv == 0 && !m_found[std::size_t(Part::K)].contains(number))
                problem(who + "it has q but no k");
            return false;
        }
        const std::string shapes = "q is " + std::to_string(p.Hq) + " heads of " +
                                   std::to_string(p.Nq) + " tokens x " + std::to_string(p.d) +
                                   ", k " + std::to_string(p.Hkv) + " heads of " +
                                   std::to_string(p.Nk) + " tokens x " + std::to_string(keyWidth);
        if (p.d != keyWidth) {
            problem(who + shapes + ": the widths must be equal");
            return false;
        }
        if (p.Hq % p.Hkv != 0) {
            const bool turned = p.Nq % p.Nk == 0;  // tokens taken for heads
            problem(who + shapes + ": the query heads must be a multiple of the key heads" +
                    (turned ? "; if the axes stand the other way, choose " +
                                  std::string(m_options.axes == AxisOrder::HeadsTokens
                                                  ? "[T, H, d] (--axes thd)"
                                                  : "[H, T, d] (--axes htd)")
                            : ""));
            return false;
        }
        if (!pattern(Part::V).empty()) {
            const Index heads = join(Part::V, number, layer.v, valueTokens, p.dv);
            if (heads != p.Hkv || valueTokens != p.Nk) {
                problem(who + (heads == 0
                                   ? "it has q and k but no v (leave all values out with "
                                     "--map v=-)"
                                   : "v is " + std::to_string(heads) + " heads of " +
                                         std::to_string(valueTokens) + " tokens, but k " +
                                         std::to_string(p.Hkv) + " of " + std::to_string(p.Nk)));
                return false;
            }
        }
        if (m_found[std::size_t(Part::Lse)].contains(number)) {
            Index tokens = 0, one = 0;
            const Index heads = join(Part::Lse, number, layer.lse, tokens, one);
            if (heads == p.Nq && tokens == p.Hq && layer.lse.pieces.size() == 1) {
                Piece& piece = layer.lse.pieces.front();  // [T, H]
                std::swap(piece.headAxis, piece.tokenAxis);
                piece.heads = p.Hq;
            } else if (heads != p.Hq || tokens != p.Nq) {
                problem(who + "lse is [" + std::to_string(heads) + ", " + std::to_string(tokens) +
                        "], not [" + std::to_string(p.Hq) + ", " + std::to_string(p.Nq) + "]");
                return false;
            }
        }
        if (m_found[std::size_t(Part::Sinks)].contains(number)) {
            Index tokens = 0, one = 0;
            const Index heads = join(Part::Sinks, number, layer.sinks, tokens, one);
            if (heads != p.Hq) {
                problem(who + std::to_string(heads) + " sinks for " + std::to_string(p.Hq) +
                        " query heads");
                return false;
            }
        }
        const Spoken s = spokenOf(layer);
        p.scale = float(m_options.scale.value_or(s.scale.value_or(1 / std::sqrt(double(p.d)))));
        p.softcap = float(m_options.softcap.value_or(s.softcap.value_or(0)));
        p.window = m_options.window.value_or(s.window.value_or(0));
        if (!m_options.causal && !s.causal) m_causalGuessed = true;
        if (!m_options.scale && !s.scale) m_scaleGuessed = true;
        p.causal = m_options.causal.value_or(s.causal.value_or(p.Nq <= p.Nk));
        if (!std::isfinite(p.scale) || p.scale == 0 || !std::isfinite(p.softcap) || p.softcap < 0 ||
            p.window < 0) {
            problem(who + "scale, softcap or window is not a sensible number");
            return false;
        }
        if (p.causal && p.Nq > p.Nk) {
            problem(who + std::to_string(p.Nq) + " queries cannot be causal over " +
                    std::to_string(p.Nk) + " keys; choose bidirectional (--bidirectional)");
            return false;
        }
        if (!p.causal && p.window > 0) {
            problem(who + "a window of a bidirectional layer cannot be imported");
            return false;
        }
        return true;
    }

    void buildLayers() {
        const auto& queries = m_found[std::size_t(m_maps ? Part::Attention : Part::Q)];
        std::vector<Index> wanted = m_options.layers;
        if (wanted.empty())
            for (const auto& [layer, found] : queries) wanted.push_back(layer);
        for (const Index number : wanted) {
            if (!queries.contains(number)) {
                std::vector<std::string> there;
                for (const auto& [layer, found] : queries) there.push_back(std::to_string(layer));
                problem("the files hold no layer " + std::to_string(number) + "; there are " +
                        listed(there, 100));
                continue;
            }
            ImportLayer layer;
            if (!buildLayer(number, layer)) continue;
            if (!m_plan.layers.empty()) {
                const kernels::Problem &a = m_plan.problem(), &b = layer.problem;
                if (a.Hq != b.Hq || a.Hkv != b.Hkv || a.Nq != b.Nq || a.Nk != b.Nk) {
                    problem("layer " + std::to_string(number) +
                            " has other heads or tokens than layer " +
                            std::to_string(m_plan.layers.front().layer) +
                            "; import them as captures of their own (--layers)");
                    continue;
                }
            }
            m_plan.layers.push_back(std::move(layer));
        }
        if (m_plan.layers.empty() || !m_plan.problems.empty()) return;
        checkInputIds();
        addNotes();
    }

    void checkInputIds() {
        if (!m_plan.inputIds) return;
        const ForeignTensor& t = m_set.tensor(*m_plan.inputIds);
        if (t.elements() == m_plan.problem().Nk) return;
        const bool asked = !m_options.patterns[std::size_t(Part::InputIds)].empty();
        const std::string text = "it holds " + std::to_string(t.elements()) +
                                 " token ids, the keys are " + std::to_string(m_plan.problem().Nk);
        if (asked) {
            problem(*m_plan.inputIds, text);
            return;
        }
        m_plan.notes.push_back(m_set.entries()[*m_plan.inputIds].name + " is left out: " + text);
        m_plan.rows[*m_plan.inputIds].part.reset();
        m_plan.inputIds.reset();
    }

    void addNotes() {
        const kernels::Problem& p = m_plan.problem();
        auto& notes = m_plan.notes;
        if (m_causalGuessed)
            notes.push_back(p.causal ? "taken as causal (if every query sees every key, say "
                                       "--bidirectional)"
                                     : "taken as bidirectional: there are more queries than keys");
        if (p.causal && p.Nq < p.Nk)
            notes.push_back("the " + std::to_string(p.Nq) + " queries are taken as the last of " +
                            std::to_string(p.Nk) + " tokens");
        if (m_maps) {
            notes.push_back(
                "finished maps: q is the logarithm of the probabilities and k the "
                "identity, which give them back; rules that read q and k see these");
            notes.push_back("without values: output errors and kernel runs are not available");
            return;
        }
        if (m_scaleGuessed)
            notes.push_back("the scale is taken as 1/sqrt(" + std::to_string(p.d) + ")");
        // [T, H, d] read as [H, T, d]: many short heads, or queries and keys of grouped heads.
        if ((p.Hq > p.Nq && p.Hq > 128) || (p.Hq == p.Hkv && p.Nq > p.Nk && p.Nq % p.Nk == 0))
            notes.push_back(std::to_string(p.Hq) + " heads of " + std::to_string(p.Nq) +
                            " tokens: if the axes are [T, H, d], say --axes thd");
        if (pattern(Part::V).empty())
            notes.push_back("without values: output errors and kernel runs are not available");
    }

    const TensorSet& m_set;
    const ImportOptions& m_options;
    ImportPlan m_plan;
    std::map<const TensorFile*, std::vector<Spoken>> m_spoken;
    std::map<Index, std::vector<Found>> m_found[kParts];
    int m_weights = 0;
    bool m_causalGuessed = false, m_scaleGuessed = false;
    bool m_maps = false;  ///< finished maps in place of q and k
};

}  // namespace

TensorSet::TensorSet(std::vector<std::unique_ptr<TensorFile>> files) : m_files(std::move(files)) {
    if (m_files.empty()) throw Error(Errc::Usage, "no file of tensors is given");
    std::set<std::string> seen;
    bool shared = false;
    for (const auto& f : m_files)
        for (const ForeignTensor& t : f->tensors()) shared = !seen.insert(t.name).second || shared;
    std::set<std::string> unique;
    for (std::size_t f = 0; f < m_files.size(); ++f)
        for (std::size_t t = 0; t < m_files[f]->tensors().size(); ++t) {
            const std::string& own = m_files[f]->tensors()[t].name;
            std::string name =
                shared && m_files.size() > 1 ? m_files[f]->path().stem().string() + ":" + own : own;
            if (!unique.insert(name).second)
                throw Error(Errc::Usage, "two tensors are named '" + name +
                                             "'; rename one of the files, or import them apart");
            m_entries.push_back({f, t, std::move(name)});
        }
}

const ForeignTensor& TensorSet::tensor(std::size_t entry) const {
    const Entry& e = m_entries.at(entry);
    return m_files[e.file]->tensors()[e.tensor];
}

TensorFile& TensorSet::file(std::size_t entry) const {
    return *m_files[m_entries.at(entry).file];
}

ImportPlan planImport(const TensorSet& set, const ImportOptions& options) {
    return Planner(set, options).run();
}

}  // namespace sparsight
