#include "ui/panels/metrics_table.h"

#include <QAction>
#include <QClipboard>
#include <QEvent>
#include <QGuiApplication>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QSortFilterProxyModel>
#include <QTableView>
#include <QVBoxLayout>
#include <algorithm>
#include <array>
#include <cmath>

#include "ui/document.h"
#include "ui/panels/panel_parts.h"
#include "ui/shell/elided_label.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr int kMeasuredRows = 32;  ///< decide the columns' widths: a model may have 1024 heads
constexpr int kCellPad = 20;       ///< pixels of a cell beside its text
constexpr int kMostSpare = 24;     ///< pixels by which a column is wider than it must be

struct ColumnText {
    const char* name;
    const char* help;
};
constexpr ColumnText kColumns[MetricsModel::ColumnCount] = {
    {"head", "Layer and query head, counted from 0"},
    {"recall",
     "Exact recall: probability kept by the token-exact mask, mean over all rows (0 to 1, higher "
     "is better)"},
    {"worst", "Smallest exact recall of a row (0 to 1, higher is better)"},
    {"density", "Executed tile area / tile area of dense attention (lower is cheaper)"},
    {"out. err",
     "Relative error of the head's output with renormalised probabilities (lower is better)"},
    {"label", "What the head is: retrieval, streaming or mixed"},
    {"needle",
     "Of the mass that the answer's rows put on the needle, the share that the mask keeps (0 to "
     "1)"},
    {"p5", "5th percentile of the rows' exact recall (0 to 1, higher is better)"},
    {"tile recall",
     "Probability kept once the mask is rounded up to the tiles that a kernel executes (0 to 1)"},
    {"coverage", "Kept pairs / visible pairs of the token-exact mask"},
    {"tiles", "128-key tiles that a kernel executes"},
};

}  // namespace

void MetricsModel::setRows(std::vector<MaskMetrics> rows, const std::vector<HeadFacts>& facts,
                           std::vector<QString> names) {
    beginResetModel();
    m_rows = std::move(rows);
    m_names = std::move(names);
    m_labels.assign(m_rows.size(), {});
    for (std::size_t i = 0; i < m_rows.size(); ++i)
        for (const HeadFacts& f : facts)
            if (f.layer == m_rows[i].layer && f.head == m_rows[i].head)
                m_labels[i] = QString::fromStdString(f.label);
    endResetModel();
}

int MetricsModel::rowOf(Index layer, Index head) const {
    const auto at = std::find_if(m_rows.begin(), m_rows.end(), [&](const MaskMetrics& m) {
        return m.layer == layer && m.head == head;
    });
    return at == m_rows.end() ? -1 : int(at - m_rows.begin());
}

QVariant MetricsModel::raw(int row, int column) const {
    const MaskMetrics& m = m_rows[std::size_t(row)];
    switch (column) {
        case Head:
            return qlonglong(m.layer * 100000 + m.head);
        case Recall:
            return m.recall;
        case Worst:
            return m.recallMin;
        case P5:
            return m.recallP5;
        case TileRecall:
            return m.tileRecall;
        case Needle:
            return m.needleRecall ? QVariant(*m.needleRecall) : QVariant(-1.0);
        case Coverage:
            return m.coverage;
        case Density:
            return m.density;
        case OutputError:
            return m.outputError;
        case Tiles:
            return qlonglong(m.tiles);
        case Label:
            return m_labels[std::size_t(row)];
        default:
            return {};
    }
}

