#include "ui/map/token_view.h"

#include <QEvent>
#include <QHBoxLayout>
#include <QPushButton>
#include <QVBoxLayout>

#include "ui/engine.h"
#include "ui/map/map_paint.h"
#include "ui/map/patch_grid.h"
#include "ui/map/token_text.h"
#include "ui/shell/banner.h"
#include "ui/shell/elided_label.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {

TokenView::TokenView(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("tokenView"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(0);
    m_tools = new QWidget(this);
    auto* row = new QHBoxLayout(m_tools);
    row->setContentsMargins(0, 0, 0, 0);
    row->setSpacing(4);
    m_title = new ElidedLabel(m_tools);
    m_title->setObjectName(QStringLiteral("tokenTitle"));
    m_title->setProperty("role", "muted");
    row->addWidget(m_title, 1);
    row->addSpacing(4);
    m_query = addButton("tokenQuery", tr("Query"),
                        tr("Background: what the selected query reads; a click selects a query "
                           "(default)"));
    m_key = addButton("tokenKey", tr("Key"),
                      tr("Background: which tokens read the selected key; a click selects a key"));
    m_fold = addButton("tokenFold", tr("Fold"),
                       tr("Folds long stretches that are not read to a chip; a click on it unfolds "
                          "them (default: on)"));
    column->addWidget(m_tools);
    m_banner = new Banner(this, QStringLiteral("tokenBanner"));
    column->addWidget(m_banner);
    m_text = new TokenText(m_document, this);
    m_text->setObjectName(QStringLiteral("tokenText"));
    m_text->setAccessibleName(tr("Prompt text"));
    m_text->setMinimumHeight(24);  // a sentence above it is not to be squeezed
    column->addWidget(m_text, 1);
    m_image = new PatchGrid(m_document, this);
    m_image->setObjectName(QStringLiteral("imageGrid"));
    m_image->setAccessibleName(tr("Patches of the image"));
    m_image->hide();
    column->addWidget(m_image, 1);

    connect(m_query, &QPushButton::clicked, this, [this] { setKeyMode(false); });
    connect(m_key, &QPushButton::clicked, this, [this] { setKeyMode(true); });
    connect(m_fold, &QPushButton::clicked, this, &TokenView::setFolding);
    connect(m_text, &TokenText::clicked, this, &TokenView::click);
    connect(m_image, &PatchGrid::clicked, this, &TokenView::click);
    connect(document, &Document::captureChanged, this, [this] {
        m_text->reset();
        m_text->setHidden(m_document->capture().image.has_value());
        m_image->setVisible(m_document->capture().image.has_value());
        refresh();
    });
    connect(document, &Document::headChanged, this, [this] {
        if (!m_document->capture().config.stacks.empty()) m_text->reset();
        refresh();
    });
    const auto selected = [this](bool key) {
        if (m_keyMode == key) refresh();
        m_text->selectionMoved();
    };
    connect(document, &Document::queryChanged, this, [selected] { selected(false); });
    connect(document, &Document::keyChanged, this, [selected] { selected(true); });
    setFolding(true);
    setKeyMode(false);
}

QPushButton* TokenView::addButton(const char* name, const QString& text, const QString& help) {
    auto* b = new QPushButton(text, m_tools);
    b->setObjectName(QLatin1String(name));
    b->setAccessibleName(help);
    b->setToolTip(help);
    b->setCheckable(true);
    b->setProperty("compact", true);
    m_tools->layout()->addWidget(b);
    return b;
}

bool TokenView::event(QEvent* event) {
    if (event->type() == QEvent::PaletteChange) m_text->viewport()->update();
    return QWidget::event(event);
}

Index TokenView::own() const {
    return m_keyMode ? m_document->key() : m_document->query();
}

void TokenView::setKeyMode(bool on) {
    m_keyMode = on;
    m_query->setChecked(!on);
    m_key->setChecked(on);
    m_text->setKeyMode(on);
    m_image->setKeyMode(on);
    refresh();
}

void TokenView::click(Index token, bool otherWay) {
    // In cross-attention the text shown is the other side's.
    const LayerShape shape = m_document->shape();
    const bool key = (m_keyMode != otherWay) != (shape.queries != shape.keys);
    if (key)
        m_document->selectKey(token);
    else
        m_document->selectQuery(token);
}

bool TokenView::folding() const {
    return m_text->folding();
}

void TokenView::setFolding(bool on) {
    m_fold->setChecked(on);
    m_text->setFolding(on);
}

bool TokenView::unfold(Index token) {
    return m_text->unfold(token);
}

void TokenView::refreshTitle() {
    const Index at = own();
    QString text;
    if (!m_document->isOpen())
        text = tr("The prompt's text stands here when a session is open.");
    else if (at < 0)
        text = m_keyMode ? tr("Click a token to see which tokens read it.")
                         : tr("Click a token to see what it reads.");
    else
        text = (m_keyMode ? tr("background: who reads key %1 “%2”")
                          : tr("background: what query %1 “%2” reads"))
                   .arg(thousands(at), visibleToken(m_keyMode ? m_document->keyText(at)
                                                              : m_document->rowText(at)));
    m_title->tell(text);
}

void TokenView::refresh() {
    refreshTitle();
    m_banner->hide();
    m_head = selectedHead(*m_document);
    const Index at = own();
    if (!m_head.valid() || at < 0) {
        m_engine->stop(QStringLiteral("tokens"));
        m_text->setProbabilities({});
        m_image->setProbabilities({});
        return;
    }
    auto work = [head = m_head, at, column = m_keyMode,
                 backend = m_engine->backend(Engine::Quick)](const Job& job) {
        return column ? readColumn(head, at, *backend, job) : readRow(head, at);
    };
    const auto current = [this, head = m_head, at, column = m_keyMode] {
        return head.same(m_head) && column == m_keyMode && at == own();
    };
    m_engine->run(Engine::Quick, QStringLiteral("tokens"), std::move(work))
        .then(this,
              [this, current](const std::vector<float>& p) {
                  if (!current()) return;
                  m_text->setProbabilities(p);
                  m_image->setProbabilities(p);
              })
        .onFailed(this, [this, current](const std::exception& e) {
            if (!current()) return;
            m_text->setProbabilities({});
            m_image->setProbabilities({});
            m_banner->showMessage(
                tr("What is read here cannot be shown: %1. If it stays so, capture the prompt "
                   "again.")
                    .arg(reasonOf(e)),
                tr("Try again"), [this] { refresh(); });
        });
}

}  // namespace sparsight::ui
