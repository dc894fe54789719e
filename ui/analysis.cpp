#include "ui/analysis.h"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "core/probe/needle.h"
#include "sessions/analysis.h"
#include "ui/engine.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr int kTableDelayMs = 350;
/// Above it the output error of one head takes long enough to make map tiles wait: it goes to the
/// long lane then.
constexpr Index kQuickErrorTokens = 6000;

QString tagOf(const char* kind, int mask) {
    return QStringLiteral("%1:%2").arg(QLatin1String(kind)).arg(mask);
}

}  // namespace

struct Analysis::DenseOutput {
    std::mutex mutex;
    std::vector<float> values;
};

Analysis::Analysis(Document* document, Engine* engine, QObject* parent)
    : QObject(parent), m_document(document), m_engine(engine) {
    m_masksSoon.setSingleShot(true);
    m_masksSoon.setInterval(0);
    m_tableSoon.setSingleShot(true);
    m_tableSoon.setInterval(kTableDelayMs);
    connect(&m_masksSoon, &QTimer::timeout, this, &Analysis::startMasks);
    connect(&m_tableSoon, &QTimer::timeout, this, &Analysis::startTable);
    connect(document, &Document::captureChanged, this, &Analysis::captureChanged);
    connect(document, &Document::headChanged, this, &Analysis::headChanged);
    const auto masks = [this] {
        m_masksSoon.start();
        m_tableSoon.start();
    };
    connect(document, &Document::masksChanged, this, masks);
    connect(document, &Document::maskSpecChanged, this, masks);
    connect(document, &Document::statsChanged, this, [this](Index layer) {
        if (layer == m_document->layer()) m_masksSoon.start();
    });
}

bool Analysis::busy() const {
    return !m_engine->idle() || m_masksSoon.isActive() || m_tableSoon.isActive();
}

void Analysis::fail(const std::exception& error) {
    emit failed(QString::fromUtf8(error.what()));
}

void Analysis::failMask(int mask, const std::exception& error) {
    const QString sentence = QString::fromUtf8(error.what());
    m_document->failMask(mask, sentence);
    uiLog(QStringLiteral("error"),
          {{QStringLiteral("sentence"), sentence}, {QStringLiteral("mask"), mask}});
}

void Analysis::captureChanged() {
    ++m_generation;
    m_placed = false;
    m_started.clear();
    m_tableSpec = {};
    for (const char* tag : {"stats", "facts", "table"}) m_engine->stop(QString::fromLatin1(tag));
    if (!m_document->isOpen()) return;
    readStats();
    findFacts();
}

void Analysis::headChanged() {
    const auto& layers = m_document->capture().layersDone;
    if (layers.empty()) return;
    if (m_document->layer() != layers.front() || m_document->head() != 0) m_placed = true;
    m_dense = std::make_shared<DenseOutput>();
    m_started.clear();
    m_masksSoon.start();
}

void Analysis::readStats() {
    // Layer by layer, so that the first thumbnails stand while the others are read.
    const int generation = m_generation;
    auto work = [this, generation, session = m_document->session(),
                 uuid = m_document->capture().uuid,
                 layers = m_document->capture().layersDone](const Job& job) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
            job.step(double(i) / double(layers.size()));
            // A damaged layer costs itself only: the others are read all the same.
            std::shared_ptr<const LayerStats> stats;
            QString failure;
            try {
                stats = session->stats(uuid, layers[i]);
            } catch (const Error& e) {
                failure = QString::fromUtf8(e.what());
            }
            QMetaObject::invokeMethod(
                this,
                [this, generation, layer = layers[i], stats = std::move(stats), failure] {
                    if (generation != m_generation) return;
                    if (stats) {
                        m_document->setStats(layer, stats);
                    } else {
                        m_document->failStats(layer, failure);
                        emit failed(failure);
                    }
                },
                Qt::QueuedConnection);
        }
    };
    m_engine->run(Engine::Quick, QStringLiteral("stats"), std::move(work))
        .onFailed(this, [this](const std::exception& e) { fail(e); });
}

void Analysis::findFacts() {
    if (m_document->capture().layersDone.empty()) return;
    const int generation = m_generation;
    const auto arrived = [this, generation](const std::vector<HeadFacts>& facts) {
        if (generation != m_generation) return;
        m_document->setHeadFacts(facts);
        placeSelection();
        // Methods that read the retrieval score could not run before.
        for (std::size_t i = 0; i < m_started.size(); ++i)
            if (!m_document->policy(int(i))) m_started[i] = {};
        m_masksSoon.start();
        m_tableSoon.start();
    };
    const auto lost = [this, generation](const std::exception& e) {
        if (generation != m_generation) return;
        m_document->failFacts(QString::fromUtf8(e.what()));
        fail(e);
    };
    auto read = [session = m_document->session(), uuid = m_document->capture().uuid](const Job&) {
        return session->headFacts(uuid);
    };
    m_engine->run(Engine::Quick, QStringLiteral("facts"), std::move(read))
        .then(this,
              [this, generation, arrived, lost](const std::vector<HeadFacts>& facts) {
                  if (generation != m_generation) return;
                  if (Index(facts.size()) >= headCount(m_document->capture())) {
                      arrived(facts);
                      return;
                  }
                  auto compute = [session = m_document->session(),
                                  capture = m_document->sharedCapture(),
                                  backend = m_engine->backend(Engine::Long)](const Job& job) {
                      return sessions::sessionHeadFacts(*session, *capture, *backend, job);
                  };
                  m_engine->run(Engine::Long, QStringLiteral("facts"), std::move(compute))
                      .then(this, arrived)
                      .onFailed(this, lost);
              })
        .onFailed(this, lost);
}