QVariant MetricsModel::data(const QModelIndex& index, int role) const {
    if (!index.isValid() || index.row() >= rowCount()) return {};
    const int column = index.column();
    if (role == Qt::TextAlignmentRole)
        return int((column == Head || column == Label ? Qt::AlignLeft : Qt::AlignRight) |
                   Qt::AlignVCenter);
    const QVariant value = raw(index.row(), column);
    if (role == SortRole) return value;
    if (role != Qt::DisplayRole) return {};
    const MaskMetrics& m = m_rows[std::size_t(index.row())];
    switch (column) {
        case Head:
            return std::size_t(index.row()) < m_names.size()
                       ? m_names[std::size_t(index.row())]
                       : QStringLiteral("L%1 H%2").arg(m.layer).arg(m.head);
        case Coverage:
        case Density:
            return percent(value.toDouble());
        case Tiles:
            return thousands(value.toLongLong());
        case Needle:
            return m.needleRecall ? QString::number(*m.needleRecall, 'f', 3) : QStringLiteral("–");
        case Label:
            return value;
        default:
            return std::isnan(value.toDouble()) ? QStringLiteral("–")
                                                : QString::number(value.toDouble(), 'f', 3);
    }
}

QVariant MetricsModel::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal || section < 0 || section >= ColumnCount) return {};
    if (role == Qt::DisplayRole) return QString::fromUtf8(kColumns[section].name);
    if (role == Qt::ToolTipRole) return QString::fromUtf8(kColumns[section].help);
    if (role == Qt::TextAlignmentRole)
        return int((section == Head || section == Label ? Qt::AlignLeft : Qt::AlignRight) |
                   Qt::AlignVCenter);
    return {};
}

MetricsTable::MetricsTable(Document* document, Engine*, QWidget* parent)
    : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("metricsTablePanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(6, 0, 2, 2);
    column->setSpacing(0);
    m_tools = new QWidget(this);
    auto* row = new QHBoxLayout(m_tools);
    row->setContentsMargins(0, 0, 6, 0);
    m_caption = new ElidedLabel(m_tools);
    m_caption->setProperty("role", "muted");
    m_caption->setObjectName(QStringLiteral("metricsTableCaption"));
    row->addWidget(m_caption, 1);
    column->addWidget(m_tools);
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
    m_view->setTabKeyNavigation(false);  // arrows move in it, Tab leaves it
    m_view->setFrameShape(QFrame::NoFrame);
    m_view->setWordWrap(false);
    m_view->verticalHeader()->hide();
    m_view->verticalHeader()->setDefaultSectionSize(22);
    m_view->horizontalHeader()->setHighlightSections(false);
    m_view->horizontalHeader()->setMinimumSectionSize(36);
    m_view->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
    m_view->viewport()->installEventFilter(this);
    column->addWidget(m_view);
    connect(m_view->horizontalHeader(), &QHeaderView::sectionResized, this,
            [this] { m_chosenWidths = m_chosenWidths || !m_fitting; });

    auto* copyAction = new QAction(tr("Copy as TSV"), this);
    copyAction->setShortcut(QKeySequence::Copy);
    copyAction->setShortcutContext(Qt::WidgetWithChildrenShortcut);
    connect(copyAction, &QAction::triggered, this, &MetricsTable::copy);
    addAction(copyAction);
    m_view->addAction(copyAction);
    m_view->setContextMenuPolicy(Qt::ActionsContextMenu);

    connect(m_view->selectionModel(), &QItemSelectionModel::currentRowChanged, this,
            [this](const QModelIndex& now) {
                if (!now.isValid() || m_selecting) return;
                const MaskMetrics& m = m_model->row(m_sorted->mapToSource(now).row());
                m_document->selectHead(m.layer, m.head);
            });
    for (const auto change : {&Document::tableChanged, &Document::factsChanged})
        connect(m_document, change, this, &MetricsTable::refreshRows);
    for (const auto change : {&Document::tableChanged, &Document::masksChanged,
                              &Document::captureChanged, &Document::factsChanged})
        connect(m_document, change, this, &MetricsTable::refreshCaption);
    connect(m_document, &Document::maskSpecChanged, this, &MetricsTable::refreshCaption);
    connect(m_document, &Document::headChanged, this, &MetricsTable::selectCurrent);
    refreshRows();
    refreshCaption();
}

