#include "ui/shell/import_dialog.h"

#include <QCheckBox>
#include <QColor>
#include <QComboBox>
#include <QDir>
#include <QFileDialog>
#include <QFileInfo>
#include <QFormLayout>
#include <QHeaderView>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QTableView>
#include <QVBoxLayout>
#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/capture/capture.h"
#include "sessions/h5_tensors.h"
#include "ui/engine.h"
#include "ui/shell/job_footer.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

const QString kPlanTag = QStringLiteral("importPlan"), kImportTag = QStringLiteral("import");
const QString kNone = QStringLiteral("–");

template <class W>
W* named(W* widget, const char* objectName, const QString& name, const QString& help) {
    widget->setObjectName(QLatin1String(objectName));
    widget->setAccessibleName(name);
    widget->setToolTip(help);
    return widget;
}

std::optional<double> numberOf(const QLineEdit* field) {
    const QString text = field->text().trimmed();
    if (text.isEmpty()) return std::nullopt;
    bool ok = false;
    const double value = text.toDouble(&ok);
    if (!ok)
        throw Error(Errc::Usage, QObject::tr("%1: '%2' is not a number.")
                                     .arg(field->accessibleName(), text)
                                     .toStdString());
    return value;
}

CaptureResult runImport(const std::shared_ptr<const TensorSet>& set, const ImportPlan& plan,
                        const sessions::ImportRequest& request, const std::filesystem::path& out,
                        kernels::Backend& backend, const Job& job) {
    const auto start = std::chrono::steady_clock::now();
    CaptureResult result;
    auto done = sessions::importToSession(out, *set, plan, request, backend, job);
    result.session = std::move(done.session);
    result.uuid = std::move(done.capture);
    result.capture = result.session->captureInfo(result.uuid);
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

QString placeOf(const PreviewRow& row) {
    if (!row.part || *row.part == Part::InputIds) return {};
    QStringList words;
    if (row.layer >= 0) words << QObject::tr("layer %1").arg(row.layer);
    if (row.head >= 0) words << QObject::tr("head %1").arg(row.head);
    return words.isEmpty() ? QObject::tr("all") : words.join(QStringLiteral(", "));
}

}  // namespace

// --- preview ------------------------------------------------------------------------------------

void ImportPreview::setRows(std::vector<Row> rows) {
    beginResetModel();
    m_rows = std::move(rows);
    endResetModel();
}

QVariant ImportPreview::data(const QModelIndex& index, int role) const {
    const Row& row = m_rows[std::size_t(index.row())];
    if (role == Qt::ForegroundRole) {
        if (!row.problem.isEmpty()) return theme().lost;
        return row.part == kNone ? theme().muted : theme().text;
    }
    if (role == Qt::ToolTipRole) return row.problem.isEmpty() ? row.tensor : row.problem;
    if (role != Qt::DisplayRole) return {};
    switch (index.column()) {
        case Tensor:
            return row.tensor;
        case Type:
            return row.type;
        case Shape:
            return row.shape;
        case TakenFor:
            return row.problem.isEmpty() ? row.part : tr("%1 – wrong").arg(row.part);
        default:
            return row.place;
    }
}

QVariant ImportPreview::headerData(int section, Qt::Orientation orientation, int role) const {
    if (orientation != Qt::Horizontal || role != Qt::DisplayRole) return {};
    const QString titles[] = {tr("Tensor"), tr("Type"), tr("Shape"), tr("Taken for"), tr("Of")};
    return titles[section];
}

// --- dialog -------------------------------------------------------------------------------------

