#include "ui/shell/capture_dialog.h"

#include <QCheckBox>
#include <QComboBox>
#include <QDir>
#include <QDoubleSpinBox>
#include <QFile>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QLabel>
#include <QLineEdit>
#include <QPlainTextEdit>
#include <QPushButton>
#include <QSpinBox>
#include <QTabWidget>
#include <QVBoxLayout>

#include "ui/engine.h"
#include "ui/shell/job_footer.h"
#include "ui/shell/jobs_panel.h"
#include "ui/shell/recent.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr qint64 kMostTextBytes = 16 << 20;
const QString kEstimateTag = QStringLiteral("promptFacts"), kCaptureTag = QStringLiteral("capture");

/// Directories below resources/models, by name.
QStringList bundledModels() {
    try {
        return QDir(QString::fromStdString((resourcesDirectory() / "models").string()))
            .entryList(QDir::Dirs | QDir::NoDotAndDotDot);
    } catch (const std::exception&) {
        return {};  // an installation without resources still opens models by path
    }
}

constexpr int kLabelWidth = 64, kLabelSpace = 10;
constexpr int kFieldIndent = kLabelWidth + kLabelSpace;

/// The label of a field; in the forms of the dialog the fields begin at one line.
QLabel* rowLabel(const QString& text, QWidget* parent) {
    auto* label = new QLabel(text, parent);
    label->setMinimumWidth(kLabelWidth);
    return label;
}

QFormLayout* newForm(QWidget* parent = nullptr) {
    auto* form = new QFormLayout(parent);
    form->setHorizontalSpacing(kLabelSpace);
    form->setLabelAlignment(Qt::AlignVCenter);
    return form;
}

template <class W>
W* named(W* widget, const char* objectName, const QString& name, const QString& help) {
    widget->setObjectName(QLatin1String(objectName));
    widget->setAccessibleName(name);
    widget->setToolTip(help);
    return widget;
}

}  // namespace

