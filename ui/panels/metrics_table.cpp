#include "ui/panels/metrics_table.h"

#include <QAction>
#include <QClipboard>
#include <QGuiApplication>
#include <QHeaderView>
#include <QLabel>
#include <QLocale>
#include <QSortFilterProxyModel>
#include <QTableView>
#include <QVBoxLayout>
#include <algorithm>

#include "ui/document.h"

namespace sparsight::ui {
namespace {

struct ColumnText {
    const char* name;
    const char* help;
};
constexpr ColumnText kColumns[MetricsModel::ColumnCount] = {
    {"head", "Layer and query head, counted from 0"},
    {"recall", "Exact recall: probability kept by the token-exact mask, mean over all rows (0 to 1, higher is better)"},
    {"worst", "Smallest exact recall of a row"},
    {"p5", "5th percentile of the rows' exact recall"},
    {"tile recall", "Probability kept once the mask is rounded up to the tiles that a kernel executes"},
    {"needle", "Of the mass that the answer's rows put on the needle, the share that the mask keeps"},
    {"coverage", "Kept pairs / visible pairs of the token-exact mask"},
    {"density", "Executed tile area / tile area of dense attention (lower is cheaper)"},
    {"out. err", "Relative error of the head's output with renormalised probabilities (lower is better)"},
    {"tiles", "128-key tiles that a kernel executes"},
    {"label", "What the head is: retrieval, streaming or mixed"},
};

QString percent(double share) {
    return QString::number(100 * share, 'f', share < 0.0995 ? 2 : 1) + QStringLiteral(" %");
}

}  // namespace

void MetricsModel::setRows(std::vector<MaskMetrics> rows, const std::vector<HeadFacts>& facts) {
    beginResetModel();
    m_rows = std::move(rows);
    m_labels.assign(m_rows.size(), {});
    for (std::size_t i = 0; i < m_rows.size(); ++i)
        for (const HeadFacts& f : facts)
            if (f.layer == m_rows[i].layer && f.head == m_rows[i].head) m_labels[i] = QString::fromStdString(f.label);
    endResetModel();
}

int MetricsModel::rowOf(Index layer, Index head) const {
    const auto at = std::find_if(m_rows.begin(), m_rows.end(), [&](const MaskMetrics& m) { return m.layer == layer && m.head == head; });
    return at == m_rows.end() ? -1 : int(at - m_rows.begin());
}

QVariant MetricsModel::raw(int row, int column) const {
    const MaskMetrics& m = m_rows[std::size_t(row)];
    switch (column) {
        case Head: return qlonglong(m.layer * 100000 + m.head);
        case Recall: return m.recall;
        case Worst: return m.recallMin;
        case P5: return m.recallP5;
        case TileRecall: return m.tileRecall;
        case Needle: return m.needleRecall ? QVariant(*m.needleRecall) : QVariant(-1.0);
        case Coverage: return m.coverage;
        case Density: return m.density;
        case OutputError: return m.outputError;
        case Tiles: return qlonglong(m.tiles);
        case Label: return m_labels[std::size_t(row)];
        default: return {};
    }
}

QVariant MetricsModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid() || index.row() >= rowCount()) return {};
    const int column = index.column();
    if (role == Qt::TextAlignmentRole)
        return int((column == Head || column == Label ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
    const QVariant value = raw(index.row(), column);
    if (role == SortRole) return value;
    if (role != Qt::DisplayRole) return {};
    const MaskMetrics& m = m_rows[std::size_t(index.row())];
    switch (column) {
        case Head: return QStringLiteral("L%1 H%2").arg(m.layer).arg(m.head);
        case Coverage:
        case Density: return percent(value.toDouble());
        case Tiles: return QLocale::c().toString(value.toLongLong());
        case Needle: return m.needleRecall ? QString::number(*m.needleRecall, 'f', 3) : QStringLiteral("–");
        case Label: return value;
        default: return QString::number(value.toDouble(), 'f', 3);
    }
}

QVariant MetricsModel::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal || section < 0 || section >= ColumnCount) return {};
    if (role == Qt::DisplayRole) return QString::fromUtf8(kColumns[section].name);
    if (role == Qt::ToolTipRole) return QString::fromUtf8(kColumns[section].help);
    if (role == Qt::TextAlignmentRole)
        return int((section == Head || section == Label ? Qt::AlignLeft : Qt::AlignRight) | Qt::AlignVCenter);
    return {};
}

