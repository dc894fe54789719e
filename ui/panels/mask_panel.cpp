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
#include <QToolButton>
#include <QVBoxLayout>

#include "ui/document.h"
#include "ui/panels/panel_parts.h"
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

/// A card with a large number and what it is.
QLabel* addCard(QHBoxLayout* row, const QString& name, const QString& objectName,
                const QString& help) {
    auto* card = new QFrame;
    card->setProperty("role", "card");
    card->setToolTip(help);
    auto* column = new QVBoxLayout(card);
    column->setContentsMargins(8, 4, 4, 5);
    column->setSpacing(0);
    auto* value = new QLabel(QStringLiteral("–"), card);
    value->setObjectName(objectName);
    value->setAccessibleName(name);
    value->setProperty("role", "figure");
    column->addWidget(value);
    column->addWidget(mutedLabel(name, card));
    row->addWidget(card, 1);
    return value;
}

}  // namespace

MaskPanel::MaskPanel(Document* document, Engine*, QWidget* parent)
    : QWidget(parent), m_document(document) {
    setObjectName(QStringLiteral("maskPanel"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(12, 0, 12, 8);
    column->setSpacing(6);

    m_tools = new QWidget(this);
    auto* tools = new QHBoxLayout(m_tools);
    tools->setContentsMargins(0, 0, 6, 0);
    tools->setSpacing(2);
    column->addWidget(m_tools);
    m_grid = new QGridLayout;
    m_grid->setContentsMargins(0, 0, 0, 0);
    m_grid->setHorizontalSpacing(6);
    m_grid->setVerticalSpacing(0);
    m_grid->setColumnStretch(2, 1);
    column->addLayout(m_grid);

    m_lost = new QCheckBox(tr("lost mass"), this);
    m_lost->setObjectName(QStringLiteral("lostMass"));
    m_lost->setToolTip(
        tr("Paints the probability that the active mask drops, in the lost colour  (X); default: "
           "off"));
    connect(m_lost, &QCheckBox::toggled, this, [this](bool on) {
        MapStyle style = m_document->style();
        style.showLost = on;
        m_document->setStyle(style);
    });

    m_add = new QToolButton(m_tools);
    m_add->setObjectName(QStringLiteral("addMask"));
    m_add->setText(tr("Add"));
    m_add->setAccessibleName(tr("Add mask"));
    m_add->setPopupMode(QToolButton::InstantPopup);
    auto* menu = new QMenu(m_add);
    for (const Method& m : methods()) {
        const QString id = QString::fromUtf8(m.id.data(), qsizetype(m.id.size()));
        QAction* action =
            menu->addAction(QString::fromUtf8(m.title.data(), qsizetype(m.title.size())));
        action->setToolTip(QString::fromUtf8(m.summary.data(), qsizetype(m.summary.size())));
        connect(action, &QAction::triggered, this,
                [this, id] { m_document->addMask(maskLayer(id.toStdString())); });
    }
    menu->setToolTipsVisible(true);
    m_add->setMenu(menu);
    m_remove = new QToolButton(m_tools);
    m_remove->setObjectName(QStringLiteral("removeMask"));
    m_remove->setText(tr("Remove"));
    m_remove->setAccessibleName(tr("Remove mask"));
    m_remove->setToolTip(tr("Removes the active mask layer"));
    connect(m_remove, &QToolButton::clicked, m_document, &Document::removeActiveMask);
    tools->addStretch();
    tools->addWidget(m_add);
    tools->addWidget(m_remove);
    auto* look = new QHBoxLayout;
    look->setSpacing(8);
    look->addWidget(m_lost);
    look->addStretch();
    look->addWidget(mutedLabel(tr("opacity"), this));
    m_opacity = new QSlider(Qt::Horizontal, this);
    m_opacity->setObjectName(QStringLiteral("maskOpacity"));
    m_opacity->setAccessibleName(tr("Overlay opacity"));
    m_opacity->setRange(5, 100);
    m_opacity->setFixedWidth(90);
    m_opacity->setToolTip(
        tr("How strongly the active mask covers the map, 5 to 100 %; default: 45 %"));
    look->addWidget(m_opacity);
    column->addLayout(look);

    auto* cards = new QHBoxLayout;
    cards->setSpacing(6);
    m_recall = addCard(cards, tr("mean recall"), QStringLiteral("cardRecall"),
                       tr("Exact recall: probability that the token-exact mask keeps, mean over "
                          "all rows (0 to 1, higher is better)"));
    m_worst = addCard(cards, tr("worst row"), QStringLiteral("cardWorst"),
                      tr("Smallest exact recall of a row (0 to 1)"));
    m_needle = addCard(cards, tr("needle"), QStringLiteral("cardNeedle"),
                       tr("Of the mass that the answer's rows put on the needle, the share that "
                          "the mask keeps (0 to 1)"));
    m_tiles = addCard(
        cards, tr("tiles run"), QStringLiteral("cardDensity"),
        tr("Density: executed tile area / tile area of dense attention (lower is cheaper)"));
    column->addLayout(cards);
    m_overlap = mutedLabel({}, this);
    m_overlap->setObjectName(QStringLiteral("topOverlap"));
    m_overlap->setAccessibleName(tr("Top keys kept"));
    m_overlap->setToolTip(
        tr("Of the 1, 16 and 64 largest probabilities of a row, the share whose "
           "keys the mask keeps, mean over all rows. For captures that store "
           "the top keys"));
    m_overlap->hide();
    column->addWidget(m_overlap);

    auto* head = new QHBoxLayout;
    m_methodTitle = new QLabel(this);
    m_methodTitle->setProperty("role", "title");
    m_source = mutedLabel({}, this);
    head->addWidget(m_methodTitle);
    head->addStretch();
    head->addWidget(m_source);
    column->addLayout(head);
    m_params = new ParamEditor(this);
    column->addWidget(m_params);

    connect(m_opacity, &QSlider::valueChanged, this, [this](int v) {
        const int active = m_document->activeMask();
        if (active >= 0)
            m_document->setMaskStyle(active, m_document->masks()[std::size_t(active)].colour,
                                     v / 100.0);
    });

    m_note = mutedLabel({}, this);
    m_note->setObjectName(QStringLiteral("maskNote"));
    m_note->setWordWrap(true);
    column->addWidget(m_note);
    column->addStretch();

    connect(m_params, &ParamEditor::edited, this, [this](const MethodSpec& spec) {
        const int active = m_document->activeMask();
        if (active >= 0) m_document->setMaskSpec(active, spec);
    });
    connect(m_document, &Document::masksChanged, this, &MaskPanel::rebuild);
    connect(m_document, &Document::maskSpecChanged, this, [this](int index) {
        m_rows[std::size_t(index)].name->setToolTip(
            QString::fromStdString(toString(m_document->masks()[std::size_t(index)].spec)));
        refreshActive();
    });
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
            auto* label = mutedLabel(tr(heads[c]), this);
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
            row.colour->setAccessibleName(tr("Colour of mask %1").arg(i + 1));
            row.name = new QPushButton(this);
            row.name->setCheckable(true);
            row.name->setObjectName(QStringLiteral("maskRow%1").arg(i));
            row.name->setProperty("role", "row");
            row.name->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
            row.name->setMinimumHeight(24);
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
            connect(row.visible, &QCheckBox::toggled, this,
                    [this, i](bool on) { m_document->setMaskVisible(i, on); });
            connect(row.name, &QPushButton::clicked, this, [this, i] {
                m_document->setActiveMask(i);
                rebuild();
            });
            connect(row.colour, &QToolButton::clicked, this, [this, i] {
                const MaskLayer layer = m_document->masks()[std::size_t(i)];
                const QColor chosen =
                    QColorDialog::getColor(layer.colour, this, tr("Overlay colour"));
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
    orderTabs();
}

void MaskPanel::orderTabs() {
    if (m_remove->window() != window()) return;
    QWidget* last = m_remove;
    const auto next = [&last](QWidget* widget) {
        setTabOrder(last, widget);
        last = widget;
    };
    for (const Row& row : m_rows)
        for (QWidget* widget : std::initializer_list<QWidget*>{row.visible, row.colour, row.name})
            next(widget);
    next(m_lost);
    next(m_opacity);
    for (QWidget* widget : m_params->findChildren<QWidget*>())
        if (widget->focusPolicy() & Qt::TabFocus) next(widget);
}

void MaskPanel::showEvent(QShowEvent* event) {
    QWidget::showEvent(event);
    orderTabs();  // its buttons have their place in the title line by now
}

void MaskPanel::refreshActive() {
    const int active = m_document->activeMask();
    const bool any = active >= 0;
    for (QWidget* w : std::initializer_list<QWidget*>{m_params, m_opacity, m_remove, m_lost})
        w->setEnabled(any);
    m_add->setToolTip(m_document->isOpen() ? tr("Lays another candidate mask over the map")
                                           : tr("Open a capture first"));
    m_add->setEnabled(m_document->isOpen());
    if (any) {
        const MaskLayer& layer = m_document->masks()[std::size_t(active)];
        const Method& m = method(layer.spec.id);
        m_methodTitle->setText(QString::fromUtf8(m.title.data(), qsizetype(m.title.size())));
        const QString source = QString::fromUtf8(m.source.data(), qsizetype(m.source.size()));
        m_source->setText(m.decodes ? source : tr("%1 · decodes dense").arg(source));
        m_source->setToolTip(m.decodes
                                 ? tr("Where the method comes from")
                                 : tr("The method has no rule for decode steps: they run dense"));
        m_methodTitle->setToolTip(QString::fromUtf8(m.summary.data(), qsizetype(m.summary.size())));
        m_params->setVisible(true);
        m_params->setSpec(layer.spec, m_document->tokens());
        const QSignalBlocker block(m_opacity);
        m_opacity->setValue(int(layer.opacity * 100 + 0.5));
    } else {
        m_methodTitle->setText(tr("No mask layer"));
        m_source->clear();
        m_params->setVisible(false);
        m_note->setText(m_document->isOpen() ? tr("Press “Add” to lay a candidate over the map.")
                                             : tr("Open a session or capture a prompt to begin."));
    }
    m_note->setVisible(!m_note->text().isEmpty());
    refreshNumbers();
}

QString MaskPanel::note() const {
    const int active = m_document->activeMask();
    if (const QString failure = m_document->maskFailure(active); !failure.isEmpty()) return failure;
    if (!m_document->isOpen()) return tr("Open a session or capture a prompt to begin.");
    if (active < 0) return tr("Press “Add” to lay a candidate over the map.");
    return {};
}

void MaskPanel::refreshNumbers() {
    const auto show = [](QLabel* label, const QString& text, bool stale, bool warn = false) {
        label->setText(text);
        setLook(label, "stale", stale);
        setLook(label, "warn", warn && !stale);
    };
    const auto three = [](double value) { return QString::number(value, 'f', 3); };
    for (int i = 0; i < int(m_rows.size()); ++i) {
        const Row& row = m_rows[std::size_t(i)];
        const auto metrics = m_document->metrics(i);
        const QString failure = m_document->maskFailure(i);
        const QString none = failure.isEmpty() ? QStringLiteral("…") : tr("failed");
        const bool stale = m_document->metricsStale(i);
        // Until the rule is measured, what the stored statistics say of it stands in its place.
        if (const auto estimate = m_document->estimate(i)) {
            show(row.recall, tr("≈ %1").arg(three(estimate->recall)), false);
            show(row.density, percent(estimate->density), false);
            row.recall->setToolTip(tr("Estimated from the stored statistics; being measured"));
            row.density->setToolTip({});
            continue;
        }
        show(row.recall, metrics ? three(metrics->recall) : none, stale, !failure.isEmpty());
        show(row.density,
             metrics ? percent(metrics->density) : QString(failure.isEmpty() ? none : QString()),
             stale);
        row.recall->setToolTip(failure);
        row.density->setToolTip(
            metrics
                ? tr("coverage %1, %2 tiles").arg(percent(metrics->coverage)).arg(metrics->tiles)
                : failure);
    }
    const int active = m_document->activeMask();
    const auto metrics = m_document->metrics(active);
    const bool stale = m_document->metricsStale(active);
    const auto card = [&](QLabel* label, std::optional<double> value, bool share, bool warn) {
        show(label,
             !value  ? QStringLiteral("–")
             : share ? percent(*value)
                     : three(*value),
             stale, value && warn && *value < 0.5);
    };
    using Value = std::optional<double>;
    const auto estimate = m_document->estimate(active);
    if (estimate)
        show(m_recall, tr("≈ %1").arg(three(estimate->recall)), false);
    else
        card(m_recall, metrics ? Value(metrics->recall) : Value(), false, false);
    card(m_worst, metrics ? Value(metrics->recallMin) : Value(), false, true);
    card(m_needle, metrics ? metrics->needleRecall : Value(), false, true);
    if (estimate)
        show(m_tiles, percent(estimate->density), false);
    else
        card(m_tiles, metrics ? Value(metrics->density) : Value(), true, false);
    const bool overlap = metrics && metrics->topOverlap;
    if (overlap)
        show(m_overlap,
             tr("top keys kept: %1 of 1 · %2 of 16 · %3 of 64")
                 .arg(percent((*metrics->topOverlap)[0]), percent((*metrics->topOverlap)[1]),
                      percent((*metrics->topOverlap)[2])),
             stale);
    m_overlap->setVisible(overlap);
    m_note->setText(note());
    m_note->setVisible(!m_note->text().isEmpty());
    setLook(m_note, "warn", !m_document->maskFailure(active).isEmpty());
}

}  // namespace sparsight::ui
