#include "ui/shell/dock.h"

#include <QEvent>
#include <QHBoxLayout>
#include <QLabel>
#include <QScrollArea>
#include <QToolButton>

namespace sparsight::ui {
namespace {

constexpr int kTitleHeight = 30;  ///< of all titles, whether they hold buttons or not

/// Lets the dock handle dragging: mouse events that nobody takes reach it.
class DockTitle : public QWidget {
public:
    DockTitle(QDockWidget* dock, const QString& title, QWidget* tools) : QWidget(dock) {
        setObjectName(QStringLiteral("dockTitle"));
        setAttribute(Qt::WA_StyledBackground);
        auto* row = new QHBoxLayout(this);
        row->setContentsMargins(12, 3, 6, 3);
        row->setSpacing(2);
        auto* name = new QLabel(title.toUpper(), this);
        name->setProperty("role", "title");
        row->addWidget(name);
        m_float = button(dock, QStringLiteral("↗"), QStringLiteral("float"),
                         QObject::tr("Float or dock %1").arg(title));
        m_close = button(dock, QStringLiteral("✕"), QStringLiteral("close"),
                         QObject::tr("Close %1; View > Panels brings it back").arg(title));
        row->addWidget(m_float);
        row->addWidget(m_close);
        row->addSpacing(4);
        if (tools)
            row->addWidget(tools, 1);
        else
            row->addStretch(1);
        row->addStrut(kTitleHeight - 6);
        connect(m_float, &QToolButton::clicked, dock,
                [dock] { dock->setFloating(!dock->isFloating()); });
        connect(m_close, &QToolButton::clicked, dock, &QDockWidget::close);
        showButtons(false);
    }

protected:
    bool event(QEvent* event) override {
        if (event->type() == QEvent::HoverEnter || event->type() == QEvent::Enter)
            showButtons(true);
        if (event->type() == QEvent::HoverLeave || event->type() == QEvent::Leave)
            showButtons(false);
        return QWidget::event(event);
    }

private:
    QToolButton* button(QDockWidget* dock, const QString& text, const QString& action,
                        const QString& help) {
        auto* b = new QToolButton(this);
        b->setText(text);
        b->setToolTip(help);
        b->setObjectName(dock->objectName() + QLatin1Char('.') + action);
        b->setAccessibleName(help);
        b->setFocusPolicy(Qt::NoFocus);
        b->setAutoRaise(true);
        QSizePolicy keep = b->sizePolicy();
        keep.setRetainSizeWhenHidden(true);
        b->setSizePolicy(keep);
        b->setFixedSize(20, 20);
        return b;
    }
    void showButtons(bool on) {
        m_float->setVisible(on);
        m_close->setVisible(on);
    }

    QToolButton *m_float, *m_close;
};

constexpr int kScrollBar = 10;

/// As wide as its panel wants to be at least, also after the panel's numbers have become longer.
class PanelArea : public QScrollArea {
public:
    explicit PanelArea(QWidget* panel) {
        setWidget(panel);
        setWidgetResizable(true);
        setFrameShape(QFrame::NoFrame);
        setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
        setFocusPolicy(Qt::NoFocus);
        panel->installEventFilter(this);
        fit();
    }

protected:
    bool eventFilter(QObject* watched, QEvent* event) override {
        if (watched == widget() && event->type() == QEvent::LayoutRequest) fit();
        return QScrollArea::eventFilter(watched, event);
    }

private:
    void fit() { setMinimumWidth(widget()->minimumSizeHint().width() + kScrollBar); }
};

}  // namespace

QWidget* scrolled(QWidget* panel) {
    return new PanelArea(panel);
}

QDockWidget* makeDock(const QString& name, const QString& title, QWidget* content, QWidget* tools,
                      const QString& tab) {
    auto* dock = new QDockWidget(tab.isEmpty() ? title : tab);
    dock->toggleViewAction()->setText(title);
    dock->setAccessibleName(title);
    dock->setObjectName(name);
    content->setProperty("role", "panel");
    content->setAttribute(Qt::WA_StyledBackground);
    dock->setWidget(content);
    dock->setTitleBarWidget(new DockTitle(dock, title, tools));
    content->setAccessibleName(title);
    return dock;
}

}  // namespace sparsight::ui