ImportDialog::ImportDialog(Engine* engine, const QString& folder, QWidget* parent)
    : QDialog(parent), m_engine(engine), m_folder(folder) {
    setObjectName(QStringLiteral("importDialog"));
    setWindowTitle(tr("Import tensors"));
    resize(760, 680);
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(16, 16, 16, 16);
    column->setSpacing(12);
    m_form = new QWidget(this);
    auto* inner = new QVBoxLayout(m_form);
    inner->setContentsMargins(0, 0, 0, 0);
    inner->setSpacing(10);
    auto* form = new QFormLayout;
    makeForm(form);
    inner->addLayout(form);
    m_table = named(new QTableView(m_form), "importPreview", tr("Tensors of the files"),
                    tr("What the files hold and what each tensor is taken for"));
    m_table->setModel(&m_preview);
    m_table->setSelectionBehavior(QAbstractItemView::SelectRows);
    m_table->setEditTriggers(QAbstractItemView::NoEditTriggers);
    m_table->setShowGrid(false);
    m_table->setTabKeyNavigation(false);
    m_table->verticalHeader()->hide();
    m_table->horizontalHeader()->setSectionResizeMode(ImportPreview::Tensor, QHeaderView::Stretch);
    m_table->horizontalHeader()->setDefaultAlignment(Qt::AlignLeft | Qt::AlignVCenter);
    m_table->setColumnWidth(ImportPreview::Shape, 160);
    m_table->setMinimumHeight(120);
    inner->addWidget(m_table, 1);
    column->addWidget(m_form, 1);
    m_summary = named(new QLabel(this), "importSummary", tr("What will be imported"), {});
    m_summary->setWordWrap(true);
    column->addWidget(m_summary);
    m_footer = new JobFooter(engine, kImportTag,
                             {tr("Import"),
                              tr("While an import runs: stops it within half a second; finished "
                                 "layers stay in the session"),
                              tr("Cancelled. The finished layers are kept in the session.")},
                             this);
    column->addWidget(m_footer);

    connect(m_footer, &JobFooter::startWanted, this, &ImportDialog::start);
    connect(m_footer, &JobFooter::runningChanged, m_form,
            [this](bool running) { m_form->setEnabled(!running); });
    connect(m_footer, &JobFooter::finished, this, [this](const CaptureResult& result) {
        m_outTouched = false;
        emit imported(result);
        accept();
    });
    connect(m_footer, &JobFooter::failed, this, &ImportDialog::failed);
    m_soon.setSingleShot(true);
    m_soon.setInterval(150);
    connect(&m_soon, &QTimer::timeout, this, &ImportDialog::plan);
    showProblem(tr("Choose files of q, k and v: safetensors, .npz, .npy or HDF5."));
}