void Analysis::placeSelection() {
    const auto& facts = m_document->headFacts();
    const auto& truth = m_document->capture().truth;
    if (facts.empty()) return;
    // A needle prompt opens on the head that finds the needle and on the row that has to; other
    // prompts on the head that reads farthest.
    const auto best =
        std::max_element(facts.begin(), facts.end(), [](const HeadFacts& a, const HeadFacts& b) {
            if (a.retrieval && b.retrieval && *a.retrieval != *b.retrieval)
                return *a.retrieval < *b.retrieval;
            return a.distance < b.distance;
        });
    if (!std::exchange(m_placed, true)) m_document->selectHead(best->layer, best->head);
    if (m_document->query() < 0)
        m_document->selectQuery(truth ? copyingRow(m_document->capture().tokenIds, *truth)
                                      : m_document->rows() - 1);
    if (truth && m_document->key() < 0) m_document->selectKey(truth->needle.begin);
}

Analysis::Key Analysis::keyOf(int mask) const {
    return {m_generation, m_document->layer(), m_document->head(),
            m_document->masks()[std::size_t(mask)].spec};
}

bool Analysis::current(int mask, const Key& key) const {
    return key.generation == m_generation && key.layer == m_document->layer() &&
           key.head == m_document->head() && std::size_t(mask) < m_document->masks().size() &&
           m_document->masks()[std::size_t(mask)].spec == key.spec;
}

void Analysis::startMasks() {
    const auto& masks = m_document->masks();
    for (std::size_t i = masks.size(); i < m_started.size(); ++i)
        for (const char* kind : {"policy", "recall", "error"}) m_engine->stop(tagOf(kind, int(i)));
    m_started.resize(masks.size());
    // The pyramid comes first: it is what the user sees. Its arrival calls this again.
    const Index layer = m_document->layer();
    if (!m_document->isOpen() ||
        (!m_document->stats(layer) && m_document->statsFailure(layer).isEmpty()))
        return;
    std::vector<int> order(masks.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = int(i);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        const auto rank = [&](int i) {
            return i == m_document->activeMask() ? 0 : masks[std::size_t(i)].visible ? 1 : 2;
        };
        return rank(a) < rank(b);
    });
    for (const int i : order) {
        const MethodSpec& spec = masks[std::size_t(i)].spec;
        if (m_started[std::size_t(i)] == spec) continue;
        m_started[std::size_t(i)] = spec;
        for (const char* kind : {"recall", "error"}) m_engine->stop(tagOf(kind, i));
        startPolicy(i);
    }
}

void Analysis::startPolicy(int mask) {
    struct Selected {
        std::shared_ptr<const kernels::Policy> policy;
        std::optional<MaskEstimate> estimate;
    };
    auto work = [key = keyOf(mask), session = m_document->session(),
                 capture = m_document->sharedCapture(), facts = m_document->headFacts(),
                 backend = m_engine->backend(Engine::Quick)](const Job& job) -> Selected {
        const auto data = sessions::readLayer(*session, *capture, key.layer);
        const HeadInput input = sessions::sessionHeadInput(data, facts, key.head, *backend);
        Selected out;
        out.policy =
            std::make_shared<const kernels::Policy>(makePolicy(key.spec)->select(input, job));
        if (data.stats && !data.stats->pyramid.empty())
            out.estimate = estimateMask(input.problem, *data.stats, key.head, *out.policy);
        return out;
    };
    m_engine->run(Engine::Quick, tagOf("policy", mask), std::move(work))
        .then(this,
              [this, mask, key = keyOf(mask)](const Selected& selected) {
                  if (!current(mask, key)) return;
                  m_document->setPolicy(mask, selected.policy, selected.estimate);
                  startRecall(mask);
              })
        .onFailed(this, [this, mask, key = keyOf(mask),
                         hadFacts = !m_document->headFacts().empty()](const std::exception& e) {
            if (!current(mask, key)) return;
            // Without facts a method may miss the retrieval score: it is tried again when they are
            // there, which may be now.
            if (hadFacts) {
                failMask(mask, e);
                return;
            }
            if (!m_document->headFacts().empty()) {
                m_started[std::size_t(mask)] = {};
                m_masksSoon.start();
            }
            m_document->setPolicy(mask, nullptr);
            m_document->setMetrics(mask, nullptr);
        });
}

