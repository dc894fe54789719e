#include "sessions/catalogue.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "core/import/imported_model.h"
#include "core/model/config.h"
#include "core/model/sha256.h"
#include "kernels/base/error.h"

namespace sparsight::sessions {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr Index kMostTokens = Index(1) << 27;
constexpr Index kMostHeads = Index(1) << 20;

// --- small values <-> JSON and blobs ------------------------------------------------------------

/// Some config.json hold Python's bare Infinity, which SQLite's json_valid refuses: such a text is
/// kept as a JSON string.
std::string packConfig(const std::string& text) {
    return Json::accept(text) ? text : Json(text).dump();
}
std::string unpackConfig(const std::string& stored) {
    if (stored.empty() || stored.front() != '"') return stored;
    return Json::parse(stored).get<std::string>();
}

std::string idsBlob(const std::vector<std::int32_t>& ids) {
    std::string blob;
    blob.reserve(ids.size() * 4);
    for (const std::int32_t id : ids)
        for (int byte = 0; byte < 4; ++byte) blob += char(std::uint32_t(id) >> (8 * byte) & 255);
    return blob;
}

std::vector<std::int32_t> idsFromBlob(const std::string& blob) {
    std::vector<std::int32_t> ids(blob.size() / 4);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        std::uint32_t word = 0;
        for (int byte = 3; byte >= 0; --byte)
            word = word << 8 | static_cast<unsigned char>(blob[4 * i + std::size_t(byte)]);
        ids[i] = std::int32_t(word);
    }
    return ids;
}

std::string packIds(const std::vector<std::int32_t>& ids) {
    const std::string blob = idsBlob(ids);
    return toBase64(std::as_bytes(std::span(blob)));
}

/// Four 32-bit numbers per token (code points, then bytes), in base64 inside the options' JSON.
std::string packOffsets(const std::vector<TokenOffset>& offsets) {
    std::vector<std::int32_t> words;
    words.reserve(offsets.size() * 4);
    for (const TokenOffset& o : offsets)
        for (const Index n : {o.begin, o.end, o.byteBegin, o.byteEnd})
            words.push_back(std::int32_t(n));
    const std::string blob = idsBlob(words);
    return toBase64(std::as_bytes(std::span(blob)));
}

std::vector<TokenOffset> unpackOffsets(const std::string& text) {
    const auto words = idsFromBlob(fromBase64(text, "the list of token offsets"));
    std::vector<TokenOffset> offsets(words.size() / 4);
    for (std::size_t i = 0; i < offsets.size(); ++i)
        offsets[i] = {words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]};
    return offsets;
}

void readDecoder(const Json& decoder, CaptureInfo& c) {
    c.decoderIds =
        idsFromBlob(fromBase64(decoder.at("ids").get<std::string>(), "the decoder's ids"));
    c.decoderText = decoder.at("text").get<std::string>();
    c.decoderOffsets = unpackOffsets(decoder.at("offsets").get<std::string>());
    if (c.decoderIds.empty() || Index(c.decoderIds.size()) > kMostTokens ||
        (!c.decoderOffsets.empty() && c.decoderOffsets.size() != c.decoderIds.size()))
        throw Error(Errc::Format, "its decoder's tokens are not in order");
}

Json spanJson(TokenSpan span) {
    return {span.begin, span.end};
}

TokenSpan spanFrom(const Json& j, Index tokens) {
    const TokenSpan span{j.at(0).get<Index>(), j.at(1).get<Index>()};
    if (span.begin < 0 || span.end < span.begin || span.end > tokens)
        throw Error(Errc::Format, "its needle lies outside of the prompt");
    return span;
}

std::string truthJson(const NeedleTruth& t) {
    return Json{{"needle", spanJson(t.needle)},      {"answer", spanJson(t.answer)},
                {"question_begin", t.questionBegin}, {"needle_text", t.needleText},
                {"answer_text", t.answerText},       {"generator", t.generator}}
        .dump();
}

