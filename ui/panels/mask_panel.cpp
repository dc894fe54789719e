#include "ui/panels/mask_panel.h"

#include <QCheckBox>
#include <QColorDialog>
#include <QGridLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QPainter>
#include <QPushButton>
#include <QSlider>
#include <QStyle>
#include <QToolButton>
#include <QVBoxLayout>

#include "ui/document.h"
#include "ui/panels/param_editor.h"

namespace sparsight::ui {
namespace {

QIcon swatch(const QColor& colour) {
    QPixmap pixmap(28, 28);
    pixmap.fill(Qt::transparent);
    QPainter painter(&pixmap);
    painter.setRenderHint(QPainter::Antialiasing);
    painter.setPen(Qt::NoPen);
    painter.setBrush(colour);
    painter.drawRoundedRect(2, 2, 24, 24, 6, 6);
    return QIcon(pixmap);
}

QString percent(double share) {
    return QString::number(100 * share, 'f', share < 0.0995 ? 2 : 1) + QStringLiteral(" %");
}

/// A card with a large number and what it is.
QLabel* addCard(QHBoxLayout* row, const QString& name, const QString& objectName, const QString& help) {
    auto* card = new QFrame;
    card->setProperty("role", "card");
    card->setToolTip(help);
    auto* column = new QVBoxLayout(card);
    column->setContentsMargins(8, 6, 8, 6);
    column->setSpacing(1);
    auto* value = new QLabel(QStringLiteral("–"), card);
    value->setObjectName(objectName);
    value->setAccessibleName(name);
    value->setProperty("role", "figure");
    auto* label = new QLabel(name, card);
    label->setProperty("role", "muted");
    label->setWordWrap(true);
    column->addWidget(value);
    column->addWidget(label);
    row->addWidget(card, 1);
    return value;
}

}  // namespace

MaskPanel::MaskPanel(Document* document, Engine*, QWidget* parent) : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("maskPanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 8, 12, 8);
    column->setSpacing(8);

    m_grid = new QGridLayout;
    m_grid->setContentsMargins(0, 0, 0, 0);
    m_grid->setHorizontalSpacing(6);
    m_grid->setVerticalSpacing(2);
    m_grid->setColumnStretch(2, 1);
    column->addLayout(m_grid);

    m_lost = new QCheckBox(tr("lost mass of the active mask"), this);
    m_lost->setObjectName(QStringLiteral("lostMass"));
    m_lost->setToolTip(tr("Paints the probability that the active mask drops, in the lost colour"));
    connect(m_lost, &QCheckBox::toggled, this, [this](bool on) {
        MapStyle style = m_document->style();
        style.showLost = on;
        m_document->setStyle(style);
    });

    auto* buttons = new QHBoxLayout;
    m_add = new QToolButton(this);
    m_add->setObjectName(QStringLiteral("addMask"));
    m_add->setText(tr("Add mask"));
    m_add->setPopupMode(QToolButton::InstantPopup);
    auto* menu = new QMenu(m_add);
    for (const Method& m : methods()) {
        const QString id = QString::fromUtf8(m.id.data(), qsizetype(m.id.size()));
        QAction* action = menu->addAction(QString::fromUtf8(m.title.data(), qsizetype(m.title.size())));
        action->setToolTip(QString::fromUtf8(m.summary.data(), qsizetype(m.summary.size())));
        connect(action, &QAction::triggered, this, [this, id] { addMask(id); });
    }
    menu->setToolTipsVisible(true);
    m_add->setMenu(menu);
    m_remove = new QToolButton(this);
    m_remove->setObjectName(QStringLiteral("removeMask"));
    m_remove->setText(tr("Remove"));
    m_remove->setToolTip(tr("Removes the active mask layer"));
    connect(m_remove, &QToolButton::clicked, this, &MaskPanel::removeActive);
    buttons->addWidget(m_lost);
    buttons->addStretch();
    buttons->addWidget(m_add);
    buttons->addWidget(m_remove);
    column->addLayout(buttons);

    auto* cards = new QHBoxLayout;
    cards->setSpacing(6);
    m_recall = addCard(cards, tr("recall, mean"), QStringLiteral("cardRecall"),
                       tr("Exact recall: probability that the token-exact mask keeps, mean over all rows (0 to 1, higher is better)"));
    m_worst = addCard(cards, tr("recall, worst row"), QStringLiteral("cardWorst"),
                      tr("Smallest exact recall of a row (0 to 1)"));
    m_needle = addCard(cards, tr("needle recall"), QStringLiteral("cardNeedle"),
                       tr("Of the mass that the answer's rows put on the needle, the share that the mask keeps (0 to 1)"));
    m_tiles = addCard(cards, tr("tiles executed"), QStringLiteral("cardDensity"),
                      tr("Density: executed tile area / tile area of dense attention (lower is cheaper)"));
    column->addLayout(cards);

    auto* head = new QHBoxLayout;
    m_methodTitle = new QLabel(this);
    m_methodTitle->setProperty("role", "title");
    m_source = new QLabel(this);
    m_source->setProperty("role", "muted");
    head->addWidget(m_methodTitle);
    head->addStretch();
    head->addWidget(m_source);
    column->addLayout(head);
    m_params = new ParamEditor(this);
    column->addWidget(m_params);

    auto* opacityRow = new QHBoxLayout;
    auto* opacityLabel = new QLabel(tr("overlay opacity"), this);
    opacityLabel->setProperty("role", "muted");
    m_opacity = new QSlider(Qt::Horizontal, this);
    m_opacity->setObjectName(QStringLiteral("maskOpacity"));
    m_opacity->setAccessibleName(tr("Overlay opacity"));
    m_opacity->setRange(5, 100);
    m_opacity->setToolTip(tr("How strongly the active mask covers the map"));
    opacityRow->addWidget(opacityLabel);
    opacityRow->addWidget(m_opacity, 1);
    column->addLayout(opacityRow);
    connect(m_opacity, &QSlider::valueChanged, this, [this](int v) {
        const int active = m_document->activeMask();
        if (active >= 0) m_document->setMaskStyle(active, m_document->masks()[std::size_t(active)].colour, v / 100.0);
    });

    m_note = new QLabel(this);
    m_note->setProperty("role", "muted");
    m_note->setWordWrap(true);
    column->addWidget(m_note);
    column->addStretch();

    connect(m_params, &ParamEditor::edited, this, [this](const MethodSpec& spec) {
        const int active = m_document->activeMask();
        if (active >= 0) m_document->setMaskSpec(active, spec);
    });
    connect(m_document, &Document::masksChanged, this, &MaskPanel::rebuild);
    connect(m_document, &Document::maskSpecChanged, this, &MaskPanel::refreshActive);
    connect(m_document, &Document::metricsChanged, this, &MaskPanel::refreshNumbers);
    connect(m_document, &Document::headChanged, this, &MaskPanel::refreshNumbers);
    connect(m_document, &Document::captureChanged, this, &MaskPanel::rebuild);
    connect(m_document, &Document::styleChanged, this, [this] {
        const QSignalBlocker block(m_lost);
        m_lost->setChecked(m_document->style().showLost);
    });
    rebuild();
}

void MaskPanel::rebuild() {
    const auto& masks = m_document->masks();
    if (m_rows.size() != masks.size()) {
        while (QLayoutItem* item = m_grid->takeAt(0)) {
            if (item->widget()) item->widget()->deleteLater();
            delete item;
        }
        m_rows.clear();
        const char* heads[] = {"", "", "mask", "recall", "density"};
        for (int c = 3; c < 5; ++c) {
            auto* label = new QLabel(tr(heads[c]), this);
            label->setProperty("role", "muted");
            label->setAlignment(Qt::AlignRight);
            m_grid->addWidget(label, 0, c);
        }
        for (int i = 0; i < int(masks.size()); ++i) {
            Row row{};
            row.visible = new QCheckBox(this);
            row.visible->setObjectName(QStringLiteral("maskVisible%1").arg(i));
            row.visible->setAccessibleName(tr("Show mask %1").arg(i + 1));
            row.visible->setToolTip(tr("Show on the map (key %1)").arg(i + 1));
            row.colour = new QToolButton(this);
            row.colour->setAutoRaise(true);
            row.colour->setFixedSize(24, 24);
            row.colour->setObjectName(QStringLiteral("maskColour%1").arg(i));
            row.colour->setToolTip(tr("Colour of the overlay"));
            row.name = new QPushButton(this);
            row.name->setCheckable(true);
            row.name->setObjectName(QStringLiteral("maskRow%1").arg(i));
            row.name->setProperty("role", "row");
            row.name->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
            row.name->setMinimumHeight(26);
            row.recall = new QLabel(this);
            row.recall->setObjectName(QStringLiteral("maskRecall%1").arg(i));
            row.density = new QLabel(this);
            row.density->setObjectName(QStringLiteral("maskDensity%1").arg(i));
            for (QLabel* label : {row.recall, row.density}) {
                label->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
                label->setMinimumWidth(52);
            }
            m_grid->addWidget(row.visible, i + 1, 0);
            m_grid->addWidget(row.colour, i + 1, 1);
            m_grid->addWidget(row.name, i + 1, 2);
            m_grid->addWidget(row.recall, i + 1, 3);
            m_grid->addWidget(row.density, i + 1, 4);
            connect(row.visible, &QCheckBox::toggled, this, [this, i](bool on) { m_document->setMaskVisible(i, on); });
            connect(row.name, &QPushButton::clicked, this, [this, i] {
                m_document->setActiveMask(i);
                rebuild();
            });
            connect(row.colour, &QToolButton::clicked, this, [this, i] {
                const MaskLayer layer = m_document->masks()[std::size_t(i)];
                const QColor chosen = QColorDialog::getColor(layer.colour, this, tr("Overlay colour"));
                if (chosen.isValid()) m_document->setMaskStyle(i, chosen, layer.opacity);
            });
            m_rows.push_back(row);
        }
    }
    for (std::size_t i = 0; i < masks.size(); ++i) {
        const QSignalBlocker block(m_rows[i].visible);
        m_rows[i].visible->setChecked(masks[i].visible);
        m_rows[i].colour->setIcon(swatch(masks[i].colour));
        m_rows[i].name->setText(QString::fromStdString(masks[i].spec.id));
        m_rows[i].name->setToolTip(QString::fromStdString(toString(masks[i].spec)));
        m_rows[i].name->setChecked(int(i) == m_document->activeMask());
    }
    refreshActive();
}

void MaskPanel::refreshActive() {
    const int active = m_document->activeMask();
    const bool any = active >= 0;
    for (QWidget* w : std::initializer_list<QWidget*>{m_params, m_opacity, m_remove, m_lost}) w->setEnabled(any);
    m_add->setToolTip(m_document->isOpen() ? tr("Lays another candidate mask over the map")
                                           : tr("Open a capture first"));
    m_add->setEnabled(m_document->isOpen());
    if (any) {
        const MaskLayer& layer = m_document->masks()[std::size_t(active)];
        const Method& m = method(layer.spec.id);
        m_methodTitle->setText(QString::fromUtf8(m.title.data(), qsizetype(m.title.size())));
        m_source->setText(QString::fromUtf8(m.source.data(), qsizetype(m.source.size())));
        m_methodTitle->setToolTip(QString::fromUtf8(m.summary.data(), qsizetype(m.summary.size())));
        m_params->setVisible(true);
        m_params->setSpec(layer.spec, m_document->tokens());
        const QSignalBlocker block(m_opacity);
        m_opacity->setValue(int(layer.opacity * 100 + 0.5));
        m_note->setText(m.decodes ? QString() : tr("%1 has no rule for decode steps: they run dense.").arg(QString::fromStdString(layer.spec.id)));
    } else {
        m_methodTitle->setText(tr("No mask layer"));
        m_source->clear();
        m_params->setVisible(false);
        m_note->setText(m_document->isOpen() ? tr("Press “Add mask” to lay a candidate over the map.")
                                             : tr("Open a session or capture a prompt to begin."));
    }
    m_note->setVisible(!m_note->text().isEmpty());
    refreshNumbers();
}

void MaskPanel::refreshNumbers() {
    const int active = m_document->activeMask();
    for (std::size_t i = 0; i < m_rows.size(); ++i) {
        const auto metrics = m_document->metrics(int(i));
        m_rows[i].recall->setText(metrics ? QString::number(metrics->recall, 'f', 3) : QStringLiteral("…"));
        m_rows[i].density->setText(metrics ? percent(metrics->density) : QStringLiteral("…"));
        if (metrics)
            m_rows[i].density->setToolTip(tr("coverage %1, %2 tiles").arg(percent(metrics->coverage)).arg(metrics->tiles));
    }
    const auto metrics = active >= 0 ? m_document->metrics(active) : nullptr;
    const auto set = [](QLabel* label, const QString& text, bool warn = false) {
        label->setText(text);
        if (label->property("warn").toBool() == warn) return;
        label->setProperty("warn", warn);
        label->style()->unpolish(label);
        label->style()->polish(label);
    };
    if (!metrics) {
        for (QLabel* label : {m_recall, m_worst, m_tiles, m_needle}) set(label, QStringLiteral("–"));
        return;
    }
    set(m_recall, QString::number(metrics->recall, 'f', 3));
    set(m_worst, QString::number(metrics->recallMin, 'f', 3), metrics->recallMin < 0.5);
    set(m_needle, metrics->needleRecall ? QString::number(*metrics->needleRecall, 'f', 3) : QStringLiteral("–"),
        metrics->needleRecall && *metrics->needleRecall < 0.5);
    set(m_tiles, percent(metrics->density));
}

void MaskPanel::addMask(const QString& id) {
    auto masks = m_document->masks();
    const Method& m = method(id.toStdString());
    MaskLayer layer;
    layer.spec = {std::string(m.id), {}};
    layer.colour = QColor(QString::fromUtf8(m.colour.data(), qsizetype(m.colour.size())));
    masks.push_back(layer);
    m_document->setMasks(masks);
    m_document->setActiveMask(int(masks.size()) - 1);
}

void MaskPanel::removeActive() {
    auto masks = m_document->masks();
    const int active = m_document->activeMask();
    if (active < 0) return;
    masks.erase(masks.begin() + active);
    m_document->setMasks(masks);
    m_document->setActiveMask(std::min(active, int(masks.size()) - 1));
}

}  // namespace sparsight::ui
