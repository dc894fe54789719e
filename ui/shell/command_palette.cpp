#include "ui/shell/command_palette.h"

#include <QCoreApplication>
#include <QGraphicsDropShadowEffect>
#include <QKeyEvent>
#include <QLineEdit>
#include <QListWidget>
#include <QPainter>
#include <QStyledItemDelegate>
#include <QTimer>
#include <QVBoxLayout>
#include <algorithm>

#include "ui/document.h"
#include "ui/shell/command.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr int kNote = Qt::UserRole, kBlocked = Qt::UserRole + 1;

/// Title at the left, key or reason at the right.
class RowDelegate : public QStyledItemDelegate {
public:
    using QStyledItemDelegate::QStyledItemDelegate;
    QSize sizeHint(const QStyleOptionViewItem&, const QModelIndex&) const override {
        return {200, 30};
    }
    void paint(QPainter* painter, const QStyleOptionViewItem& option,
               const QModelIndex& index) const override {
        const Theme& t = theme();
        const QRect box = option.rect.adjusted(10, 0, -10, 0);
        if (option.state & QStyle::State_Selected) painter->fillRect(option.rect, t.raised);
        const bool blocked = index.data(kBlocked).toBool();
        painter->setFont(smallFont());
        painter->setPen(t.muted);
        const QString note = index.data(kNote).toString();
        const int noteWidth =
            std::min(painter->fontMetrics().horizontalAdvance(note) + 4, box.width() * 3 / 5);
        painter->drawText(box, Qt::AlignRight | Qt::AlignVCenter,
                          painter->fontMetrics().elidedText(note, Qt::ElideRight, noteWidth));
        painter->setFont(bodyFont());
        painter->setPen(blocked ? t.muted : t.text);
        const QRect left = box.adjusted(0, 0, -noteWidth - 12, 0);
        painter->drawText(left, Qt::AlignLeft | Qt::AlignVCenter,
                          painter->fontMetrics().elidedText(index.data().toString(), Qt::ElideRight,
                                                            left.width()));
    }
};

}  // namespace

CommandPalette::CommandPalette(Document* document, Commands* commands, QWidget* window)
    : QFrame(window), m_document(document), m_commands(commands) {
    setObjectName(QStringLiteral("commandPalette"));
    setFrameShape(QFrame::StyledPanel);
    setAutoFillBackground(true);
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(8, 8, 8, 8);
    column->setSpacing(6);
    m_field = new QLineEdit(this);
    m_field->setObjectName(QStringLiteral("paletteField"));
    m_field->setAccessibleName(tr("Go to head, token, text or command"));
    m_field->setPlaceholderText(
        tr("L6H5 · token 463 · q:1444 k:463 · \"text\" · worst recall · a command"));
    m_list = new QListWidget(this);
    m_list->setObjectName(QStringLiteral("paletteList"));
    m_list->setAccessibleName(tr("Places and commands"));
    m_list->setItemDelegate(new RowDelegate(m_list));
    m_list->setFocusPolicy(Qt::NoFocus);
    m_list->setUniformItemSizes(true);
    column->addWidget(m_field);
    column->addWidget(m_list);
    auto* shadow = new QGraphicsDropShadowEffect(this);
    shadow->setBlurRadius(28);
    shadow->setOffset(0, 8);
    shadow->setColor(QColor(0, 0, 0, 140));
    setGraphicsEffect(shadow);
    connect(m_field, &QLineEdit::textChanged, this, &CommandPalette::refill);
    connect(m_list, &QListWidget::itemClicked, this,
            [this](QListWidgetItem* item) { accept(m_list->row(item)); });
    m_field->installEventFilter(this);
    hide();
}

void CommandPalette::open(bool commandsOnly, const QString& text) {
    m_commandsOnly = commandsOnly;
    const QWidget* window = parentWidget();
    const int w = std::min(640, window->width() - 32), h = std::min(420, window->height() - 120);
    setGeometry((window->width() - w) / 2, 64, w, h);
    m_field->setText(text);
    m_field->selectAll();
    refill();
    show();
    raise();
    m_field->setFocus();
}

QStringList CommandPalette::titles() const {
    QStringList list;
    for (const Row& row : m_rows) list << row.title;
    return list;
}

void CommandPalette::refill() {
    const QString typed = m_field->text().trimmed();
    m_rows.clear();
    if (!m_commandsOnly)
        for (Destination& d : destinations(*m_document, typed))
            m_rows.push_back({d.title, d.note, d.blocked, d.go});

    struct Scored {
        int score;
        const Command* command;
    };
    std::vector<Scored> found;
    for (const Command& c : m_commands->all()) {
        if (!c.inPalette) continue;
        const int score = typed.isEmpty() ? 0 : fuzzyScore(typed, c.title);
        if (score < 0) continue;
        const qsizetype recent = m_commands->recent().indexOf(c.id);
        found.push_back({score * 4 + (recent >= 0 ? 20 - int(recent) : 0), &c});
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Scored& a, const Scored& b) { return a.score > b.score; });
    for (const Scored& s : found) {
        const QString reason = m_commands->blockedReason(*s.command);
        const QString key = s.command->key.toString(QKeySequence::NativeText);
        m_rows.push_back({s.command->title, reason.isEmpty() ? key : reason, reason,
                          [this, id = s.command->id] { m_commands->run(id); }});
    }
    m_list->clear();
    for (const Row& row : m_rows) {
        auto* item = new QListWidgetItem(row.title, m_list);
        item->setData(kNote, row.note);
        item->setData(kBlocked, !row.blocked.isEmpty());
        item->setToolTip(row.blocked);
    }
    m_list->setCurrentRow(0);
}

void CommandPalette::accept(int row) {
    if (row < 0 || std::size_t(row) >= m_rows.size() || !m_rows[std::size_t(row)].blocked.isEmpty())
        return;
    const auto go = m_rows[std::size_t(row)].go;
    dismiss();
    go();
}

void CommandPalette::dismiss() {
    hide();
    parentWidget()->setFocus();
}

bool CommandPalette::eventFilter(QObject* watched, QEvent* event) {
    if (event->type() == QEvent::FocusOut) {
        // A click on the list keeps the palette; anything else closes it.
        QTimer::singleShot(0, this, [this] {
            if (isVisible() && !isAncestorOf(window()->focusWidget()) && window()->isActiveWindow())
                hide();
        });
    }
    if (event->type() != QEvent::KeyPress) return QFrame::eventFilter(watched, event);
    const int key = static_cast<QKeyEvent*>(event)->key(), row = m_list->currentRow(),
              last = m_list->count() - 1;
    switch (key) {
        case Qt::Key_Escape:
            dismiss();
            return true;
        case Qt::Key_Return:
        case Qt::Key_Enter:
            accept(row);
            return true;
        case Qt::Key_Down:
            m_list->setCurrentRow(std::min(row + 1, last));
            return true;
        case Qt::Key_Up:
            m_list->setCurrentRow(std::max(row - 1, 0));
            return true;
        case Qt::Key_PageDown:
            m_list->setCurrentRow(std::min(row + 10, last));
            return true;
        case Qt::Key_PageUp:
            m_list->setCurrentRow(std::max(row - 10, 0));
            return true;
        default:
            return QFrame::eventFilter(watched, event);
    }
}

}  // namespace sparsight::ui