NeedleTruth truthFrom(const std::string& text, Index tokens) {
    const Json j = Json::parse(text);
    NeedleTruth t;
    t.needle = spanFrom(j.at("needle"), tokens);
    t.answer = spanFrom(j.at("answer"), tokens);
    t.questionBegin = j.at("question_begin").get<Index>();
    t.needleText = j.at("needle_text").get<std::string>();
    t.answerText = j.at("answer_text").get<std::string>();
    t.generator = j.at("generator").get<std::string>();
    return t;
}

kernels::DType storeFrom(const std::string& name) {
    for (const auto type : {kernels::DType::F32, kernels::DType::F16, kernels::DType::BF16})
        if (name == nameOf(type)) return type;
    throw Error(Errc::Format, "its element type '" + name + "' is not known");
}

// --- writing ------------------------------------------------------------------------------------

std::int64_t insertModel(Database& db, const CaptureRequest& request) {
    const ModelConfig& c = request.config;
    const std::string config = packConfig(c.json), hint = request.modelDirectory.string();
    {
        Statement same(db, "SELECT id FROM model WHERE name=? AND dir_hint=? AND config_json=?");
        same.bind(1, c.name).bind(2, hint).bind(3, config);
        if (same.step()) return same.integer(0);
    }
    Statement(db,
              "INSERT INTO model(uuid, name, dir_hint, arch, n_layer, n_q_head, n_kv_head, "
              "head_dim, v_head_dim, vocab, max_pos, config_json) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)")
        .bind(1, randomUuid())
        .bind(2, c.name)
        .bind(3, hint)
        .bind(4, c.arch)
        .bind(5, c.layers)
        .bind(6, c.heads)
        .bind(7, c.kvHeads)
        .bind(8, c.headDim)
        .bind(9, c.valueWidth())
        .bind(10, c.vocab)
        .bind(11, c.maxPositions)
        .bind(12, config)
        .run();
    const std::int64_t row = db.lastRow();
    std::error_code ec;
    Statement file(db,
                   "INSERT OR IGNORE INTO model_file(model_id, name, bytes, mtime_ns) "
                   "VALUES(?,?,?,?)");
    for (const auto& entry : fs::directory_iterator(request.modelDirectory, ec)) {
        struct stat st {};
        const std::string ending = entry.path().extension().string();
        if ((ending != ".json" && ending != ".safetensors") ||
            ::stat(entry.path().c_str(), &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        file.bind(1, row)
            .bind(2, entry.path().filename().string())
            .bind(3, std::int64_t(st.st_size))
            .bind(4, std::int64_t(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec)
            .run();
    }
    return row;
}

}  // namespace

std::string insertCapture(Database& db, const CaptureRequest& request,
                          const std::vector<Index>& layers) {
    const std::int64_t model = insertModel(db, request);
    Statement prompt(db,
                     "INSERT INTO prompt(uuid, name, text, sha256, generator_json, truth_json) "
                     "VALUES(?,?,?,?,?,?)");
    prompt.bind(1, randomUuid())
        .bind(2, request.promptName)
        .bind(3, request.promptText)
        .bind(4, sha256Hex(request.promptText));
    if (request.generator.empty())
        prompt.bind(5, nullptr);
    else
        prompt.bind(5, Json(request.generator).dump());
    if (request.truth)
        prompt.bind(6, truthJson(*request.truth));
    else
        prompt.bind(6, nullptr);
    prompt.run();
    const std::int64_t promptRow = db.lastRow();

    Json options = {{"layers", layers}, {"store", nameOf(request.options.store)}};
    if (!request.offsets.empty()) options["offsets"] = packOffsets(request.offsets);
    if (request.options.topKeys) options["top_k"] = kTopKeys;
    if (request.queries > 0) options["queries"] = request.queries;
    if (request.prefill > 0) options["prefill"] = request.prefill;
    if (!request.decodeSteps.empty()) options["decode_steps"] = request.decodeSteps;
    if (!request.decoderIds.empty())
        options["decoder"] = {{"ids", packIds(request.decoderIds)},
                              {"text", request.decoderText},
                              {"offsets", packOffsets(request.decoderOffsets)}};
    if (!request.image.values.empty()) {
        const ImageGrid grid = imageGrid(request.config, request.image);
        options["image"] = {
            {"rows", grid.rows}, {"cols", grid.cols}, {"class_tokens", grid.classTokens}};
    }
    const std::string uuid = randomUuid(), ids = idsBlob(request.tokenIds);
    Statement(db,
              "INSERT INTO capture(uuid, model_id, prompt_id, state, n_token, token_ids, "
              "options_json, device, created_utc) VALUES(?,?,?,'open',?,?,?,?,?)")
        .bind(1, uuid)
        .bind(2, model)
        .bind(3, promptRow)
        .bind(4, std::int64_t(request.tokenIds.size()))
        .bindBlob(5, std::as_bytes(std::span(ids)))
        .bind(6, options.dump())
        .bind(7, request.device)
        .bind(8, utcNow())
        .run();
    return uuid;
}

void insertSegment(Database& db, std::int64_t capture, const Segment& s) {
    const std::string crc = crcBlob(s.crc);
    Statement(db,
              "INSERT INTO segment(uuid, kind, path, bytes, crc, format, layer, capture_id, "
              "committed_utc) VALUES(?,?,?,?,?,?,?,?,?)")
        .bind(1, s.uuid)
        .bind(2, s.kind)
        .bind(3, s.path)
        .bind(4, s.bytes)
        .bindBlob(5, std::as_bytes(std::span(crc)))
        .bind(6, kSegmentFormat)
        .bind(7, s.layer)
        .bind(8, capture)
        .bind(9, utcNow())
        .run();
    if (s.kind != "pyr") return;
    // head -1: of the whole layer.
    Statement(db,
              "INSERT OR REPLACE INTO head_metric(capture_id, metric_id, layer, head, value) "
              "VALUES(?, (SELECT id FROM metric WHERE key='massError'), ?, -1, ?)")
        .bind(1, capture)
        .bind(2, s.layer)
        .bindReal(3, s.massError)
        .run();
}

// --- reading ------------------------------------------------------------------------------------

std::int64_t captureRow(Database& db, const std::string& uuid) {
    if (uuid.empty()) {
        Statement s(db, "SELECT id FROM capture ORDER BY id DESC LIMIT 1");
        if (s.step()) return s.integer(0);
        throw Error(Errc::NotFound, "the session holds no capture yet");
    }
    Statement s(db, "SELECT id FROM capture WHERE uuid=?");
    s.bind(1, uuid);
    if (s.step()) return s.integer(0);
    throw Error(Errc::NotFound, "the session holds no capture '" + uuid + "'");
}

std::int64_t modelRow(Database& db, std::int64_t capture) {
    Statement s(db, "SELECT model_id FROM capture WHERE id=?");
    s.bind(1, capture);
    return s.step() ? s.integer(0) : 0;
}

CaptureInfo readCapture(Database& db, std::int64_t row, const std::set<std::int64_t>& lost) {
    Statement s(db,
                "SELECT c.uuid, c.state, c.n_token, c.token_ids, c.options_json, c.device, "
                "c.created_utc, c.finished_utc, c.error, m.name, m.dir_hint, m.config_json, "
                "m.n_layer, m.n_q_head, m.n_kv_head, m.head_dim, p.name, p.text, "
                "p.generator_json, p.truth_json FROM capture c JOIN model m ON m.id=c.model_id "
                "JOIN prompt p ON p.id=c.prompt_id WHERE c.id=?");
    s.bind(1, row);
    if (!s.step())
        throw Error(Errc::Format, "the session's catalogue lacks the model or prompt of a capture");
    CaptureInfo c;
    c.uuid = s.text(0);
    c.state = s.text(1);
    const std::string who = "capture " + c.uuid.substr(0, 8) + " of the session is damaged: ";
    try {
        const Index tokens = s.integer(2);
        const std::string blob = s.blob(3);
        if (tokens < 1 || tokens > kMostTokens || Index(blob.size()) != 4 * tokens)
            throw Error(Errc::Format, "its token list does not have the length it states");
        c.tokenIds = idsFromBlob(blob);
        c.device = s.text(5);
        c.createdUtc = s.text(6);
        c.finishedUtc = s.text(7);
        c.error = s.text(8);
        c.modelName = s.text(9);
        c.modelHint = s.text(10);
        const std::string config = unpackConfig(s.text(11));
        c.config = isImportedModel(config)
                       ? parseImportedModel(config, c.modelName)
                       : parseConfig(config, c.modelName, "the stored config.json");
        if (c.config.layers != s.integer(12) || c.config.heads != s.integer(13) ||
            c.config.kvHeads != s.integer(14) || c.config.headDim != s.integer(15) ||
            c.config.layers > kMostHeads / std::max<Index>(1, c.config.heads))
            throw Error(Errc::Format, "its model's numbers contradict the stored config.json");
        c.promptName = s.text(16);
        c.promptText = s.text(17);
        if (!s.isNull(18)) c.generator = Json::parse(s.text(18)).get<std::string>();
        if (!s.isNull(19)) c.truth = truthFrom(s.text(19), tokens);

        const Json options = Json::parse(s.text(4));
        c.store = storeFrom(options.at("store").get<std::string>());
        c.layersAsked = options.at("layers").get<std::vector<Index>>();
        for (std::size_t i = 0; i < c.layersAsked.size(); ++i)
            if (c.layersAsked[i] < 0 || c.layersAsked[i] >= c.config.layers ||
                (i > 0 && c.layersAsked[i] <= c.layersAsked[i - 1]))
                throw Error(Errc::Format, "its list of layers is not in order");
        const Index topK = options.value("top_k", Index(0));
        if (topK != 0 && topK != kTopKeys)
            throw Error(Errc::Format, "it keeps " + std::to_string(topK) +
                                          " probabilities a row, which Sparsight never does");
        c.topKeys = topK > 0;
        c.queries = options.value("queries", tokens);
        if (c.queries < 1 || c.queries > kMostTokens)
            throw Error(Errc::Format, "its number of queries is out of range");
        c.prefill = options.value("prefill", tokens);
        c.decodeSteps = options.value("decode_steps", std::vector<Index>());
        if (c.prefill < 1 || c.prefill > tokens ||
            !std::is_sorted(c.decodeSteps.begin(), c.decodeSteps.end()) ||
            (!c.decodeSteps.empty() &&
             (c.decodeSteps.front() < 0 || c.decodeSteps.back() >= c.generated())))
            throw Error(Errc::Format, "its generated tokens are not where it says");
        if (options.contains("decoder")) readDecoder(options["decoder"], c);
        if (options.contains("image")) {
            const Json& image = options["image"];
            c.image = ImageGrid{image.at("rows").get<Index>(), image.at("cols").get<Index>(),
                                image.at("class_tokens").get<Index>()};
            if (c.image->rows < 1 || c.image->cols < 1 || c.image->rows > tokens ||
                c.image->cols > tokens || c.image->tokens() != tokens)
                throw Error(Errc::Format, "its image grid does not belong to its tokens");
        }
        if (options.contains("offsets")) {
            c.offsets = unpackOffsets(options["offsets"].get<std::string>());
            if (Index(c.offsets.size()) != tokens)
                throw Error(Errc::Format, "its token offsets do not belong to its tokens");
        }
    } catch (const Json::exception& e) {
        throw Error(Errc::Format,
                    who + "a stored JSON text is not as Sparsight writes it (" + e.what() + ")");
    } catch (const Error& e) {
        throw Error(e.code(), who + e.what());
    }

    Statement segments(db, "SELECT id, kind, layer, bytes FROM segment WHERE capture_id=?");
    segments.bind(1, row);
    std::map<Index, int> parts;
    while (segments.step()) {
        c.bytes += segments.integer(3);
        if (lost.contains(segments.integer(0))) continue;
        const std::string kind = segments.text(1);
        parts[segments.integer(2)] |= kind == "qkv" ? 1 : kind == "pyr" ? 2 : 0;
    }
    for (const Index layer : c.layersAsked)
        if (const auto at = parts.find(layer); at != parts.end() && at->second == 3)
            c.layersDone.push_back(layer);
    Statement error(db,
                    "SELECT max(value) FROM head_metric WHERE capture_id=? AND metric_id="
                    "(SELECT id FROM metric WHERE key='massError')");
    error.bind(1, row);
    if (error.step()) c.massError = error.maybeReal(0).value_or(0);
    return c;
}

std::vector<CaptureInfo> readCaptures(Database& db, const std::set<std::int64_t>& lost) {
    std::vector<std::int64_t> rows;
    {
        Statement s(db, "SELECT id FROM capture ORDER BY id");
        while (s.step()) rows.push_back(s.integer(0));
    }
    std::vector<CaptureInfo> all;
    for (const std::int64_t row : rows) all.push_back(readCapture(db, row, lost));
    return all;
}

Segment findSegment(Database& db, const std::string& capture, const std::string& kind,
                    Index layer) {
    Statement s(db,
                "SELECT s.uuid, s.path, s.bytes, s.crc, s.format, (SELECT value FROM head_metric h "
                "WHERE h.capture_id=s.capture_id AND h.layer=s.layer AND h.head=-1 AND h.metric_id="
                "(SELECT id FROM metric WHERE key='massError')) FROM segment s "
                "JOIN capture c ON c.id=s.capture_id WHERE c.uuid=? AND s.kind=? AND s.layer=?");
    s.bind(1, capture).bind(2, kind).bind(3, layer);
    if (!s.step()) {
        captureRow(db, capture);
        throw Error(Errc::NotFound, "layer " + std::to_string(layer) + " is not in capture " +
                                        capture.substr(0, 8));
    }
    Segment segment;
    segment.uuid = s.text(0);
    segment.kind = kind;
    segment.path = s.text(1);
    segment.capture = capture;
    segment.layer = layer;
    segment.bytes = s.integer(2);
    const std::string what =
        "layer " + std::to_string(layer) + " of capture " + capture.substr(0, 8);
    if (!isSegmentPath(segment.path) || segmentPath(segment.uuid, kind) != segment.path)
        throw Error(Errc::Format, what + " has a damaged file name in the catalogue");
    if (s.integer(4) > kSegmentFormat)
        throw Error(Errc::Unsupported,
                    what + " was written by a newer Sparsight; update the program");
    segment.crc = crcFromBlob(s.blob(3), segment.bytes, what);
    segment.massError = s.maybeReal(5).value_or(0);
    return segment;
}

std::vector<SegmentRow> segmentRows(Database& db) {
    std::vector<SegmentRow> rows;
    Statement s(db,
                "SELECT s.id, s.uuid, s.kind, s.path, s.bytes, s.layer, c.uuid FROM segment s "
                "LEFT JOIN capture c ON c.id=s.capture_id ORDER BY s.id");
    while (s.step()) {
        SegmentRow r;
        r.row = s.integer(0);
        r.segment.uuid = s.text(1);
        r.segment.kind = s.text(2);
        r.segment.path = s.text(3);
        r.segment.bytes = s.integer(4);
        r.segment.layer = s.integer(5);
        r.segment.capture = s.text(6);
        rows.push_back(std::move(r));
    }
    return rows;
}

std::vector<std::uint32_t> segmentCrc(Database& db, const SegmentRow& row) {
    Statement s(db, "SELECT crc FROM segment WHERE id=?");
    s.bind(1, row.row);
    return crcFromBlob(s.step() ? s.blob(0) : std::string(), row.segment.bytes,
                       "'" + row.segment.path + "'");
}

}  // namespace sparsight::sessions
