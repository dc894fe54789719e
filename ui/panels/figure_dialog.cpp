#include "ui/panels/figure_dialog.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDialogButtonBox>
#include <QFileDialog>
#include <QFormLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>
#include <cmath>

#include "core/figures/map_figure.h"
#include "sessions/analysis.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

struct Preset {
    const char* name;
    double widthMm, heightMm;
};
constexpr Preset kPresets[] = {{"1 column, 85 mm", 85, 80},
                               {"2 columns, 178 mm", 178, 140},
                               {"Slide, 16:9", 254, 143},
                               {"Poster", 400, 320}};
constexpr int kPreviewWidth = 620, kPreviewHeight = 500;

}  // namespace

FigureDialog::FigureDialog(Document* document, Engine* engine, QWidget* parent)
    : QDialog(parent), m_document(document), m_engine(engine) {
    setObjectName(QStringLiteral("figureDialog"));
    setWindowTitle(tr("Export figure"));
    auto* row = new QHBoxLayout(this);
    row->setContentsMargins(16, 16, 16, 16);
    row->setSpacing(16);
    m_image = new QLabel(this);
    m_image->setObjectName(QStringLiteral("figurePreview"));
    m_image->setAccessibleName(tr("Preview"));
    m_image->setFixedSize(kPreviewWidth, kPreviewHeight);
    m_image->setAlignment(Qt::AlignCenter);
    row->addWidget(m_image);

    auto* column = new QVBoxLayout;
    auto* form = new QFormLayout;
    m_preset = new QComboBox(this);
    m_preset->setObjectName(QStringLiteral("figurePreset"));
    for (const Preset& p : kPresets) m_preset->addItem(tr(p.name));
    m_preset->setCurrentIndex(1);
    m_preset->setToolTip(tr("Paper size of the figure; type is at least 7 pt"));
    m_part = new QComboBox(this);
    m_part->setObjectName(QStringLiteral("figurePart"));
    m_part->addItems({tr("what the map shows"), tr("the whole map")});
    m_part->setToolTip(tr("Which queries and keys are drawn"));
    m_overlays = new QCheckBox(tr("visible mask layers"), this);
    m_overlays->setObjectName(QStringLiteral("figureOverlays"));
    m_overlays->setChecked(true);
    m_overlays->setToolTip(tr("Draws the mask layers that are switched on, with a legend"));
    m_dark = new QCheckBox(tr("light on dark"), this);
    m_dark->setObjectName(QStringLiteral("figureDark"));
    m_dark->setToolTip(tr("For slides with a dark background"));
    form->addRow(tr("Size"), m_preset);
    form->addRow(tr("Part"), m_part);
    form->addRow(QString(), m_overlays);
    form->addRow(QString(), m_dark);
    column->addLayout(form);
    m_status = new QLabel(this);
    m_status->setProperty("role", "muted");
    m_status->setWordWrap(true);
    m_status->setMinimumWidth(240);
    column->addWidget(m_status);
    column->addStretch();
    auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, this);
    auto* save = new QPushButton(tr("Save as…"), this);
    save->setObjectName(QStringLiteral("figureSave"));
    save->setToolTip(tr("PNG, SVG or PDF by the file's ending"));
    save->setProperty("role", "primary");
    buttons->addButton(save, QDialogButtonBox::AcceptRole);
    connect(buttons, &QDialogButtonBox::rejected, this, &QDialog::reject);
    connect(save, &QPushButton::clicked, this, [this] {
        const QString name = QStringLiteral("%1-L%2H%3.pdf")
                                 .arg(m_document->sessionName())
                                 .arg(m_document->layer())
                                 .arg(m_document->head());
        const QString file = QFileDialog::getSaveFileName(
            this, tr("Export figure"), name, tr("PDF (*.pdf);;SVG (*.svg);;PNG (*.png)"));
        if (!file.isEmpty()) exportTo(file);
    });
    column->addWidget(buttons);
    row->addLayout(column);

    connect(m_preset, &QComboBox::currentIndexChanged, this, &FigureDialog::preview);
    connect(m_dark, &QCheckBox::toggled, this, &FigureDialog::preview);
    connect(m_part, &QComboBox::currentIndexChanged, this, &FigureDialog::recompute);
    connect(m_overlays, &QCheckBox::toggled, this, &FigureDialog::recompute);
    recompute();
}

FigureSize FigureDialog::size() const {
    const Preset& p = kPresets[m_preset->currentIndex()];
    return {p.widthMm, p.heightMm, 300, m_dark->isChecked()};
}

