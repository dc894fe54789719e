#include <algorithm>
#include <numeric>

#include "kernels/base/error.h"
#include "sessions/fault.h"
#include "sessions/h5_pyramid.h"
#include "sessions/segment_reader.h"
#include "sessions/session_impl.h"

namespace sparsight::sessions {
namespace {

std::string layerName(const std::string& capture, Index layer) {
    return "layer " + std::to_string(layer) + " of capture " + capture.substr(0, 8);
}

bool holds(const std::vector<Index>& list, Index layer) {
    return std::find(list.begin(), list.end(), layer) != list.end();
}

void checkLayer(const CaptureInfo& info, const LayerCapture& layer, const LayerStats& stats) {
    const std::string who = layerName(info.uuid, layer.layer) + ": ";
    if (info.state != "open")
        throw Error(Errc::Usage, who + "the capture is " + info.state + ", not open");
    if (!holds(info.layersAsked, layer.layer))
        throw Error(Errc::Usage, who + "it was not asked for");
    if (holds(info.layersDone, layer.layer)) throw Error(Errc::Usage, who + "it is stored already");
    const kernels::Problem& p = layer.problem;
    const LayerShape shape = layerShape(info, layer.layer);
    if (p.batch != 1 || p.Hq != shape.heads || p.Hkv != shape.kvHeads || p.Nq != shape.Nq ||
        p.Nk != shape.Nk || p.d < 1 || p.dv < 0 || stats.layer != layer.layer ||
        stats.heads != p.Hq || stats.Nq != p.Nq || stats.Nk != p.Nk ||
        layer.lse.size() != p.Hq * p.Nq)
        throw Error(Errc::Shape, who + "its shapes are not those of the model and the prompt");
    if (stats.top.k != (info.topKeys ? kTopKeys : 0))
        throw Error(Errc::Shape, who + "it has the " + std::to_string(stats.top.k) +
                                     " largest probabilities of each row where the capture keeps " +
                                     (info.topKeys ? std::to_string(kTopKeys) : "none"));
}

/// A full disk in the middle of writing, with how much is missing now.
[[noreturn]] void throwShortfall(const Error& e, const std::filesystem::path& root, Index need,
                                 const std::string& what) {
    Index free = need;
    try {
        free = freeSpace(root);
    } catch (const Error&) {
        // The reason in `e` is what counts.
    }
    std::string text = what + " was not stored: " + e.what() + " (it needs " + bytesInWords(need);
    if (free < need)
        text +=
            ", " + bytesInWords(free) + " are free: " + bytesInWords(need - free) + " are missing";
    throw Error(Errc::Resources, text + "). Finished layers are kept");
}

}  // namespace

void setImage(CaptureRequest& request, Pixels image) {
    request.tokenIds.resize(std::size_t(imageGrid(request.config, image).tokens()));
    std::iota(request.tokenIds.begin(), request.tokenIds.end(), 0);
    request.image = std::move(image);
}

InputSize sizeOf(const CaptureRequest& request) {
    const auto tokens = Index(request.tokenIds.size());
    if (!request.image.values.empty()) return {0, 0, tokens};
    return {tokens, Index(request.decoderIds.size()), 0};
}

InputSize CaptureInfo::size() const {
    const auto tokens = Index(tokenIds.size());
    if (image) return {0, 0, tokens};
    return {tokens, Index(decoderIds.size()), 0};
}

LayerShape layerShape(const CaptureInfo& capture, Index layer) {
    LayerShape shape = layerShape(capture.config, layer, capture.size());
    if (capture.config.stacks.empty() && capture.queries > 0) shape.Nq = capture.queries;
    return shape;
}

Index headCount(const CaptureInfo& capture) {
    Index count = 0;
    for (const Index l : capture.layersDone) count += layerShape(capture, l).heads;
    return count;
}

std::string Session::beginCapture(const CaptureRequest& request) {
    m_impl->requireWritable();
    if (request.tokenIds.empty()) throw Error(Errc::Usage, "the prompt is empty");
    if (!request.offsets.empty() && request.offsets.size() != request.tokenIds.size())
        throw Error(Errc::Shape, "the prompt's token offsets do not belong to its tokens");
    const std::vector<Index> possible = layersFor(request.config, sizeOf(request));
    std::vector<Index> layers = request.options.layers;
    if (layers.empty()) layers = possible;
    std::sort(layers.begin(), layers.end());
    layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
    for (const Index l : layers)
        if (!std::binary_search(possible.begin(), possible.end(), l))
            throw Error(l >= 0 && l < request.config.layers ? Errc::Usage : Errc::NotFound,
                        l >= 0 && l < request.config.layers
                            ? "layer " + layerName(request.config, l) +
                                  " reads something that this prompt has not (" +
                                  inputInWords(request.config, l) + ")"
                            : "the model has " + layersInWords(request.config));
    if (layers.empty())
        throw Error(Errc::Usage, "this prompt reaches no layer of '" + request.config.name + "'");
    const std::lock_guard lock(m_impl->catalogue);
    faultPoint("S0", "write the catalogue of", m_impl->path);
    Transaction transaction(*m_impl->db);
    const std::string uuid = insertCapture(*m_impl->db, request, layers);
    transaction.commit();
    m_impl->helper.warm();
    return uuid;
}

void Session::addLayer(const std::string& capture, const LayerCapture& layer,
                       const LayerStats& stats) {
    m_impl->requireWritable();
    const std::lock_guard writing(m_impl->writing);
    std::int64_t row = 0;
    CaptureInfo info;
    {
        const std::lock_guard lock(m_impl->catalogue);
        row = captureRow(*m_impl->db, capture);
        info = readCapture(*m_impl->db, row, m_impl->lost);
    }
    checkLayer(info, layer, stats);
    const SegmentPlace place = m_impl->place(info);
    const std::string what = layerName(capture, layer.layer);

    Segment pyr;
    pyr.uuid = randomUuid();
    pyr.kind = "pyr";
    pyr.path = segmentPath(pyr.uuid, pyr.kind);
    pyr.capture = capture;
    pyr.layer = layer.layer;
    pyr.massError = stats.massError;
    std::vector<std::byte> image;
    {
        const std::lock_guard lock(h5Mutex());
        nlohmann::json root = rootAttributes(place, pyr);
        root["created_utc"] = utcNow();
        root["mass_error"] = stats.massError;
        image = pyramidImage(root, stats, {});
    }
    // The catalogue grows by the checksums and one row each; a journal page for what it changes.
    constexpr Index kCatalogue = Index(256) << 10;
    const Index need = qkvBytes(layer) + Index(image.size()) + kCatalogue;
    faultPoint("S1", "write", m_impl->path);
    requireSpace(m_impl->root, need, what);
    try {
        const Segment qkv = writeQkv(place, m_impl->helper, layer);
        try {
            pyr = writeImage(place, m_impl->helper, std::move(pyr), image);
            publish(place, qkv);
            publish(place, pyr);
            const std::lock_guard lock(m_impl->catalogue);
            faultPoint("S8", "write the catalogue of", m_impl->path);
            Transaction transaction(*m_impl->db);
            insertSegment(*m_impl->db, row, qkv);
            insertSegment(*m_impl->db, row, pyr);
            faultPoint("S8b", "write the catalogue of", m_impl->path);
            transaction.commit();
        } catch (...) {
            const std::lock_guard lock(m_impl->catalogue);
            bool entered = true;  // unknown: a file without a row is adopted at the next opening
            try {
                Statement s(*m_impl->db, "SELECT 1 FROM segment WHERE uuid=?");
                entered = s.bind(1, qkv.uuid).step();
            } catch (const Error&) {
            }
            if (!entered) {
                discard(place, qkv);
                discard(place, pyr);
            }
            throw;
        }
    } catch (const Error& e) {
        if (e.code() == Errc::Resources || freeSpace(m_impl->root) < Index(1) << 20)
            throwShortfall(e, m_impl->root, need, what);
        throw;
    }
    const std::lock_guard lock(m_impl->catalogue);
    if (const std::string failed = backUp(*m_impl->db, m_impl->root); !failed.empty())
        m_impl->warnings.push_back(failed);
}

void Session::finishCapture(const std::string& capture, const std::string& state,
                            const std::string& error) {
    m_impl->requireWritable();
    if (state != "complete" && state != "cancelled" && state != "failed")
        throw Error(Errc::Usage, "a capture cannot end as '" + state + "'");
    const std::lock_guard lock(m_impl->catalogue);
    const std::int64_t row = captureRow(*m_impl->db, capture);
    if (state == "complete") {
        const CaptureInfo info = readCapture(*m_impl->db, row, m_impl->lost);
        if (info.layersDone != info.layersAsked)
            throw Error(Errc::Usage,
                        "capture " + capture.substr(0, 8) +
                            " is not complete: " + std::to_string(info.layersDone.size()) + " of " +
                            std::to_string(info.layersAsked.size()) + " layers are there");
    }
    faultPoint("S9", "write the catalogue of", m_impl->path);
    Transaction transaction(*m_impl->db);
    Statement s(*m_impl->db, "UPDATE capture SET state=?, finished_utc=?, error=? WHERE id=?");
    s.bind(1, state).bind(2, utcNow()).bind(4, row);
    if (error.empty())
        s.bind(3, nullptr);
    else
        s.bind(3, error);
    s.run();
    transaction.commit();
}

std::vector<Index> Session::resumeCapture(const std::string& capture) {
    m_impl->requireWritable();
    const std::lock_guard writing(m_impl->writing);
    const std::lock_guard lock(m_impl->catalogue);
    Database& db = *m_impl->db;
    const std::int64_t row = captureRow(db, capture);
    const CaptureInfo info = readCapture(db, row, m_impl->lost);
    std::vector<Index> todo;
    for (const Index l : info.layersAsked)
        if (!holds(info.layersDone, l)) todo.push_back(l);
    if (info.state == "complete" && todo.empty())
        throw Error(Errc::Usage,
                    "capture " + capture.substr(0, 8) + " is complete: nothing to resume");
    Transaction transaction(db);
    // Rows of layers that lost a file make room for the new ones.
    for (const Index l : todo) {
        Statement(db,
                  "INSERT OR REPLACE INTO trash(path, deleted_utc) SELECT path, ? FROM segment "
                  "WHERE capture_id=? AND layer=?")
            .bind(1, utcNow())
            .bind(2, row)
            .bind(3, l)
            .run();
        Statement(db, "DELETE FROM segment WHERE capture_id=? AND layer=?")
            .bind(1, row)
            .bind(2, l)
            .run();
    }
    Statement(db, "UPDATE capture SET state='open', finished_utc=NULL, error=NULL WHERE id=?")
        .bind(1, row)
        .run();
    transaction.commit();
    emptyTrash(db, m_impl->root);
    m_impl->helper.warm();
    return todo;
}

void Session::removeCapture(const std::string& capture) {
    m_impl->requireWritable();
    const std::lock_guard writing(m_impl->writing);
    const std::lock_guard lock(m_impl->catalogue);
    Database& db = *m_impl->db;
    const std::int64_t row = captureRow(db, capture);
    faultPoint("D1", "delete from", m_impl->path);
    Transaction transaction(db);
    Statement(db,
              "INSERT OR REPLACE INTO trash(path, deleted_utc) "
              "SELECT path, ? FROM segment WHERE capture_id=?")
        .bind(1, utcNow())
        .bind(2, row)
        .run();
    // Metrics, masks and runs go with their capture; prompts and models when nobody else uses them.
    Statement(db, "DELETE FROM capture WHERE id=?").bind(1, row).run();
    db.exec(
        "DELETE FROM prompt WHERE id NOT IN (SELECT prompt_id FROM capture) "
        "AND id NOT IN (SELECT prompt_id FROM trial);"
        "DELETE FROM model WHERE id NOT IN (SELECT model_id FROM capture) "
        "AND id NOT IN (SELECT model_id FROM plan)");
    faultPoint("D2", "delete from", m_impl->path);
    transaction.commit();
    emptyTrash(db, m_impl->root);
}

CaptureInfo Session::captureInfo(const std::string& uuid) const {
    const std::lock_guard lock(m_impl->catalogue);
    try {
        return readCapture(*m_impl->db, captureRow(*m_impl->db, uuid), m_impl->lost);
    } catch (const Error& e) {
        if (e.code() != Errc::NotFound) throw;
        throw Error(e.code(), "session '" + m_impl->path.string() + "': " + e.what());
    }
}

namespace {

/// What a reader of a layer needs from the catalogue.
struct Wanted {
    Segment segment;
    LayerShape shape;
};

Wanted findLayer(const Session::Impl& session, const std::string& capture, const char* kind,
                 Index layer) {
    const std::lock_guard lock(session.catalogue);
    auto& known = session.shapes[capture];
    if (!known) {
        const CaptureInfo info = readCapture(*session.db, captureRow(*session.db, capture), {});
        known = std::make_shared<Session::Impl::Shapes>();
        for (Index l = 0; l < info.config.layers; ++l) known->push_back(layerShape(info, l));
    }
    Wanted wanted{findSegment(*session.db, capture, kind, layer), {}};
    if (layer < 0 || layer >= Index(known->size()))
        throw Error(Errc::Format, layerName(capture, layer) + ": its model has no such layer");
    wanted.shape = (*known)[std::size_t(layer)];
    return wanted;
}

}  // namespace

std::shared_ptr<const LayerCapture> Session::layer(const std::string& capture, Index layer) const {
    const Wanted wanted = findLayer(*m_impl, capture, "qkv", layer);
    const std::string& path = wanted.segment.path;
    bool verify;
    {
        const std::lock_guard lock(m_impl->cache);
        if (auto ready = m_impl->layers[path].lock()) return ready;
        verify = !m_impl->verified.contains(path);
    }
    const auto read = readQkv(m_impl->root, wanted.segment, wanted.shape, verify);
    const std::lock_guard lock(m_impl->cache);
    m_impl->verified.insert(path);
    m_impl->layers[path] = read;
    return read;
}

std::shared_ptr<const LayerStats> Session::stats(const std::string& capture, Index layer) const {
    const Wanted wanted = findLayer(*m_impl, capture, "pyr", layer);
    const std::string& path = wanted.segment.path;
    {
        const std::lock_guard lock(m_impl->cache);
        if (auto ready = m_impl->stats[path].lock()) return ready;
    }
    const auto read = readPyr(m_impl->root, wanted.segment, wanted.shape, m_impl->unverified(path));
    const std::lock_guard lock(m_impl->cache);
    m_impl->verified.insert(path);
    m_impl->stats[path] = read;
    return read;
}

TopKeys Session::topKeys(const std::string& capture, Index layer, Index head,
                         TokenSpan rows) const {
    if (!captureInfo(capture).topKeys)
        throw Error(Errc::NotFound, "capture " + capture.substr(0, 8) +
                                        " does not keep the largest probabilities of each row: "
                                        "capture with --top-k for them");
    const Wanted wanted = findLayer(*m_impl, capture, "pyr", layer);
    const std::string& path = wanted.segment.path;
    TopKeys top =
        readTop(m_impl->root, wanted.segment, wanted.shape, head, rows, m_impl->unverified(path));
    const std::lock_guard lock(m_impl->cache);
    m_impl->verified.insert(path);
    return top;
}

}  // namespace sparsight::sessions
