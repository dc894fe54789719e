// What the window does with sessions: open, capture, resume, remember.
#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QJsonArray>
#include <QJsonDocument>
#include <QJsonObject>
#include <algorithm>

#include "ui/shell/banner.h"
#include "ui/shell/capture_dialog.h"
#include "ui/shell/import_dialog.h"
#include "ui/shell/main_window.h"
#include "ui/shell/mask_history.h"
#include "ui/shell/recent.h"
#include "ui/shell/start_page.h"
#include "ui/shell/tour.h"
#include "ui/shell/ui_log.h"

namespace sparsight::ui {
namespace {

constexpr const char* kSampleName = "bookworm-sample.sparsight";
const QString kOpenTag = QStringLiteral("open");

/// The prompt of the sample, shared with scripts/demo.sh.
std::string demoProbe() {
    const auto name = resourcesDirectory() / "prompts" / "demo.probe";
    QFile file(QString::fromStdString(name.string()));
    if (!file.open(QIODevice::ReadOnly))
        throw Error(Errc::Io, "The sample's prompt '" + name.string() +
                                  "' cannot be read: " + file.errorString().toStdString() + ".");
    return file.readAll().trimmed().toStdString();
}

}  // namespace

void MainWindow::openPath(const QString& path) {
    try {
        QString trimmed = path;
        while (trimmed.size() > 1 && trimmed.endsWith(QLatin1Char('/'))) trimmed.chop(1);
        const QFileInfo info(trimmed);
        const std::filesystem::path file = trimmed.toStdString();
        const QString suffix = info.suffix().toLower();
        if (info.exists() && sessions::isSession(file)) {
            openSession(trimmed);
        } else if (info.fileName() == QLatin1String("session.db")) {
            openSession(info.path());
        } else if (info.isDir() && suffix == QLatin1String("sparsight")) {
            openSession(trimmed);  // says what is wrong with it
        } else if (info.isDir() && QFileInfo::exists(trimmed + QStringLiteral("/config.json"))) {
            showCaptureDialog(trimmed, {});
        } else if (isTensorFile(trimmed)) {
            tensorFormat(file);  // a pickle says why it is refused
            showImportDialog({trimmed});
        } else if (suffix == QLatin1String("safetensors") ||
                   info.fileName() == QLatin1String("config.json") ||
                   info.fileName() == QLatin1String("tokenizer.json")) {
            showCaptureDialog(info.absolutePath(), {});
        } else if (info.isFile() &&
                   (suffix == QLatin1String("json") || suffix == QLatin1String("csv") ||
                    suffix == QLatin1String("tsv"))) {
            m_commands.run(QStringLiteral("file.openPlan"), {{QStringLiteral("path"), trimmed}});
        } else if (info.isFile() &&
                   (suffix == QLatin1String("txt") || suffix == QLatin1String("md"))) {
            showCaptureDialog({}, trimmed);
        } else if (info.isFile()) {
            throw Error(Errc::Unsupported,
                        tr("'%1' is of a type that Sparsight does not open yet: it opens "
                           ".sparsight sessions, model folders with "
                           "safetensors, texts, and plans as .json, .csv or .tsv.")
                            .arg(info.fileName())
                            .toStdString());
        } else if (info.isDir()) {
            throw Error(
                Errc::Format,
                tr("The folder '%1' is neither a session (session.db) nor a model (config.json).")
                    .arg(trimmed)
                    .toStdString());
        } else {
            // A bundled model's name is no path.
            showCaptureDialog(QString::fromStdString(resolveModel(path.toStdString()).string()),
                              {});
        }
    } catch (const std::exception& e) {
        fail(QString::fromUtf8(e.what()));
    }
}

void MainWindow::openPaths(const QStringList& paths) {
    try {
        if (paths.size() > 1 && std::all_of(paths.begin(), paths.end(), isTensorFile))
            showImportDialog(paths);
        else if (!paths.isEmpty())
            openPath(paths.front());
    } catch (const std::exception& e) {
        fail(QString::fromUtf8(e.what()));
    }
}

void MainWindow::openSession(const QString& path, const QString& capture) {
    auto work = [path, uuid = capture.toStdString()](const Job&) {
        return openCapture(path, uuid);
    };
    m_engine.run(Engine::Quick, kOpenTag, std::move(work))
        .then(this, [this](const CaptureResult& result) { showResult(result); })
        .onFailed(this, [this](const std::exception& e) { fail(QString::fromUtf8(e.what())); });
}

void MainWindow::showCapture(std::shared_ptr<sessions::Session> session,
                             sessions::CaptureInfo capture) {
    if (capture.layersDone.empty())
        throw Error(Errc::NotFound,
                    tr("The capture has no finished layer yet: Capture > Resume goes on with it.")
                        .toStdString());
    saveUiState();
    m_banner->hide();
    m_document.openCapture(std::move(session), std::move(capture));
    restoreUiState();
    m_history->clear();
    setSessionUi(true);
    rememberSession(m_settings, m_document);
    uiLog(
        QStringLiteral("opened"),
        {{QStringLiteral("session"), QString::fromStdString(m_document.session()->path().string())},
         {QStringLiteral("capture"), QString::fromStdString(m_document.capture().uuid)}});
}

void MainWindow::showResult(const CaptureResult& result) {
    try {
        showCapture(result.session, result.capture);
        if (!result.notes.isEmpty()) m_banner->showMessage(result.notes);
    } catch (const std::exception& e) {
        fail(QString::fromUtf8(e.what()));
    }
}

void MainWindow::closeSession() {
    saveUiState();
    rememberPicture(m_settings, m_document);
    m_engine.stopAll();
    m_document.close();
    m_tour->hide();
    setSessionUi(false);
    m_start->refresh();
}

void MainWindow::openSample(bool startTour) {
    if (startTour) m_tour->begin();
    const QString folder = QDir(dataFolder()).filePath(QLatin1String(kSampleName));
    if (sessions::isSession(folder.toStdString())) {
        if (m_document.isOpen() &&
            m_document.sessionName() == QFileInfo(folder).completeBaseName()) {
            // Open already: the tour only needs to hear of its facts.
            if (!m_document.headFacts().empty()) m_document.setHeadFacts(m_document.headFacts());
            return;
        }
        auto work = [folder](const Job&) { return openCapture(folder, {}); };
        m_engine.run(Engine::Quick, kOpenTag, std::move(work))
            .then(this,
                  [this](const CaptureResult& result) {
                      if (result.capture.complete()) {
                          showResult(result);
                          return;
                      }
                      // A sample that was interrupted is simply made again.
                      result.session->removeCapture(result.uuid);
                      captureSample();
                  })
            .onFailed(this, [this](const std::exception& e) { sampleFailed(e); });
        return;
    }
    captureSample();
}

void MainWindow::captureSample() {
    CaptureOrder order;
    order.device = m_engine.device();
    order.model = QStringLiteral("bookworm");
    order.needle = parseProbe(demoProbe());
    order.out = QDir(dataFolder()).filePath(QLatin1String(kSampleName));
    auto work = [order, backend = m_engine.backend(Engine::Long)](const Job& job) {
        return runCapture(order, *backend, job);
    };
    m_engine.run(Engine::Long, QStringLiteral("capture"), std::move(work))
        .then(this, [this](const CaptureResult& result) { captured(result); })
        .onCanceled(m_tour, [this] { m_tour->sampleFailed(); })
        .onFailed(this, [this](const std::exception& e) { sampleFailed(e); });
}

void MainWindow::sampleFailed(const std::exception& why) {
    m_tour->sampleFailed();
    fail(QString::fromUtf8(why.what()));
}

void MainWindow::captured(const CaptureResult& result) {
    uiLog(QStringLiteral("captured"),
          {{QStringLiteral("capture"), QString::fromStdString(result.uuid)},
           {QStringLiteral("seconds"), result.seconds}});
    showResult(result);
}

void MainWindow::showCaptureDialog(const QString& model, const QString& textFile) {
    if (!m_captureDialog) {
        m_captureDialog =
            new CaptureDialog(&m_engine, QDir(dataFolder()).filePath(QStringLiteral("sessions")),
                              m_options.seed, this);
        connect(m_captureDialog, &CaptureDialog::captured, this, &MainWindow::captured);
        connect(m_captureDialog, &CaptureDialog::failed, this, &MainWindow::fail);
    }
    if (!model.isEmpty()) m_captureDialog->setModel(model);
    if (!textFile.isEmpty()) m_captureDialog->loadText(textFile);
    m_captureDialog->show();
    m_captureDialog->raise();
}

void MainWindow::showImportDialog(const QStringList& files) {
    if (!m_importDialog) {
        m_importDialog = new ImportDialog(
            &m_engine, QDir(dataFolder()).filePath(QStringLiteral("sessions")), this);
        connect(m_importDialog, &ImportDialog::imported, this, &MainWindow::captured);
        connect(m_importDialog, &ImportDialog::failed, this, &MainWindow::fail);
    }
    if (!files.isEmpty()) m_importDialog->setFiles(files);
    m_importDialog->show();
    m_importDialog->raise();
}

void MainWindow::resumeCapture() {
    auto work = [session = m_document.session(), partial = m_document.capture(),
                 backend = m_engine.backend(Engine::Long),
                 device = m_engine.device()](const Job& job) {
        return ui::resumeCapture(session, partial, *backend, device, job);
    };
    m_engine.run(Engine::Long, QStringLiteral("capture"), std::move(work))
        .then(this, [this](const CaptureResult& result) { captured(result); })
        .onFailed(this, [this](const std::exception& e) { fail(QString::fromUtf8(e.what())); });
}

// --- what the session remembers ----------------------------------------------------------------

void MainWindow::saveUiState() {
    if (!m_document.isOpen() || m_document.session()->mode() != sessions::OpenMode::ReadWrite)
        return;
    QJsonObject state{
        {QStringLiteral("capture"), QString::fromStdString(m_document.capture().uuid)},
        {QStringLiteral("layer"), qint64(m_document.layer())},
        {QStringLiteral("head"), qint64(m_document.head())},
        {QStringLiteral("query"), qint64(m_document.query())},
        {QStringLiteral("key"), qint64(m_document.key())},
        {QStringLiteral("active"), m_document.activeMask()}};
    QJsonArray masks;
    for (const MaskLayer& layer : m_document.masks())
        masks.append(
            QJsonObject{{QStringLiteral("spec"), QString::fromStdString(toString(layer.spec))},
                        {QStringLiteral("colour"), layer.colour.name()},
                        {QStringLiteral("visible"), layer.visible},
                        {QStringLiteral("opacity"), layer.opacity}});
    state.insert(QStringLiteral("masks"), masks);
    try {
        m_document.session()->setUiState(
            "window", QJsonDocument(state).toJson(QJsonDocument::Compact).toStdString());
    } catch (const std::exception& e) {
        uiLog(QStringLiteral("error"), {{QStringLiteral("sentence"), QString::fromUtf8(e.what())}});
    }
}

void MainWindow::restoreUiState() {
    const auto stored = m_document.session()->uiState("window");
    if (!stored) {
        // Rules for causal attention cannot run on most layers of an encoder.
        const auto& masks = m_document.masks();
        if (!m_document.capture().config.stacks.empty()) {
            m_document.setMasks({maskLayer("oracle-blocks")});
            m_document.setActiveMask(0);
        } else if (masks.size() == 1 && masks.front().spec.id == "oracle-blocks") {
            startMasks();
        }
        if (!m_document.capture().truth) {
            // The standard layer picks heads by retrieval score, which takes a needle to know.
            std::vector<MaskLayer> kept = m_document.masks();
            std::erase_if(kept, [](const MaskLayer& layer) {
                return layer.spec == parseMethod(kRetrievalLayer);
            });
            if (kept.size() != m_document.masks().size()) m_document.setMasks(std::move(kept));
        }
        return;
    }
    const QJsonObject state = QJsonDocument::fromJson(QByteArray::fromStdString(*stored)).object();
    std::vector<MaskLayer> masks;
    for (const QJsonValue& value : state.value(QStringLiteral("masks")).toArray()) {
        try {
            const QJsonObject o = value.toObject();
            MaskLayer layer;
            layer.spec = parseMethod(o.value(QStringLiteral("spec")).toString().toStdString());
            layer.colour = QColor(o.value(QStringLiteral("colour")).toString());
            layer.visible = o.value(QStringLiteral("visible")).toBool();
            layer.opacity = std::clamp(o.value(QStringLiteral("opacity")).toDouble(0.45), 0.0, 1.0);
            if (layer.colour.isValid()) masks.push_back(layer);
        } catch (const Error&) {
            continue;  // a method that this version does not know: its layer is left out
        }
    }
    if (!masks.empty()) m_document.setMasks(std::move(masks));
    m_document.setActiveMask(state.value(QStringLiteral("active")).toInt());
    if (state.value(QStringLiteral("capture")).toString().toStdString() !=
        m_document.capture().uuid)
        return;
    m_document.selectHead(state.value(QStringLiteral("layer")).toInt(),
                          state.value(QStringLiteral("head")).toInt());
    m_document.selectQuery(state.value(QStringLiteral("query")).toInt(-1));
    m_document.selectKey(state.value(QStringLiteral("key")).toInt(-1));
}

}  // namespace sparsight::ui