void MetricsTable::refreshCaption() {
    const int active = m_document->activeMask();
    const auto& rows = m_document->tableMetrics();
    const QString rule =
        active < 0
            ? QString()
            : QString::fromStdString(toString(m_document->masks()[std::size_t(active)].spec));
    QString text;
    if (!m_document->isOpen())
        text = tr("No capture is open.");
    else if (active < 0)
        text = tr("Add a mask layer to see what it keeps in every head.");
    else if (!m_document->factsFailure().isEmpty())
        text = m_document->factsFailure();
    else if (!m_document->tableFailure().isEmpty())
        text = m_document->tableFailure();
    else if (rows.empty())
        text = tr("Computing %1 for every head …").arg(rule);
    else
        text = tr("%1 on %2 heads").arg(rule).arg(rows.size());
    m_caption->tell(text);
    setLook(m_caption, "warn",
            !m_document->tableFailure().isEmpty() || !m_document->factsFailure().isEmpty());
}

void MetricsTable::refreshRows() {
    m_selecting = true;
    std::vector<QString> names;
    for (const MaskMetrics& m : m_document->tableMetrics())
        names.push_back(m_document->headText(m.layer, m.head));
    m_model->setRows(m_document->tableMetrics(), m_document->headFacts(), std::move(names));
    fitColumns();
    m_selecting = false;
    selectCurrent();
}

void MetricsTable::fitColumns() {
    if (m_chosenWidths) return;
    const QFontMetrics cells = m_view->fontMetrics(),
                       names = m_view->horizontalHeader()->fontMetrics();
    std::array<int, MetricsModel::ColumnCount> widths{};
    int sum = 0;
    for (int c = 0; c < MetricsModel::ColumnCount; ++c) {
        int& width = widths[std::size_t(c)];
        width = names.horizontalAdvance(
            m_model->headerData(c, Qt::Horizontal, Qt::DisplayRole).toString());
        for (int r = 0; r < std::min(m_model->rowCount(), kMeasuredRows); ++r)
            width =
                std::max(width, cells.horizontalAdvance(m_model->index(r, c).data().toString()));
        sum += width += kCellPad;
    }
    const int spare = (m_view->viewport()->width() - sum) / MetricsModel::ColumnCount;
    m_fitting = true;
    for (int c = 0; c < MetricsModel::ColumnCount; ++c)
        m_view->setColumnWidth(c, widths[std::size_t(c)] + std::clamp(spare, 0, kMostSpare));
    m_fitting = false;
}

bool MetricsTable::eventFilter(QObject* watched, QEvent* event) {
    if (watched == m_view->viewport() && event->type() == QEvent::Resize) fitColumns();
    return QWidget::eventFilter(watched, event);
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
        text += (c ? QStringLiteral("\t") : QString()) +
                m_model->headerData(c, Qt::Horizontal, Qt::DisplayRole).toString();
    text += u'\n';
    QModelIndexList rows = m_view->selectionModel()->selectedRows();
    if (rows.size() < 2) {  // one row is just the current head: copy the table
        rows.clear();
        for (int r = 0; r < m_sorted->rowCount(); ++r) rows.append(m_sorted->index(r, 0));
    }
    std::sort(rows.begin(), rows.end(),
              [](const QModelIndex& a, const QModelIndex& b) { return a.row() < b.row(); });
    for (const QModelIndex& row : rows) {
        for (int c = 0; c < MetricsModel::ColumnCount; ++c) {
            const QModelIndex at = m_sorted->index(row.row(), c);
            const bool words = c == MetricsModel::Head || c == MetricsModel::Label;
            const QVariant value =
                at.data(words ? int(Qt::DisplayRole) : int(MetricsModel::SortRole));
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

void MetricsTable::copy() const {
    QGuiApplication::clipboard()->setText(tsv());
}

}  // namespace sparsight::ui
