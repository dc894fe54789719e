#pragma once

#include <QAbstractTableModel>
#include <QWidget>

#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_metrics.h"

class QSortFilterProxyModel;
class QTableView;

namespace sparsight::ui {

class Document;
class ElidedLabel;
class Engine;

/// One row per head: what the active mask keeps and costs there.
class MetricsModel : public QAbstractTableModel {
    Q_OBJECT
public:
    enum Column {
        Head,
        Recall,
        Worst,
        Density,
        OutputError,
        Label,
        Needle,
        P5,
        TileRecall,
        Coverage,
        Tiles,
        ColumnCount
    };
    enum Role { SortRole = Qt::UserRole };  ///< raw numbers, for the sort proxy
    using QAbstractTableModel::QAbstractTableModel;
    /// @param names  of the rows' heads; empty = L<layer> H<head>
    void setRows(std::vector<MaskMetrics> rows, const std::vector<HeadFacts>& facts,
                 std::vector<QString> names = {});
    const MaskMetrics& row(int r) const { return m_rows[std::size_t(r)]; }
    int rowOf(Index layer, Index head) const;  ///< -1 = none
    int rowCount(const QModelIndex& parent = {}) const override {
        return parent.isValid() ? 0 : int(m_rows.size());
    }
    int columnCount(const QModelIndex& parent = {}) const override {
        return parent.isValid() ? 0 : ColumnCount;
    }
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

private:
    QVariant raw(int row, int column) const;
    std::vector<MaskMetrics> m_rows;
    std::vector<QString> m_labels, m_names;
};

/// The heads table: sortable, selects the head that is clicked, copies as TSV.
class MetricsTable : public QWidget {
    Q_OBJECT
public:
    MetricsTable(Document* document, Engine* engine, QWidget* parent = nullptr);
    /// What the rows are of, for the panel's title line.
    QWidget* tools() const { return m_tools; }
    /// The selected rows (or all, when none is) as tab-separated text with a head line.
    QString tsv() const;
    void copy() const;  ///< to the clipboard

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    void refreshCaption();
    void refreshRows();
    void selectCurrent();
    /// As wide as texts need, and a share of what is left over; not once the user has set a width.
    void fitColumns();

    Document* m_document;
    QWidget* m_tools;
    ElidedLabel* m_caption;
    MetricsModel* m_model;
    QSortFilterProxyModel* m_sorted;
    QTableView* m_view;
    bool m_selecting = false, m_fitting = false, m_chosenWidths = false;
};

}  // namespace sparsight::ui