CaptureDialog::CaptureDialog(Engine* engine, const QString& folder, quint64 seed, QWidget* parent)
    : QDialog(parent), m_engine(engine), m_folder(folder) {
    setObjectName(QStringLiteral("captureDialog"));
    setWindowTitle(tr("New capture"));
    resize(720, 620);
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(16, 16, 16, 16);
    column->setSpacing(12);
    m_form = new QWidget(this);
    auto* inner = new QVBoxLayout(m_form);
    inner->setContentsMargins(0, 0, 0, 0);
    inner->setSpacing(10);

    auto* top = newForm();
    auto* modelRow = new QHBoxLayout;
    m_model = named(
        new QComboBox(m_form), "captureModel", tr("Model"),
        tr("A bundled model, or a directory with config.json, tokenizer.json and safetensors"));
    m_model->setEditable(true);
    m_model->addItems(bundledModels());
    auto* browse = named(new QPushButton(tr("Browse…"), m_form), "captureModelBrowse",
                         tr("Browse for a model"), tr("Choose a model's directory"));
    modelRow->addWidget(m_model, 1);
    modelRow->addWidget(browse);
    top->addRow(rowLabel(tr("Model"), m_form), modelRow);
    m_modelFacts = named(new QLabel(m_form), "captureModelFacts", tr("About the model"),
                         tr("From the headers of its files; weights are not read"));
    m_modelFacts->setProperty("role", "muted");
    m_modelFacts->setWordWrap(true);
    m_modelFacts->setContentsMargins(kFieldIndent, 0, 0, 0);
    inner->addLayout(top);
    inner->addWidget(m_modelFacts);
    inner->addWidget(makePromptTabs(), 1);

    auto* form = newForm();
    m_layers = named(new QLineEdit(m_form), "captureLayers", tr("Layers"),
                     tr("Layers to keep, for example 0,2-5; empty = all"));
    m_layers->setPlaceholderText(tr("all"));
    m_store = named(
        new QComboBox(m_form), "captureStore", tr("Store as"),
        tr("Type of the stored Q, K and V; every later number is computed from the stored values"));
    m_store->addItem(tr("float32 – exact"), int(kernels::DType::F32));
    m_store->addItem(tr("bfloat16 – half the bytes"), int(kernels::DType::BF16));
    m_store->addItem(tr("float16 – half the bytes"), int(kernels::DType::F16));
    auto* outRow = new QHBoxLayout;
    m_out = named(
        new QLineEdit(m_form), "captureOut", tr("Session folder"),
        tr("A new folder NAME.sparsight; with an existing session the capture is added to it"));
    auto* outBrowse =
        named(new QPushButton(tr("Browse…"), m_form), "captureOutBrowse",
              tr("Browse for a session folder"), tr("Choose where the session is written"));
    outRow->addWidget(m_out, 1);
    outRow->addWidget(outBrowse);
    auto* keep = new QHBoxLayout;
    keep->addWidget(m_layers, 1);
    keep->addWidget(m_store);
    form->addRow(rowLabel(tr("Layers"), m_form), keep);
    m_topKeys = named(new QCheckBox(tr("Exact top 64 keys per query"), m_form), "captureTopKeys",
                      tr("Exact top 64 keys per query"),
                      tr("Also stores the 64 largest probabilities of every row with their keys: "
                         "512 bytes a row and head. The overlap of masks with them is then "
                         "measured"));
    form->addRow(QString(), m_topKeys);
    m_decode = named(new QSpinBox(m_form), "captureDecode", tr("Generated tokens"),
                     tr("So many tokens are generated after the prompt (greedy, until an "
                        "end-of-text token); each has its row in the map"));
    m_decode->setRange(0, 1 << 16);
    m_decode->setSpecialValueText(tr("none"));
    m_decode->setSuffix(tr(" tokens"));
    m_steps = named(new QLineEdit(m_form), "captureDecodeSteps", tr("Steps of interest"),
                    tr("Steps that the step slider stops at, for example 0,3,5-9; empty = all"));
    m_steps->setPlaceholderText(tr("all steps"));
    m_steps->setEnabled(false);
    auto* decode = new QHBoxLayout;
    decode->addWidget(m_decode);
    decode->addWidget(m_steps, 1);
    form->addRow(rowLabel(tr("Generate"), m_form), decode);
    form->addRow(rowLabel(tr("Session"), m_form), outRow);
    inner->addLayout(form);
    column->addWidget(m_form, 1);

    auto* estimateRow = new QHBoxLayout;
    m_estimate = named(new QLabel(this), "captureEstimate", tr("Estimate"),
                       tr("From short measurements on this machine"));
    m_estimate->setWordWrap(true);
    m_cheaper =
        named(new QPushButton(tr("Make it cheaper"), this), "captureCheaper", tr("Make it cheaper"),
              tr("Every second layer, stored as bfloat16: about half the work of storing and a "
                 "quarter of the bytes"));
    estimateRow->addWidget(m_estimate, 1);
    estimateRow->addWidget(m_cheaper);
    column->addLayout(estimateRow);
    m_footer = new JobFooter(
        engine, kCaptureTag,
        {tr("Capture"),
         tr("While a capture runs: stops it within half a second; finished layers stay"),
         tr("Cancelled. The finished layers are kept in the session; Capture > Resume goes on with "
            "them.")},
        this);
    column->addWidget(m_footer);

    m_seed->setValue(int(std::max<quint64>(1, seed)));
    connect(browse, &QPushButton::clicked, this, [this] {
        const QString dir =
            QFileDialog::getExistingDirectory(this, tr("Model directory"), m_model->currentText());
        if (!dir.isEmpty()) setModel(dir);
    });
    connect(outBrowse, &QPushButton::clicked, this, [this] {
        const QString file = QFileDialog::getSaveFileName(this, tr("Session folder"), m_out->text(),
                                                          tr("Sparsight session (*.sparsight)"));
        if (file.isEmpty()) return;
        m_out->setText(file.endsWith(QLatin1String(".sparsight"))
                           ? file
                           : file + QStringLiteral(".sparsight"));
        m_outTouched = true;
    });
    connect(m_out, &QLineEdit::textEdited, this, [this] { m_outTouched = true; });
    connect(m_model, &QComboBox::currentTextChanged, this, &CaptureDialog::changed);
    connect(m_layers, &QLineEdit::textChanged, this, &CaptureDialog::changed);
    connect(m_store, &QComboBox::currentIndexChanged, this, &CaptureDialog::changed);
    connect(m_topKeys, &QCheckBox::toggled, this, &CaptureDialog::changed);
    connect(m_decode, &QSpinBox::valueChanged, this, [this](int tokens) {
        m_steps->setEnabled(tokens > 0);
        changed();
    });
    connect(m_steps, &QLineEdit::textChanged, this, &CaptureDialog::changed);
    connect(m_cheaper, &QPushButton::clicked, this, &CaptureDialog::cheaper);
    connect(m_footer, &JobFooter::startWanted, this, &CaptureDialog::start);
    connect(m_footer, &JobFooter::runningChanged, this, [this](bool running) {
        m_form->setEnabled(!running);
        if (running) m_cheaper->hide();
    });
    connect(m_footer, &JobFooter::finished, this, [this](const CaptureResult& result) {
        emit captured(result);
        accept();
    });
    connect(m_footer, &JobFooter::failed, this, &CaptureDialog::failed);
    m_soon.setSingleShot(true);
    m_soon.setInterval(150);
    connect(&m_soon, &QTimer::timeout, this, &CaptureDialog::estimate);
    connect(m_engine, &Engine::deviceChanged, this, &CaptureDialog::changed);
    changed();
}