void FigureDialog::recompute() {
    if (!m_document->isOpen() || m_document->head() < 0) {
        lose(tr("Open a capture and choose a head first."));
        return;
    }
    m_status->setText(tr("Drawing exact pixels …"));
    m_figure.reset();
    MapRequest request;
    const Index rows = m_document->rows(), keys = m_document->keys();
    MapRect view = m_document->view();
    if (m_part->currentIndex() == 1) view = {0, double(rows), 0, double(keys)};
    const auto bound = [](double v, Index n) {
        return std::clamp<Index>(Index(std::llround(v)), 0, n);
    };
    request.spec.q0 = bound(std::floor(view.q0), rows);
    request.spec.q1 = std::max(request.spec.q0 + 1, bound(std::ceil(view.q1), rows));
    request.spec.k0 = bound(std::floor(view.k0), keys);
    request.spec.k1 = std::max(request.spec.k0 + 1, bound(std::ceil(view.k1), keys));
    request.spec.width =
        std::min<Index>(1024, std::max<Index>(request.spec.k1 - request.spec.k0, 1));
    request.spec.height =
        std::min<Index>(1024, std::max<Index>(request.spec.q1 - request.spec.q0, 1));
    request.spec.statistic = m_document->style().pool;
    request.log = m_document->style().log;
    request.colours = m_document->style().colours;
    std::vector<std::string> colours;
    if (m_overlays->isChecked())
        for (const MaskLayer& layer : m_document->masks())
            if (layer.visible) {
                request.overlays.push_back(layer.spec);
                colours.push_back(layer.colour.name().toStdString());
            }
    const sessions::CaptureInfo& capture = m_document->capture();
    request.modelName = capture.modelName;
    request.promptName = capture.promptName;
    request.captureUuid = capture.uuid;
    request.headName = headName(capture.config, m_document->layer(), m_document->head());
    auto work = [session = m_document->session(), capture, request, colours,
                 facts = m_document->headFacts(), layer = m_document->layer(),
                 head = m_document->head(),
                 backend = m_engine->backend(Engine::Quick)](const Job& job) {
        const auto captured = sessions::readLayer(*session, capture, layer);
        auto figure = std::make_shared<MapFigure>(makeMapFigure(
            *backend, sessions::sessionHeadInput(captured, facts, head, *backend), request, job));
        for (std::size_t i = 0; i < colours.size(); ++i)
            figure->overlays[i].colour = parseColour(colours[i]);
        return std::shared_ptr<const MapFigure>(figure);
    };
    m_engine->run(Engine::Quick, QStringLiteral("figure"), std::move(work))
        .then(this,
              [this](std::shared_ptr<const MapFigure> figure) {
                  m_figure = std::move(figure);
                  preview();
                  if (!m_waitingFile.isEmpty()) exportTo(std::exchange(m_waitingFile, {}));
              })
        .onFailed(this, [this](const std::exception& e) { lose(QString::fromUtf8(e.what())); });
}

void FigureDialog::lose(const QString& sentence) {
    m_figure.reset();
    m_image->clear();  // an older figure must not pass for this one
    m_status->setText(sentence);
    if (std::exchange(m_waitingFile, {}).isEmpty()) return;
    emit failed(sentence);
}

void FigureDialog::preview() {
    if (!m_figure) return;
    const FigureSize paper = size();
    const double scale = std::min(kPreviewWidth / paper.widthMm, kPreviewHeight / paper.heightMm);
    const Index w = Index(paper.widthMm * scale), h = Index(paper.heightMm * scale);
    m_engine
        ->run(Engine::Quick, QStringLiteral("figurePreview"),
              [figure = m_figure, paper, w, h](const Job&) {
                  const auto pixels = previewFigure(*figure, paper, w, h);
                  return QImage(reinterpret_cast<const uchar*>(pixels.data()), int(w), int(h),
                                int(w * 4), QImage::Format_ARGB32)
                      .copy();
              })
        .then(this,
              [this, paper](const QImage& image) {
                  m_image->setPixmap(QPixmap::fromImage(image));
                  m_status->setText(tr("%1 × %2 mm, map of %3 × %4 exact pixels")
                                        .arg(paper.widthMm)
                                        .arg(paper.heightMm)
                                        .arg(m_figure->width)
                                        .arg(m_figure->height));
              })
        .onFailed(this, [this](const std::exception& e) { lose(QString::fromUtf8(e.what())); });
}

void FigureDialog::exportTo(const QString& file) {
    if (!m_figure) {  // its pixels are still under way
        m_waitingFile = file;
        return;
    }
    m_engine
        ->run(Engine::Quick, QStringLiteral("figureWrite"),
              [figure = m_figure, file, paper = size()](const Job&) {
                  writeFigure(*figure, std::filesystem::path(file.toStdString()), paper);
              })
        .then(this,
              [this, file] {
                  m_status->setText(tr("Wrote %1").arg(file));
                  emit exported(file);
              })
        .onFailed(this, [this](const std::exception& e) {
            m_status->setText(QString::fromUtf8(e.what()));
            emit failed(QString::fromUtf8(e.what()));
        });
}

}  // namespace sparsight::ui