void ImportDialog::makeForm(QFormLayout* form) {
    auto* files = new QHBoxLayout;
    m_fileNames = named(new QLabel(m_form), "importFiles", tr("Files"), {});
    m_fileNames->setTextInteractionFlags(Qt::TextSelectableByMouse);
    auto* choose = named(new QPushButton(tr("Choose…"), m_form), "importChoose", tr("Choose files"),
                         tr("Files of q, k and v: safetensors, .npz, .npy or HDF5"));
    files->addWidget(m_fileNames, 1);
    files->addWidget(choose);
    form->addRow(tr("Files"), files);
    connect(choose, &QPushButton::clicked, this, &ImportDialog::chooseFiles);

    const QString places =
        tr("A tensor's name, with {layer} and {head} where numbers stand: layer.{layer}.q. A name "
           "without {layer} is one tensor of all layers, or of layer 0.");
    makePatternRow(form, Part::Q, tr("Queries"), places);
    makePatternRow(form, Part::K, tr("Keys"), places);
    makePatternRow(form, Part::V, tr("Values"),
                   places + tr(" Without values output errors and kernel runs are not available."));
    makePatternRow(form, Part::Lse, tr("LSE"),
                   places + tr(" Only compared with the LSE computed here."));
    makePatternRow(form, Part::Sinks, tr("Sinks"), places);
    makePatternRow(form, Part::InputIds, tr("Token ids"), tr("The tensor of the prompt's ids"));

    auto* shape = new QHBoxLayout;
    m_axes = named(new QComboBox(m_form), "importAxes", tr("Order of the axes"),
                   tr("Order of the last three axes of q, k and v"));
    m_axes->addItems({tr("[heads, tokens, width]"), tr("[tokens, heads, width]")});
    m_causal = named(new QComboBox(m_form), "importCausal", tr("Visible keys"),
                     tr("Which keys a query sees; unless the file says so, as many queries as keys "
                        "or fewer are taken as causal"));
    m_causal->addItems({tr("as the file says"), tr("causal"), tr("bidirectional")});
    m_bf16 = named(new QCheckBox(tr("uint16 is bfloat16"), m_form), "importBf16",
                   tr("16-bit integers are bfloat16"),
                   tr("numpy has no bfloat16: such arrays are saved as uint16 or two raw bytes"));
    shape->addWidget(m_axes);
    shape->addWidget(m_causal);
    shape->addWidget(m_bf16);
    shape->addStretch();
    form->addRow(tr("Axes"), shape);

    const auto field = [&](const char* name, const QString& what, const QString& placeholder,
                           const QString& help) {
        auto* edit = named(new QLineEdit(m_form), name, what, help);
        edit->setPlaceholderText(placeholder);
        connect(edit, &QLineEdit::textEdited, this, &ImportDialog::changed);
        return edit;
    };
    auto* numbers = new QHBoxLayout;
    m_scale = field("importScale", tr("Scale"), tr("scale"),
                    tr("Factor of q·k; empty = as the file says, else 1/√width"));
    m_softcap = field("importSoftcap", tr("Soft-cap"), tr("soft-cap"),
                      tr("c of c·tanh(s/c); empty = as the file says, else none"));
    m_window =
        field("importWindow", tr("Window"), tr("window"),
              tr("Latest keys that a query sees, itself included; empty = as the file says"));
    m_layers = field("importLayers", tr("Layers"), tr("all layers"),
                     tr("Layers to import, for example 0,2-5; empty = all"));
    for (QLineEdit* edit : {m_scale, m_softcap, m_window, m_layers}) numbers->addWidget(edit);
    form->addRow(tr("Attention"), numbers);

    auto* names = new QHBoxLayout;
    m_name = field("importName", tr("Model name"), tr("model's name"),
                   tr("Name of the model in the session; empty = as the file says"));
    m_tokenizer =
        field("importTokenizer", tr("Tokenizer"), tr("tokenizer (optional)"),
              tr("The model's directory or tokenizer.json: turns the token ids into text"));
    auto* browse = named(new QPushButton(tr("Browse…"), m_form), "importTokenizerBrowse",
                         tr("Browse for a tokenizer"), tr("Choose a model's directory"));
    names->addWidget(m_name, 1);
    names->addWidget(m_tokenizer, 1);
    names->addWidget(browse);
    form->addRow(tr("Model"), names);
    m_topKeys = named(new QCheckBox(tr("Exact top 64 keys per query"), m_form), "importTopKeys",
                      tr("Exact top 64 keys per query"),
                      tr("Also stores the 64 largest probabilities of every row with their keys: "
                         "512 bytes a row and head"));
    form->addRow(QString(), m_topKeys);
    auto* outRow = new QHBoxLayout;
    m_out = named(
        new QLineEdit(m_form), "importOut", tr("Session folder"),
        tr("A new folder NAME.sparsight; with an existing session the import is added to it"));
    auto* outBrowse =
        named(new QPushButton(tr("Browse…"), m_form), "importOutBrowse",
              tr("Browse for a session folder"), tr("Choose where the session is written"));
    outRow->addWidget(m_out, 1);
    outRow->addWidget(outBrowse);
    form->addRow(tr("Session"), outRow);

    connect(m_axes, &QComboBox::currentIndexChanged, this, &ImportDialog::changed);
    connect(m_causal, &QComboBox::currentIndexChanged, this, &ImportDialog::changed);
    connect(m_bf16, &QCheckBox::toggled, this, &ImportDialog::changed);
    connect(m_out, &QLineEdit::textEdited, this, [this] { m_outTouched = true; });
    connect(browse, &QPushButton::clicked, this, [this] {
        const QString dir = QFileDialog::getExistingDirectory(this, tr("Model directory"));
        if (!dir.isEmpty()) m_tokenizer->setText(dir);
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
}

void ImportDialog::makePatternRow(QFormLayout* form, Part part, const QString& label,
                                  const QString& help) {
    const auto p = std::size_t(part);
    QComboBox* box = m_patterns[p] = new QComboBox(m_form);
    const QByteArray name = QByteArray("importMap_") + partName(part);
    named(box, name.constData(), label, help);
    box->setEditable(true);
    box->setInsertPolicy(QComboBox::NoInsert);
    box->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
    const auto typed = [this, p] {
        m_typed[p] = true;
        changed();
    };
    connect(box, &QComboBox::activated, this, typed);
    connect(box->lineEdit(), &QLineEdit::textEdited, this, typed);
    form->addRow(label, box);
}

void ImportDialog::chooseFiles() {
    const QStringList files = QFileDialog::getOpenFileNames(
        this, tr("Tensors"), m_files.isEmpty() ? QString() : QFileInfo(m_files.front()).path(),
        tr("Tensors (*.safetensors *.npz *.npy *.h5 *.hdf5);;All files (*)"));
    if (!files.isEmpty()) setFiles(files);
}

void ImportDialog::setFiles(const QStringList& files) {
    if (m_footer->running()) return;
    m_files = files;
    m_set.reset();
    std::fill(std::begin(m_typed), std::end(m_typed), false);
    for (QComboBox* box : m_patterns)
        if (box) box->clear();
    m_preview.setRows({});
    const QString first = files.isEmpty() ? QString() : QFileInfo(files.front()).fileName();
    m_fileNames->setText(files.size() > 1 ? tr("%1 and %2 more").arg(first).arg(files.size() - 1)
                                          : first);
    m_fileNames->setToolTip(files.join(QLatin1Char('\n')));
    if (!m_outTouched) m_out->setText(freeName());
    m_footer->tell({});
    plan();
}

QString ImportDialog::freeName() const {
    const QString base =
        m_files.isEmpty() ? tr("import") : QFileInfo(m_files.front()).completeBaseName();
    const QDir dir(m_folder);
    QString name = base + QStringLiteral(".sparsight");
    for (int i = 2; dir.exists(name); ++i)
        name = QStringLiteral("%1-%2.sparsight").arg(base).arg(i);
    return dir.filePath(name);
}

void ImportDialog::changed() {
    if (m_footer->running()) return;
    m_ready = false;
    m_footer->allow(false, tr("The choices are being checked …"));
    m_soon.start();
}

sessions::ImportRequest ImportDialog::request() const {
    sessions::ImportRequest r;
    for (int p = 0; p < kParts; ++p) {
        if (!m_patterns[p] || !m_typed[p]) continue;
        const QString text = m_patterns[p]->currentText().trimmed();
        r.options.patterns[p] = text == kNone ? "-" : text.toStdString();
    }
    r.options.axes = m_axes->currentIndex() == 1 ? AxisOrder::TokensHeads : AxisOrder::HeadsTokens;
    r.options.rawIsBf16 = m_bf16->isChecked();
    r.topKeys = m_topKeys->isChecked();
    if (m_causal->currentIndex() > 0) r.options.causal = m_causal->currentIndex() == 1;
    r.options.scale = numberOf(m_scale);
    r.options.softcap = numberOf(m_softcap);
    if (const auto window = numberOf(m_window)) r.options.window = Index(*window);
    const std::string layers = m_layers->text().trimmed().toStdString();
    if (!layers.empty() && layers != "all") r.options.layers = parseLayers(layers, 4096);
    r.modelName = m_name->text().trimmed().toStdString();
    r.tokenizer = m_tokenizer->text().trimmed().toStdString();
    r.device = m_engine->device().toStdString();
    return r;
}

void ImportDialog::plan() {
    m_ready = false;
    if (m_files.isEmpty()) return;
    m_footer->allow(false, tr("The files are being read …"));
    ImportOptions options;
    try {
        options = request().options;
    } catch (const std::exception& e) {
        showProblem(QString::fromUtf8(e.what()));
        return;
    }
    std::vector<std::filesystem::path> files;
    for (const QString& f : m_files) files.emplace_back(f.toStdString());
    auto work = [set = m_set, files, options](const Job&) {
        State state;
        state.set = set ? set : std::make_shared<const TensorSet>(sessions::openTensors(files));
        state.plan = planImport(*state.set, options);
        return state;
    };
    m_engine->run(Engine::Quick, kPlanTag, std::move(work))
        .then(this, [this](const State& state) { showPlan(state); })
        .onFailed(this,
                  [this](const std::exception& e) { showProblem(QString::fromUtf8(e.what())); });
}

void ImportDialog::showProblem(const QString& sentence) {
    m_ready = false;
    m_summary->setText(sentence);
    m_footer->allow(false, sentence);
}

void ImportDialog::showPlan(const State& state) {
    if (m_footer->running()) return;
    m_set = state.set;
    m_plan = state.plan;
    for (int p = 0; p < kParts; ++p) {
        QComboBox* box = m_patterns[p];
        if (!box) continue;
        const QString current =
            m_typed[p] ? box->currentText() : QString::fromStdString(m_plan.patterns[p]);
        const QSignalBlocker quiet(box);
        box->clear();
        for (const std::string& text : m_plan.candidates[p])
            box->addItem(QString::fromStdString(text));
        if (Part(p) != Part::Q && Part(p) != Part::K) box->addItem(kNone);
        box->setEditText(current.isEmpty() && Part(p) != Part::Q && Part(p) != Part::K ? kNone
                                                                                       : current);
        if (Part(p) == Part::InputIds && !m_typed[p] && m_plan.inputIds)
            box->setEditText(QString::fromStdString(m_set->entries()[*m_plan.inputIds].name));
    }
    std::vector<ImportPreview::Row> rows;
    for (const PreviewRow& row : m_plan.rows) {
        const ForeignTensor& t = m_set->tensor(row.entry);
        rows.push_back({QString::fromStdString(m_set->entries()[row.entry].name),
                        QString::fromStdString(t.dtype), QString::fromStdString(t.shapeText()),
                        row.part ? QString::fromLatin1(partName(*row.part)) : kNone, placeOf(row),
                        QString::fromStdString(row.problem)});
    }
    m_preview.setRows(std::move(rows));
    if (!m_plan.problems.empty()) {
        QString text = QString::fromStdString(m_plan.problems.front());
        if (m_plan.problems.size() > 1)
            text += tr(" (and %1 more)").arg(m_plan.problems.size() - 1);
        showProblem(text);
        return;
    }
    const kernels::Problem& p = m_plan.problem();
    QStringList words;
    words << tr("%1 layers × %2 heads (%3 of keys) of width %4")
                 .arg(m_plan.layers.size())
                 .arg(p.Hq)
                 .arg(p.Hkv)
                 .arg(p.d)
          << tr("%1 queries × %2 keys").arg(thousands(p.Nq), thousands(p.Nk))
          << (p.causal ? tr("causal") : tr("bidirectional"))
          << tr("scale %1").arg(double(p.scale), 0, 'g', 6);
    const bool oneWindow =
        std::all_of(m_plan.layers.begin(), m_plan.layers.end(),
                    [&](const ImportLayer& l) { return l.problem.window == p.window; });
    if (!oneWindow) words << tr("windows differ by layer");
    if (oneWindow && p.window > 0) words << tr("window %1").arg(p.window);
    if (p.softcap > 0) words << tr("soft-cap %1").arg(double(p.softcap), 0, 'g', 6);
    QString text = words.join(QStringLiteral(" · "));
    for (const std::string& note : m_plan.notes)
        text += QLatin1Char('\n') + tr("Note: %1.").arg(QString::fromStdString(note));
    m_summary->setText(text);
    m_ready = true;
    m_footer->allow(true, tr("Reads the tensors, computes their statistics and opens the result"));
}

void ImportDialog::start() {
    if (m_footer->running() || !m_ready) return;
    auto work = [set = m_set, plan = m_plan, wanted = request(),
                 out = std::filesystem::path(m_out->text().toStdString()),
                 backend = m_engine->backend(Engine::Long)](const Job& job) {
        return runImport(set, plan, wanted, out, *backend, job);
    };
    m_footer->run(tr("Importing …"), std::move(work));
}

bool isTensorFile(const QString& path) {
    const QFileInfo info(path);
    if (!info.isFile()) return false;
    static const QStringList endings{
        QStringLiteral("npy"),    QStringLiteral("npz"), QStringLiteral("h5"),
        QStringLiteral("hdf5"),   QStringLiteral("pt"),  QStringLiteral("pth"),
        QStringLiteral("pt2"),    QStringLiteral("bin"), QStringLiteral("pkl"),
        QStringLiteral("pickle"), QStringLiteral("ckpt")};
    const QString suffix = info.suffix().toLower();
    if (endings.contains(suffix)) return true;
    if (suffix != QLatin1String("safetensors")) return false;
    const TensorSet set = sessions::openTensors({path.toStdString()});
    const ImportPlan plan = planImport(set, {});
    return !plan.candidates[std::size_t(Part::Q)].empty() &&
           !plan.candidates[std::size_t(Part::K)].empty();
}

}  // namespace sparsight::ui