void Analysis::startRecall(int mask) {
    auto work = [key = keyOf(mask), policy = m_document->policy(mask),
                 session = m_document->session(), capture = m_document->sharedCapture(),
                 facts = m_document->headFacts(), backend = m_engine->backend(Engine::Quick)](
                    const Job& job) -> std::shared_ptr<const MaskMetrics> {
        const auto data = sessions::readLayer(*session, *capture, key.layer);
        const HeadInput input = sessions::sessionHeadInput(data, facts, key.head, *backend);
        MetricsOptions options;
        options.needle = capture->truth;
        const auto top = sessions::sessionTopKeys(*session, *capture, key.layer, key.head);
        options.top = top ? &*top : nullptr;
        options.outputError = false;
        MaskMetrics m =
            measureMask(*backend, input, headV(*data.layer, key.head), *policy, options, job);
        m.outputError =
            std::numeric_limits<double>::quiet_NaN();  // not known yet, and never a wrong 0
        return std::make_shared<const MaskMetrics>(std::move(m));
    };
    m_engine->run(Engine::Quick, tagOf("recall", mask), std::move(work))
        .then(this,
              [this, mask, key = keyOf(mask)](const std::shared_ptr<const MaskMetrics>& metrics) {
                  if (!current(mask, key)) return;
                  m_document->setMetrics(mask, metrics);
                  if (mask == m_document->activeMask() ||
                      m_document->masks()[std::size_t(mask)].visible)
                      startError(mask);
              })
        .onFailed(this, [this, mask, key = keyOf(mask)](const std::exception& e) {
            if (current(mask, key)) failMask(mask, e);
        });
}

void Analysis::startError(int mask) {
    const Engine::Lane lane =
        m_document->tokens() <= kQuickErrorTokens ? Engine::Quick : Engine::Long;
    auto work = [key = keyOf(mask), policy = m_document->policy(mask), dense = m_dense,
                 session = m_document->session(), capture = m_document->sharedCapture(),
                 facts = m_document->headFacts(), backend = m_engine->backend(lane)](
                    const Job& job) -> std::shared_ptr<const MaskMetrics> {
        const auto data = sessions::readLayer(*session, *capture, key.layer);
        const HeadInput input = sessions::sessionHeadInput(data, facts, key.head, *backend);
        const std::lock_guard lock(dense->mutex);
        if (dense->values.empty())
            dense->values = denseOutput(*backend, input, headV(*data.layer, key.head), job);
        MetricsOptions options;
        options.needle = capture->truth;
        const auto top = sessions::sessionTopKeys(*session, *capture, key.layer, key.head);
        options.top = top ? &*top : nullptr;
        options.denseOutput = dense->values.data();
        return std::make_shared<const MaskMetrics>(
            measureMask(*backend, input, headV(*data.layer, key.head), *policy, options, job));
    };
    m_engine->run(lane, tagOf("error", mask), std::move(work))
        .then(this,
              [this, mask, key = keyOf(mask)](const std::shared_ptr<const MaskMetrics>& metrics) {
                  if (current(mask, key)) m_document->setMetrics(mask, metrics);
              })
        .onFailed(this, [this, mask, key = keyOf(mask)](const std::exception& e) {
            if (current(mask, key)) failMask(mask, e);
        });
}

void Analysis::startTable() {
    const int active = m_document->activeMask();
    // The facts come first in the same lane: some methods read them, and the table shows their
    // labels.
    if (!m_document->isOpen() || m_document->headFacts().empty()) return;
    if (active < 0) {
        m_engine->stop(QStringLiteral("table"));
        m_tableSpec = {};
        m_document->setTableMetrics({});
        return;
    }
    const MethodSpec spec = m_document->masks()[std::size_t(active)].spec;
    if (spec == m_tableSpec) return;
    m_tableSpec = spec;
    m_document->setTableMetrics({});
    auto work = [spec, session = m_document->session(), capture = m_document->sharedCapture(),
                 backend = m_engine->backend(Engine::Long)](const Job& job) {
        auto rows = sessions::sessionMaskMetrics(*session, *capture, spec, {}, *backend, job);
        for (MaskMetrics& m : rows)
            m.rowRecall = {};  // a number per token and head: not shown here
        return rows;
    };
    m_engine->run(Engine::Long, QStringLiteral("table"), std::move(work))
        .then(this,
              [this, spec, generation = m_generation](const std::vector<MaskMetrics>& rows) {
                  if (generation == m_generation && spec == m_tableSpec)
                      m_document->setTableMetrics(rows);
              })
        .onFailed(this, [this, spec, generation = m_generation](const std::exception& e) {
            if (generation != m_generation || spec != m_tableSpec) return;
            m_tableSpec = {};
            m_document->failTable(QString::fromUtf8(e.what()));
            fail(e);
        });
}

}  // namespace sparsight::ui