MetricsTable::MetricsTable(Document* document, Engine*, QWidget* parent) : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("metricsTablePanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 8, 4, 4);
    column->setSpacing(6);
    m_caption = new QLabel(this);
    m_caption->setObjectName(QStringLiteral("metricsTableCaption"));
    m_caption->setProperty("role", "muted");
    column->addWidget(m_caption);
    m_model = new MetricsModel(this);
    m_sorted = new QSortFilterProxyModel(this);
    m_sorted->setSourceModel(m_model);
    m_sorted->setSortRole(MetricsModel::SortRole);
    m_view = new QTableView(this);
    m_view->setObjectName(QStringLiteral("metricsTable"));
    m_view->setAccessibleName(tr("Heads table"));
    m_view->setModel(m_sorted);
    m_view->setSortingEnabled(true);
    m_view->sortByColumn(MetricsModel::Worst, Qt::AscendingOrder);
    m_view->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_view->setSelectionMode(QAbstractItemView::ExtendedSelection);
    m_view->setShowGrid(false);
    m_view->setFrameShape(QFrame::NoFrame);
    m_view->setWordWrap(false);
    m_view->verticalHeader()->hide();
    m_view->verticalHeader()->setDefaultSectionSize(22);
    m_view->horizontalHeader()->setHighlightSections(false);
    m_view->horizontalHeader()->setMinimumSectionSize(40);
    column->addWidget(m_view);

    auto* copyAction = new QAction(tr("Copy as TSV"), this);
    copyAction->setShortcut(QKeySequence::Copy);
    copyAction->setShortcutContext(Qt::WidgetWithChildrenShortcut);
    connect(copyAction, &QAction::triggered, this, &MetricsTable::copy);
    addAction(copyAction);
    m_view->addAction(copyAction);
    m_view->setContextMenuPolicy(Qt::ActionsContextMenu);

    connect(m_view->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this](const QModelIndex& now) {
        if (!now.isValid() || m_selecting) return;
        const MaskMetrics& m = m_model->row(m_sorted->mapToSource(now).row());
        m_document->selectHead(m.layer, m.head);
    });
    connect(m_document, &Document::tableChanged, this, &MetricsTable::refresh);
    connect(m_document, &Document::factsChanged, this, &MetricsTable::refresh);
    connect(m_document, &Document::masksChanged, this, &MetricsTable::refresh);
    connect(m_document, &Document::maskSpecChanged, this, &MetricsTable::refresh);
    connect(m_document, &Document::captureChanged, this, &MetricsTable::refresh);
    connect(m_document, &Document::headChanged, this, &MetricsTable::selectCurrent);
    refresh();
}

void MetricsTable::refresh() {
    const int active = m_document->activeMask();
    const auto& rows = m_document->tableMetrics();
    if (!m_document->isOpen()) m_caption->setText(tr("No capture is open."));
    else if (active < 0) m_caption->setText(tr("Add a mask layer to see what it keeps in every head."));
    else if (rows.empty()) m_caption->setText(tr("Computing %1 for every head …").arg(QString::fromStdString(toString(m_document->masks()[std::size_t(active)].spec))));
    else
        m_caption->setText(tr("%1 on %2 heads")
                               .arg(QString::fromStdString(toString(m_document->masks()[std::size_t(active)].spec)))
                               .arg(rows.size()));
    m_selecting = true;
    m_model->setRows(rows, m_document->headFacts());
    m_view->resizeColumnsToContents();
    m_selecting = false;
    selectCurrent();
}

void MetricsTable::selectCurrent() {
    const int row = m_model->rowOf(m_document->layer(), m_document->head());
    if (row < 0) return;
    m_selecting = true;
    const QModelIndex at = m_sorted->mapFromSource(m_model->index(row, 0));
    m_view->setCurrentIndex(at);
    m_view->scrollTo(at);
    m_selecting = false;
}

QString MetricsTable::tsv() const {
    QString text;
    for (int c = 0; c < MetricsModel::ColumnCount; ++c)
        text += (c ? QStringLiteral("\t") : QString()) + m_model->headerData(c, Qt::Horizontal, Qt::DisplayRole).toString();
    text += u'\n';
    QModelIndexList rows = m_view->selectionModel()->selectedRows();
    if (rows.size() < 2) {  // one row is just the current head: copy the table
        rows.clear();
        for (int r = 0; r < m_sorted->rowCount(); ++r) rows.append(m_sorted->index(r, 0));
    }
    std::sort(rows.begin(), rows.end(), [](const QModelIndex& a, const QModelIndex& b) { return a.row() < b.row(); });
    for (const QModelIndex& row : rows) {
        for (int c = 0; c < MetricsModel::ColumnCount; ++c) {
            const QModelIndex at = m_sorted->index(row.row(), c);
            const bool words = c == MetricsModel::Head || c == MetricsModel::Label;
            const QVariant value = at.data(words ? int(Qt::DisplayRole) : int(MetricsModel::SortRole));
            const bool none = c == MetricsModel::Needle && value.toDouble() < 0;
            text += (c ? QStringLiteral("\t") : QString()) +
                    (none    ? QString()
                     : words ? value.toString()
                             : QString::number(value.toDouble(), 'g', 9));
        }
        text += u'\n';
    }
    return text;
}

void MetricsTable::copy() const { QGuiApplication::clipboard()->setText(tsv()); }

}  // namespace sparsight::ui