QWidget* CaptureDialog::makePromptTabs() {
    m_tabs = named(new QTabWidget(m_form), "capturePromptKind", tr("Kind of prompt"), {});
    m_tabs->addTab(makeNeedlePage(), tr("Needle"));
    auto* page = new QWidget(m_tabs);
    auto* column = new QVBoxLayout(page);
    column->setContentsMargins(0, 8, 0, 0);
    m_text = named(new QPlainTextEdit(page), "captureText", tr("Prompt"),
                   tr("The prompt; special tokens are added as the tokenizer says"));
    m_text->setPlaceholderText(tr("Type or paste a prompt, or load a text file"));
    auto* row = new QHBoxLayout;
    auto* load = named(new QPushButton(tr("Load text…"), page), "captureLoadText", tr("Load text"),
                       tr("Reads a UTF-8 text file of at most 16 MB"));
    m_chat = named(new QCheckBox(tr("Chat"), page), "captureChat", tr("Write it as a chat"),
                   tr("The model's chat template writes the prompt: from one message, or from a "
                      "conversation [{\"role\": .., \"content\": ..}, ..] as JSON"));
    row->addWidget(load);
    row->addWidget(m_chat);
    row->addStretch();
    m_decoder = named(new QLineEdit(page), "captureDecoder", tr("Decoder's text"),
                      tr("For encoder-decoders (T5, BART): the text that the decoder reads; empty "
                         "= up to 32 tokens are generated"));
    m_decoder->setPlaceholderText(tr("encoder-decoders: the decoder's text (empty = generated)"));
    column->addWidget(m_text, 1);
    column->addLayout(row);
    column->addWidget(m_decoder);
    m_tabs->addTab(page, tr("Text"));
    m_tabs->addTab(makeImagePage(), tr("Image"));
    m_tabs->addTab(makeIdsPage(), tr("Token ids"));
    connect(m_decoder, &QLineEdit::textChanged, this, &CaptureDialog::changed);
    m_count = named(new QLabel(m_tabs), "captureTokens", tr("Token count"),
                    tr("Tokens of the prompt by this model's tokenizer, with its special tokens"));
    m_tabs->setCornerWidget(m_count);
    connect(load, &QPushButton::clicked, this, [this] {
        const QString file = QFileDialog::getOpenFileName(this, tr("Load text"));
        if (file.isEmpty()) return;
        try {
            loadText(file);
        } catch (const std::exception& e) {
            m_footer->tell(QString::fromUtf8(e.what()));
        }
    });
    connect(m_text, &QPlainTextEdit::textChanged, this, &CaptureDialog::changed);
    connect(m_chat, &QCheckBox::toggled, this, &CaptureDialog::changed);
    connect(m_tabs, &QTabWidget::currentChanged, this, &CaptureDialog::changed);
    return m_tabs;
}

