#include <map>

#include "core/model/sha256.h"
#include "kernels/base/error.h"
#include "sessions/session_impl.h"

namespace sparsight::sessions {
namespace {

using Json = nlohmann::json;

std::map<std::string, std::int64_t> metricRows(Database& db) {
    std::map<std::string, std::int64_t> rows;
    Statement s(db, "SELECT key, id FROM metric");
    while (s.step()) rows[s.text(0)] = s.integer(1);
    return rows;
}

/// As HeadFacts::label is defined.
std::string labelOf(const HeadFacts& f) {
    if (f.retrieval && *f.retrieval >= 0.1) return "retrieval";
    return f.streamingRecall >= 0.95 ? "streaming" : "mixed";
}

/// The run row that keeps one method's metrics of a capture; made when missing.
std::int64_t maskRun(Database& db, std::int64_t capture, const std::string& params) {
    {
        Statement s(db, "SELECT id FROM run WHERE kind='mask' AND capture_id=? AND params_json=?");
        s.bind(1, capture).bind(2, params);
        if (s.step()) return s.integer(0);
    }
    const std::string now = utcNow();
    Statement(db,
              "INSERT INTO run(uuid, kind, capture_id, backend, params_json, state, started_utc, "
              "finished_utc) VALUES(?, 'mask', ?, 'exact', ?, 'complete', ?, ?)")
        .bind(1, randomUuid())
        .bind(2, capture)
        .bind(3, params)
        .bind(4, now)
        .bind(5, now)
        .run();
    return db.lastRow();
}

}  // namespace

void Session::saveHeadFacts(const std::string& capture, const std::vector<HeadFacts>& facts) {
    m_impl->requireWritable();
    const std::lock_guard lock(m_impl->catalogue);
    Database& db = *m_impl->db;
    Transaction transaction(db);
    const std::int64_t row = captureRow(db, capture), model = modelRow(db, row);
    const auto metrics = metricRows(db);
    Statement put(db,
                  "INSERT OR REPLACE INTO head_metric(capture_id, metric_id, layer, head, value) "
                  "VALUES(?,?,?,?,?)");
    Statement forget(db,
                     "DELETE FROM head_label WHERE model_id=? AND layer=? AND head=? "
                     "AND source='auto'");
    Statement label(db, "INSERT OR IGNORE INTO head_label VALUES(?,?,?,?,'auto')");
    for (const HeadFacts& f : facts) {
        const std::pair<const char*, std::optional<double>> values[] = {
            {"sinkMass", f.sinkMass},   {"localMass", f.localMass},
            {"entropy", f.entropy},     {"distance", f.distance},
            {"retrieval", f.retrieval}, {"streamingRecall", f.streamingRecall}};
        for (const auto& [key, value] : values)
            put.bind(1, row)
                .bind(2, metrics.at(key))
                .bind(3, f.layer)
                .bind(4, f.head)
                .bindReal(5, value)
                .run();
        forget.bind(1, model).bind(2, f.layer).bind(3, f.head).run();
        label.bind(1, model).bind(2, f.layer).bind(3, f.head).bind(4, labelOf(f)).run();
    }
    transaction.commit();
}

std::vector<HeadFacts> Session::headFacts(const std::string& capture) const {
    const std::lock_guard lock(m_impl->catalogue);
    Database& db = *m_impl->db;
    const std::int64_t row = captureRow(db, capture);
    const CaptureInfo info = readCapture(db, row, m_impl->lost);
    Statement s(db,
                "SELECT h.layer, h.head, m.key, h.value FROM head_metric h "
                "JOIN metric m ON m.id=h.metric_id WHERE h.capture_id=? AND h.head>=0 "
                "ORDER BY h.layer, h.head");
    s.bind(1, row);
    std::map<std::pair<Index, Index>, std::map<std::string, std::optional<double>>> found;
    while (s.step()) found[{s.integer(0), s.integer(1)}][s.text(2)] = s.maybeReal(3);
    std::vector<HeadFacts> facts;
    const std::set<Index> done(info.layersDone.begin(), info.layersDone.end());
    for (const auto& [key, values] : found) {
        if (!done.contains(key.first) || key.second >= info.config.heads || values.size() < 6)
            continue;
        const auto value = [&](const char* name) {
            const auto at = values.find(name);
            return at == values.end() ? 0.0 : at->second.value_or(0);
        };
        HeadFacts f;
        f.layer = key.first;
        f.head = key.second;
        f.kvHead = f.head / info.config.kvGroup();
        f.sinkMass = value("sinkMass");
        f.localMass = value("localMass");
        f.entropy = value("entropy");
        f.distance = value("distance");
        if (const auto at = values.find("retrieval"); at != values.end()) f.retrieval = at->second;
        f.streamingRecall = value("streamingRecall");
        f.label = labelOf(f);
        facts.push_back(f);
    }
    return facts;
}

void Session::saveMaskMetrics(const std::string& capture, const MethodSpec& method,
                              const std::vector<MaskMetrics>& rows) {
    m_impl->requireWritable();
    const std::lock_guard lock(m_impl->catalogue);
    Database& db = *m_impl->db;
    Transaction transaction(db);
    const std::int64_t run =
        maskRun(db, captureRow(db, capture), Json{{"method", toString(method)}}.dump());
    const auto metrics = metricRows(db);
    Statement put(db,
                  "INSERT OR REPLACE INTO run_metric(run_id, metric_id, layer, head, value) "
                  "VALUES(?,?,?,?,?)");
    for (const MaskMetrics& m : rows) {
        const std::pair<const char*, std::optional<double>> values[] = {
            {"coverage", m.coverage},       {"density", m.density},
            {"recall", m.recall},           {"recallMin", m.recallMin},
            {"recallP1", m.recallP1},       {"recallP5", m.recallP5},
            {"tileRecall", m.tileRecall},   {"needleRecall", m.needleRecall},
            {"outputError", m.outputError}, {"tiles", double(m.tiles)}};
        for (const auto& [key, value] : values)
            put.bind(1, run)
                .bind(2, metrics.at(key))
                .bind(3, m.layer)
                .bind(4, m.head)
                .bindReal(5, value)
                .run();
    }
    transaction.commit();
}

void Session::savePlan(const std::string& capture, const AttentionPlan& plan) {
    m_impl->requireWritable();
    const std::lock_guard lock(m_impl->catalogue);
    Database& db = *m_impl->db;
    Transaction transaction(db);
    const std::int64_t model = modelRow(db, captureRow(db, capture));
    const std::string json = toJson(plan);
    Statement s(db,
                "INSERT INTO plan(uuid, model_id, name, parent_id, json, sha256, created_utc) "
                "VALUES(?,?,?,(SELECT id FROM plan WHERE uuid=?),?,?,?) "
                "ON CONFLICT(uuid) DO UPDATE SET name=excluded.name, json=excluded.json, "
                "sha256=excluded.sha256");
    s.bind(1, plan.uuid.empty() ? randomUuid() : plan.uuid)
        .bind(2, model)
        .bind(3, plan.name)
        .bind(4, plan.parentUuid)
        .bind(5, json)
        .bind(6, sha256Hex(json))
        .bind(7, plan.createdUtc.empty() ? utcNow() : plan.createdUtc)
        .run();
    transaction.commit();
}

std::vector<AttentionPlan> Session::plans() const {
    const std::lock_guard lock(m_impl->catalogue);
    std::vector<AttentionPlan> all;
    Statement s(*m_impl->db, "SELECT name, json, sha256 FROM plan ORDER BY id");
    while (s.step()) {
        const std::string json = s.text(1);
        // SQLite has no checksums of its own; a plan that changed by itself is no plan.
        if (sha256Hex(json) != s.text(2)) continue;
        all.push_back(parsePlan(json, "plan '" + s.text(0) + "' of the session"));
    }
    return all;
}

void Session::setUiState(const std::string& key, const std::string& json) {
    m_impl->requireWritable();
    const std::lock_guard lock(m_impl->catalogue);
    Statement(*m_impl->db, "INSERT OR REPLACE INTO ui_state(key, json, utc) VALUES(?,?,?)")
        .bind(1, key)
        .bind(2, json)
        .bind(3, utcNow())
        .run();
}

std::optional<std::string> Session::uiState(const std::string& key) const {
    const std::lock_guard lock(m_impl->catalogue);
    Statement s(*m_impl->db, "SELECT json FROM ui_state WHERE key=?");
    s.bind(1, key);
    if (!s.step()) return std::nullopt;
    return s.text(0);
}

}  // namespace sparsight::sessions
