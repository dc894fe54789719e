#pragma once

#include <QColor>
#include <QHash>
#include <QObject>
#include <QString>
#include <memory>
#include <optional>
#include <vector>

#include "core/export/figure.h"
#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_estimate.h"
#include "core/metrics/mask_metrics.h"
#include "sessions/session.h"
#include "ui/map_rect.h"

namespace sparsight::ui {

/// A candidate mask laid over the map.
struct MaskLayer {
    MethodSpec spec;
    QColor colour;
    bool visible = true;
    double opacity = 0.45;
};

/// A visible layer of that rule in its method's own colour. @throws Error as parseMethod
MaskLayer maskLayer(const std::string& spec);

/// How the map is shown.
struct MapStyle {
    kernels::Statistic pool = kernels::Statistic::Max;
    bool log = true;
    ColourMap colours = ColourMap::Magma;
    bool showLost = false;  ///< the lost-mass layer of the active mask
};

/// The one model of the window: the open session and capture, the selection, the mask layers and
/// the results shown for them. Panels know the document, never each other. Setters ignore values
/// out of range, emit only on change, and do no work: results are filled in by Analysis.
class Document : public QObject {
    Q_OBJECT
public:
    explicit Document(QObject* parent = nullptr);

    // --- session ---
    void openCapture(std::shared_ptr<sessions::Session> session, sessions::CaptureInfo capture);
    void close();
    bool isOpen() const { return m_session != nullptr; }
    const std::shared_ptr<sessions::Session>& session() const { return m_session; }
    const sessions::CaptureInfo& capture() const { return *m_capture; }
    /// For work in a lane: it holds a number per token, and is better not copied.
    const std::shared_ptr<const sessions::CaptureInfo>& sharedCapture() const { return m_capture; }
    Index tokens() const { return Index(m_capture->tokenIds.size()); }
    QString sessionName() const;           ///< folder name without .sparsight
    QString tokenText(Index token) const;  ///< the prompt's own characters of one token

    /// The selected layer's map: rows (queries), keys, and whether later keys are hidden.
    Index rows() const { return shape().Nq; }
    Index keys() const { return shape().Nk; }
    MapSize mapSize() const { return {double(rows()), double(keys())}; }
    bool causal() const;
    LayerShape shape() const;
    /// What a row or a key of the selected layer is: characters of the prompt or of the decoder's
    /// text, or "patch 2,5" of an image.
    QString rowText(Index row) const;
    QString keyText(Index key) const;
    /// "3", or "cross.0" where layers have names; "L3 H5", "cross.0 H5".
    QString layerText(Index layer) const;
    QString headText(Index layer, Index head) const;

    // --- selection (layer and head of the model, query row, key column; -1 = none) ---
    Index layer() const { return m_layer; }
    Index head() const { return m_head; }
    Index query() const { return m_query; }
    Index key() const { return m_key; }
    void selectHead(Index layer, Index head);
    void selectQuery(Index row);
    void selectKey(Index column);

    // --- view ---
    const MapRect& view() const { return m_view; }
    void setView(const MapRect& rect);
    void fitView();
    const MapStyle& style() const { return m_style; }
    void setStyle(const MapStyle& style);

    // --- mask layers ---
    const std::vector<MaskLayer>& masks() const { return m_masks; }
    int activeMask() const { return m_active; }  ///< index into masks(), -1 = none
    void setMasks(std::vector<MaskLayer> masks);
    void addMask(const MaskLayer& layer);  ///< behind the others; becomes the active one
    void removeActiveMask();               ///< the layer before it becomes active
    void setActiveMask(int index);
    void setMaskSpec(int index, const MethodSpec& spec);
    void setMaskVisible(int index, bool visible);
    void setMaskStyle(int index, const QColor& colour, double opacity);

    // --- results, filled in by Analysis; empty or null = not computed yet ---
    const std::vector<HeadFacts>& headFacts() const { return m_facts; }
    const HeadFacts* factsOf(Index layer, Index head) const;
    void setHeadFacts(std::vector<HeadFacts> facts);
    /// Pyramids by layer, null where the layer is not captured or not read yet.
    std::shared_ptr<const LayerStats> stats(Index layer) const;
    void setStats(Index layer, std::shared_ptr<const LayerStats> stats);
    /// Why facts, table or a layer's pyramids are not there; "" = nothing failed. Setting the
    /// result takes it back.
    QString factsFailure() const { return m_factsFailure; }
    QString tableFailure() const { return m_tableFailure; }
    QString statsFailure(Index layer) const { return m_statsFailures.value(layer); }
    void failFacts(const QString& sentence);
    void failTable(const QString& sentence);
    void failStats(Index layer, const QString& sentence);
    /// Metrics of masks()[i] on the selected head; null = none yet. While a rule is being changed
    /// those of the rule before stay, so that a moving slider does not flicker.
    std::shared_ptr<const MaskMetrics> metrics(int mask) const;
    /// The metrics shown are of an earlier rule than masks()[i].spec.
    bool metricsStale(int mask) const;
    /// @param metrics  of the layer's present rule; takes back a failure
    void setMetrics(int mask, std::shared_ptr<const MaskMetrics> metrics);
    /// Why masks()[i] has no numbers on this head, "" = nothing failed.
    QString maskFailure(int mask) const;
    /// Drops the layer's set and numbers: what failed must not look computed.
    void failMask(int mask, const QString& sentence);
    /// Metrics of the active mask on every captured head (the table; colour of the grid).
    const std::vector<MaskMetrics>& tableMetrics() const { return m_table; }
    void setTableMetrics(std::vector<MaskMetrics> rows);
    /// The nominal set of masks()[i] on the selected head; null = being computed.
    std::shared_ptr<const kernels::Policy> policy(int mask) const;
    void setPolicy(int mask, std::shared_ptr<const kernels::Policy> policy,
                   std::optional<MaskEstimate> estimate = {});
    /// Recall and density of the layer's present rule from the stored statistics, for the moments
    /// until it is measured; nothing once it is.
    std::optional<MaskEstimate> estimate(int mask) const;

signals:
    void captureChanged();  ///< another session or capture, or closed
    void headChanged();
    void queryChanged();
    void keyChanged();
    void viewChanged();
    void styleChanged();
    void masksChanged();  ///< list, order, visibility, colour or active one
    void maskSpecChanged(int index);
    void factsChanged();
    void statsChanged(Index layer);
    void metricsChanged(int mask);
    void tableChanged();
    void policyChanged(int mask);

private:
    std::shared_ptr<sessions::Session> m_session;
    std::shared_ptr<const sessions::CaptureInfo> m_capture =
        std::make_shared<const sessions::CaptureInfo>();  ///< never null
    Index m_layer = -1, m_head = -1, m_query = -1, m_key = -1;
    MapRect m_view;
    MapStyle m_style;
    std::vector<MaskLayer> m_masks;
    int m_active = -1;
    std::vector<HeadFacts> m_facts;
    std::vector<MaskMetrics> m_table;
    std::vector<std::shared_ptr<const LayerStats>> m_stats;
    QString m_factsFailure, m_tableFailure;
    QHash<Index, QString> m_statsFailures;
    /// What is known of a mask layer on the selected head.
    struct MaskResult {
        std::shared_ptr<const kernels::Policy> policy;
        std::shared_ptr<const MaskMetrics> metrics;
        MethodSpec measured;  ///< the rule that `metrics` are of
        std::optional<MaskEstimate> estimate;
        QString failure;
    };
    const MaskResult* result(int mask) const;
    std::vector<MaskResult> m_results;  ///< one per mask layer
};

}  // namespace sparsight::ui
