#include "ui/panels/top_keys_list.h"

#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QTreeWidget>
#include <QVBoxLayout>

#include "ui/document.h"
#include "ui/engine.h"
#include "ui/map/head_data.h"
#include "ui/map/map_paint.h"
#include "ui/panels/panel_parts.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

const QString kTag = QStringLiteral("topKeys");
enum Column { Rank, Key, Token, Probability, Cumulative };

}  // namespace

TopKeysList::TopKeysList(Document* document, Engine* engine, QWidget* parent)
    : QWidget(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("topKeys"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 0, 12, 8);
    column->setSpacing(4);
    auto* top = new QHBoxLayout;
    m_title = new QLabel(this);
    m_title->setObjectName(QStringLiteral("topKeysTitle"));
    m_title->setProperty("role", "strong");
    m_origin = mutedLabel({}, this);
    m_origin->setObjectName(QStringLiteral("topKeysOrigin"));
    top->addWidget(m_title);
    top->addStretch();
    top->addWidget(m_origin);
    column->addLayout(top);
    m_list = new QTreeWidget(this);
    m_list->setObjectName(QStringLiteral("topKeysList"));
    m_list->setAccessibleName(tr("Keys that the row reads most"));
    m_list->setHeaderLabels({tr("#"), tr("key"), tr("token"), tr("prob."), tr("sum")});
    m_list->headerItem()->setToolTip(Probability, tr("Probability of the key (0 to 1)"));
    m_list->headerItem()->setToolTip(Cumulative,
                                     tr("Sum of the probabilities down to this one (0 to 1)"));
    m_list->setRootIsDecorated(false);
    m_list->setUniformRowHeights(true);
    m_list->setAllColumnsShowFocus(true);
    m_list->header()->setStretchLastSection(false);
    m_list->header()->setSectionResizeMode(QHeaderView::ResizeToContents);
    m_list->header()->setSectionResizeMode(Token, QHeaderView::Stretch);
    for (const Column c : {Rank, Key, Probability, Cumulative})
        m_list->headerItem()->setTextAlignment(c, Qt::AlignRight | Qt::AlignVCenter);
    column->addWidget(m_list);
    connect(m_list, &QTreeWidget::itemClicked, this, [this](const QTreeWidgetItem* item) {
        m_document->selectKey(item->data(Key, Qt::UserRole).toLongLong());
    });
    for (const auto change :
         {&Document::headChanged, &Document::queryChanged, &Document::captureChanged})
        connect(m_document, change, this, &TopKeysList::request);
    request();
}

void TopKeysList::clear(const QString& sentence) {
    m_list->clear();
    m_title->setText(sentence);
    m_origin->clear();
}

void TopKeysList::request() {
    const HeadRef head = selectedHead(*m_document);
    const Index row = m_document->query();
    if (!head.valid() || row < 0 || row >= m_document->rows()) {
        m_engine->stop(kTag);
        clear(m_document->isOpen() ? tr("Click a row for its top keys") : QString());
        return;
    }
    auto work = [head, row](const Job&) {
        return sessions::sessionTopRow(*head.session, *head.capture, head.layer, head.head, row,
                                       kTopKeys);
    };
    const auto current = [this, head, row] {
        return head.session == m_document->session() && head.layer == m_document->layer() &&
               head.head == m_document->head() && row == m_document->query() &&
               head.capture->uuid == m_document->capture().uuid;
    };
    m_engine->run(Engine::Quick, kTag, std::move(work))
        .then(this,
              [this, row, current](const sessions::TopRow& found) {
                  if (current()) fill(row, found);
              })
        .onFailed(this, [this, current](const std::exception& e) {
            if (current()) clear(QString::fromUtf8(e.what()));
        });
}

void TopKeysList::fill(Index row, const sessions::TopRow& found) {
    m_title->setText(tr("Top keys of row %1").arg(thousands(row)));
    m_origin->setText(found.stored ? tr("stored") : tr("computed"));
    m_list->clear();
    QList<QTreeWidgetItem*> items;
    double sum = 0;
    for (std::size_t i = 0; i < found.top.key.size(); ++i) {
        const Index key = found.top.key[i];
        const double p = double(found.top.p[i]);
        sum += p;
        auto* item = new QTreeWidgetItem(
            {QString::number(i + 1), thousands(key), visibleToken(m_document->keyText(key)),
             QString::number(p, 'f', 4), QString::number(sum, 'f', 4)});
        item->setData(Key, Qt::UserRole, qlonglong(key));
        for (const Column c : {Rank, Key, Probability, Cumulative})
            item->setTextAlignment(c, Qt::AlignRight | Qt::AlignVCenter);
        items << item;
    }
    m_list->addTopLevelItems(items);
}

}  // namespace sparsight::ui
