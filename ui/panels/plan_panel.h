#pragma once

#include <QAbstractTableModel>
#include <QWidget>
#include <functional>
#include <memory>
#include <optional>

#include "core/plan/attention_plan.h"
#include "core/plan/generate.h"

class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QPushButton;
class QTableView;

namespace sparsight::ui {

class Document;
class Engine;

/// The plan's grid: a row per layer, a column per query head, the method in words and its colour.
class PlanGrid : public QAbstractTableModel {
    Q_OBJECT
public:
    using QAbstractTableModel::QAbstractTableModel;
    void setPlan(const std::optional<AttentionPlan>& plan);
    int rowCount(const QModelIndex& parent = {}) const override {
        return parent.isValid() || !m_plan ? 0 : int(m_plan->model.layers);
    }
    int columnCount(const QModelIndex& parent = {}) const override {
        return parent.isValid() || !m_plan ? 0 : int(m_plan->model.heads);
    }
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

private:
    std::optional<AttentionPlan> m_plan;
};

/// Plans: made from the active mask, from a recall or a density; judged by what the model then
/// says; exported and imported.
class PlanPanel : public QWidget {
    Q_OBJECT
public:
    PlanPanel(Document* document, Engine* engine, QWidget* parent = nullptr);
    const std::optional<AttentionPlan>& plan() const { return m_plan; }
    void setPlan(AttentionPlan plan);

public slots:
    void make();   ///< by the chosen rule
    void judge();  ///< dense against planned on the captured prompt
    void exportPlanAs();
    void importPlanFrom();

public:
    /// For scripts: export without a dialog. @return the sentence of an error, or ""
    QString exportTo(const QString& target, const QString& path, bool allowLoss);

signals:
    void planChanged();
    void judged(const EvalResult& result);
    void exported(const QString& file);

private:
    void captureChanged();
    void refresh();
    void fail(const QString& sentence);

    Document* m_document;
    Engine* m_engine;
    QComboBox* m_rule;
    QDoubleSpinBox* m_target;
    QPushButton *m_make, *m_judge, *m_export, *m_import;
    QLabel *m_summary, *m_verdict;
    QTableView* m_grid;
    PlanGrid* m_model;
    std::optional<AttentionPlan> m_plan;
    bool m_busy = false;
};

}  // namespace sparsight::ui