QWidget* CaptureDialog::makeImagePage() {
    auto* page = new QWidget(m_tabs);
    auto* form = newForm(page);
    form->setContentsMargins(0, 12, 0, 0);
    form->setVerticalSpacing(10);
    auto* help = new QLabel(tr("For vision models (ViT, CLIP): the image is cut into patches, each "
                               "is a token. Fitted and normalised as the model's "
                               "preprocessor_config.json says."),
                            page);
    help->setProperty("role", "muted");
    help->setWordWrap(true);
    form->addRow(help);
    auto* row = new QHBoxLayout;
    m_image = named(new QLineEdit(page), "captureImage", tr("Image"),
                    tr("PNG, JPEG, or finished pixel values [3, H, W] as .npy"));
    auto* browse = named(new QPushButton(tr("Browse…"), page), "captureImageBrowse",
                         tr("Browse for an image"), tr("Choose an image file"));
    row->addWidget(m_image, 1);
    row->addWidget(browse);
    m_imageSize = named(new QLineEdit(page), "captureImageSize", tr("Size"),
                        tr("Fit to SIZE or HEIGHTxWIDTH pixels instead; the model's positions are "
                           "interpolated"));
    m_imageSize->setPlaceholderText(tr("the model's own"));
    form->addRow(rowLabel(tr("Image"), page), row);
    form->addRow(tr("Size"), m_imageSize);
    connect(browse, &QPushButton::clicked, this, [this] {
        const QString file = QFileDialog::getOpenFileName(this, tr("Image"), {},
                                                          tr("Images (*.png *.jpg *.jpeg *.npy)"));
        if (!file.isEmpty()) m_image->setText(file);
    });
    connect(m_image, &QLineEdit::textChanged, this, &CaptureDialog::changed);
    connect(m_imageSize, &QLineEdit::textChanged, this, &CaptureDialog::changed);
    return page;
}

QWidget* CaptureDialog::makeIdsPage() {
    auto* page = new QWidget(m_tabs);
    auto* column = new QVBoxLayout(page);
    column->setContentsMargins(0, 12, 0, 0);
    m_ids = named(new QLineEdit(page), "captureIds", tr("Token ids"),
                  tr("The prompt as ids, for models without a tokenizer.json"));
    m_ids->setPlaceholderText(QStringLiteral("1, 52, 7"));
    column->addWidget(m_ids);
    column->addStretch();
    connect(m_ids, &QLineEdit::textChanged, this, &CaptureDialog::changed);
    return page;
}

