#include "ui/shell/banner.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>

namespace sparsight::ui {

Banner::Banner(QWidget* parent) : QFrame(parent) {
    setObjectName(QStringLiteral("banner"));
    setProperty("role", "banner");
    auto* row = new QHBoxLayout(this);
    row->setContentsMargins(12, 6, 8, 6);
    m_text = new QLabel(this);
    m_text->setObjectName(QStringLiteral("bannerText"));
    m_text->setWordWrap(true);
    m_text->setTextFormat(Qt::PlainText);
    m_text->setTextInteractionFlags(Qt::TextSelectableByMouse);
    m_action = new QPushButton(this);
    m_action->setObjectName(QStringLiteral("bannerAction"));
    m_close = new QPushButton(tr("Close"), this);
    m_close->setObjectName(QStringLiteral("bannerClose"));
    m_close->setToolTip(tr("Hides this message"));
    row->addWidget(m_text, 1);
    row->addWidget(m_action);
    row->addWidget(m_close);
    connect(m_close, &QPushButton::clicked, this, &QWidget::hide);
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
}

QString Banner::text() const {
    return isHidden() ? QString() : m_text->text();
}

}  // namespace sparsight::ui
