#include "ui/shell/banner.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QToolButton>

#include "ui/shell/ui_log.h"

namespace sparsight::ui {

QString reasonOf(const std::exception& error) {
    QString sentence = QString::fromUtf8(error.what());
    while (sentence.endsWith(QLatin1Char('.'))) sentence.chop(1);
    return sentence;
}

Banner::Banner(QWidget* parent, const QString& name) : QFrame(parent) {
    setObjectName(name);
    setProperty("role", "banner");
    auto* row = new QHBoxLayout(this);
    row->setContentsMargins(12, 6, 8, 6);
    m_text = new QLabel(this);
    m_text->setObjectName(name + QStringLiteral("Text"));
    m_text->setWordWrap(true);
    m_text->setTextFormat(Qt::PlainText);
    m_text->setTextInteractionFlags(Qt::TextSelectableByMouse);
    m_action = new QPushButton(this);
    m_action->setObjectName(name + QStringLiteral("Action"));
    m_close = new QToolButton(this);
    m_close->setText(QStringLiteral("✕"));
    m_close->setAccessibleName(tr("Hide this message"));
    m_close->setFixedSize(24, 24);
    m_close->setObjectName(name + QStringLiteral("Close"));
    m_close->setToolTip(tr("Hides this message"));
    row->addWidget(m_text, 1);
    row->addWidget(m_action);
    row->addWidget(m_close, 0, Qt::AlignTop);
    connect(m_close, &QToolButton::clicked, this, &QWidget::hide);
    connect(m_action, &QPushButton::clicked, this, [this] {
        hide();
        if (m_run) m_run();
    });
    hide();
}

void Banner::showMessage(const QString& sentence, const QString& button,
                         std::function<void()> action) {
    m_text->setText(sentence);
    m_run = std::move(action);
    m_action->setText(button);
    m_action->setVisible(!button.isEmpty());
    show();
    uiLog(QStringLiteral("banner"),
          {{QStringLiteral("where"), objectName()}, {QStringLiteral("sentence"), sentence}});
}

QString Banner::text() const {
    return isHidden() ? QString() : m_text->text();
}

}  // namespace sparsight::ui