QWidget* CaptureDialog::makeNeedlePage() {
    auto* page = new QWidget(m_tabs);
    auto* form = newForm(page);
    form->setContentsMargins(0, 12, 0, 0);
    form->setVerticalSpacing(10);
    auto* help = new QLabel(tr("A long text hides a pass key in one sentence and asks for it at "
                               "the end: heads that copy it are retrieval heads."),
                            page);
    help->setProperty("role", "muted");
    help->setWordWrap(true);
    form->addRow(help);
    m_tokens = named(new QSpinBox(page), "needleTokens", tr("Tokens"),
                     tr("Length of the whole prompt, the answer included (at most 0.5 % below)"));
    m_tokens->setRange(128, 1 << 20);
    m_tokens->setSingleStep(500);
    m_tokens->setValue(1500);
    m_tokens->setGroupSeparatorShown(true);
    m_depth = named(new QDoubleSpinBox(page), "needleDepth", tr("Depth"),
                    tr("Share of the text that stands before the needle (0 to 1)"));
    m_depth->setRange(0, 1);
    m_depth->setSingleStep(0.1);
    m_depth->setValue(0.5);
    m_seed = named(new QSpinBox(page), "needleSeed", tr("Seed"),
                   tr("The same seed gives the same prompt"));
    m_seed->setRange(0, 1'000'000'000);
    auto* hayRow = new QHBoxLayout;
    m_haystack = named(new QLineEdit(page), "needleHaystack", tr("Haystack"),
                       tr("A text file to hide the needle in; empty = built-in prose"));
    m_haystack->setPlaceholderText(tr("built-in prose"));
    auto* browse = named(new QPushButton(tr("Browse…"), page), "needleHaystackBrowse",
                         tr("Browse for a haystack"), tr("Choose a text file"));
    hayRow->setSpacing(10);
    hayRow->addWidget(m_haystack, 1);
    hayRow->addWidget(browse);
    form->addRow(rowLabel(tr("Tokens"), page), m_tokens);
    form->addRow(tr("Depth"), m_depth);
    form->addRow(tr("Seed"), m_seed);
    form->addRow(tr("Haystack"), hayRow);
    connect(browse, &QPushButton::clicked, this, [this] {
        const QString file = QFileDialog::getOpenFileName(this, tr("Haystack"));
        if (!file.isEmpty()) m_haystack->setText(file);
    });
    connect(m_tokens, &QSpinBox::valueChanged, this, &CaptureDialog::changed);
    connect(m_depth, &QDoubleSpinBox::valueChanged, this, &CaptureDialog::changed);
    connect(m_seed, &QSpinBox::valueChanged, this, &CaptureDialog::changed);
    connect(m_haystack, &QLineEdit::textChanged, this, &CaptureDialog::changed);
    return page;
}

void CaptureDialog::setModel(const QString& nameOrDirectory) {
    m_model->setCurrentText(nameOrDirectory);
}

void CaptureDialog::loadText(const QString& name) {
    QFile file(name);
    if (!file.open(QIODevice::ReadOnly))
        throw Error(
            Errc::Io,
            tr("The text '%1' cannot be read: %2.").arg(name, file.errorString()).toStdString());
    if (file.size() > kMostTextBytes)
        throw Error(Errc::Usage, tr("The text '%1' is larger than 16 MB.").arg(name).toStdString());
    m_textName = QFileInfo(name).fileName();
    m_text->setPlainText(QString::fromUtf8(file.readAll()));
    m_tabs->setCurrentIndex(1);
}

CaptureOrder CaptureDialog::order() const {
    CaptureOrder o;
    o.model = m_model->currentText().trimmed();
    if (m_tabs->currentIndex() == 0) {
        o.needle = NeedleSpec{m_tokens->value(), m_depth->value(), std::uint64_t(m_seed->value()),
                              m_haystack->text().toStdString()};
    } else if (m_tabs->currentIndex() == 1) {
        o.text = m_text->toPlainText();
        o.chat = m_chat->isChecked();
        o.promptName = m_textName;
        o.decoderText = m_decoder->text();
    } else if (m_tabs->currentIndex() == 2) {
        o.image = m_image->text().trimmed();
        o.imageSize = m_imageSize->text().trimmed();
    } else {
        o.ids = m_ids->text();
    }
    o.layers = m_layers->text().trimmed();
    o.store = kernels::DType(m_store->currentData().toInt());
    o.topKeys = m_topKeys->isChecked();
    o.decode = m_decode->value();
    if (o.decode > 0) o.decodeSteps = m_steps->text().trimmed();
    o.device = m_engine->device();
    o.out = m_out->text();
    return o;
}

QString CaptureDialog::freeName() const {
    const QString model = QFileInfo(m_model->currentText()).fileName();
    const QString what =
        m_tabs->currentIndex() == 0
            ? QStringLiteral("needle-%1-s%2").arg(m_tokens->value()).arg(m_seed->value())
        : m_tabs->currentIndex() == 2 && !m_image->text().isEmpty()
            ? QFileInfo(m_image->text()).completeBaseName()
        : m_textName.isEmpty() ? QStringLiteral("text")
                               : QFileInfo(m_textName).completeBaseName();
    const QDir dir(m_folder);
    QString name = QStringLiteral("%1-%2.sparsight").arg(model, what);
    for (int i = 2; dir.exists(name); ++i)
        name = QStringLiteral("%1-%2-%3.sparsight").arg(model, what).arg(i);
    return dir.filePath(name);
}

void CaptureDialog::changed() {
    if (m_footer->running()) return;
    if (!m_outTouched) m_out->setText(freeName());
    m_soon.start();
}

void CaptureDialog::describeModel() {
    const QString model = m_model->currentText().trimmed();
    if (model == m_described) return;
    m_described = model;
    auto work = [model = model.toStdString()](const Job&) {
        return modelFacts(modelInfo(resolveModel(model)));
    };
    m_engine->run(Engine::Quick, QStringLiteral("capture.model"), std::move(work))
        .then(this,
              [this](const std::vector<std::pair<std::string, std::string>>& facts) {
                  QStringList parts;
                  for (const auto& [what, text] : facts)
                      if (what != "model")
                          parts << QStringLiteral("%1: %2").arg(QString::fromStdString(what),
                                                                QString::fromStdString(text));
                  m_modelFacts->setText(parts.join(QStringLiteral(" · ")));
              })
        // The line of the estimate says what is wrong.
        .onFailed(this, [this](const std::exception&) { m_modelFacts->clear(); });
}

void CaptureDialog::estimate() {
    describeModel();
    auto work = [order = order(), backend = m_engine->backend(Engine::Quick)](const Job& job) {
        return promptFacts(order, *backend, job);
    };
    m_engine->run(Engine::Quick, kEstimateTag, std::move(work))
        .then(this, [this](const PromptFacts& facts) { showFacts(facts); })
        .onFailed(this, [this](const std::exception& e) {
            m_count->setText(tr("– tokens"));
            m_estimate->setText(QString::fromUtf8(e.what()));
            m_cheaper->hide();
            m_footer->allow(false, QString::fromUtf8(e.what()));
        });
}

void CaptureDialog::showFacts(const PromptFacts& facts) {
    if (m_footer->running()) return;
    m_tokenCount = facts.tokens;
    m_count->setText(tr("%1 tokens").arg(thousands(facts.tokens)));
    const CaptureEstimate& e = facts.estimate;
    QString text = (e.seconds < 0.5 ? tr("Takes %1, %2 of memory, %3 on disk.")
                                    : tr("Takes about %1, %2 of memory, %3 on disk."))
                       .arg(durationText(e.seconds), bytesText(e.memoryBytes + e.modelBytes),
                            bytesText(e.diskBytes));
    if (e.topKeyBytes > 0) text += tr(" The top keys are %1 of it.").arg(bytesText(e.topKeyBytes));
    if (facts.limit > 0 && facts.tokens > facts.limit)
        text += tr(" The prompt is longer than the %1 tokens that the model was made for: its "
                   "attention beyond is untrained.")
                    .arg(thousands(facts.limit));
    if (e.gpuBytes > 0)
        text += tr(" On %1: %2 of its memory, of which %3 are free.")
                    .arg(m_engine->device(), bytesText(e.gpuBytes), bytesText(e.gpuFree));
    if (!e.note.empty()) text += QLatin1Char(' ') + QString::fromStdString(e.note);
    m_estimate->setText(text);
    m_cheaper->setVisible(e.seconds > 2 || e.memoryBytes + e.modelBytes > (Index(1) << 30));
    m_footer->allow(true, tr("Runs the model over the prompt and opens the result"));
}

void CaptureDialog::cheaper() {
    try {
        const ModelConfig config = readConfig(resolveModel(m_model->currentText().toStdString()));
        QStringList layers;
        for (Index l = 0; l < config.layers; l += 2) layers << QString::number(l);
        m_layers->setText(layers.join(QLatin1Char(',')));
        m_store->setCurrentIndex(1);
    } catch (const std::exception& e) {
        m_estimate->setText(QString::fromUtf8(e.what()));
    }
}

void CaptureDialog::start() {
    if (m_footer->running()) return;
    auto work = [order = order(), backend = m_engine->backend(Engine::Long)](const Job& job) {
        return runCapture(order, *backend, job);
    };
    m_footer->run(tr("Loading the model on %1 …").arg(m_engine->device()), std::move(work),
                  m_tokenCount);
}

}  // namespace sparsight::ui
