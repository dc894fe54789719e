#include <QAbstractItemModelTester>
#include <QComboBox>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QSignalSpy>
#include <QSlider>
#include <QTableView>
#include <QTemporaryDir>
#include <QTest>

#include "core/import/imported_model.h"
#include "ui/engine.h"
#include "ui/map/decode_bar.h"
#include "ui/shell/import_dialog.h"

using namespace sparsight;
using namespace sparsight::ui;

namespace {

QString data(const char* name) {
    return QStringLiteral(SPARSIGHT_TEST_DATA "/import/") + QLatin1String(name);
}

}  // namespace

class TestImportDialog : public QObject {
    Q_OBJECT

private slots:
    void showsWhatTheFilesHoldAndImportsIt() {
        QTemporaryDir folder;
        Engine engine;
        ImportDialog dialog(&engine, folder.path());
        auto* table = dialog.findChild<QTableView*>(QStringLiteral("importPreview"));
        QAbstractItemModelTester tester(table->model());
        auto* summary = dialog.findChild<QLabel*>(QStringLiteral("importSummary"));
        auto* start = dialog.findChild<QPushButton*>(QStringLiteral("importStart"));
        auto* q = dialog.findChild<QComboBox*>(QStringLiteral("importMap_q"));
        QVERIFY(!start->isEnabled());
        dialog.setFiles({data("layers.npz")});
        QTRY_VERIFY(dialog.ready());
        QCOMPARE(table->model()->rowCount(), 9);
        QCOMPARE(q->currentText(), QStringLiteral("l{layer}_q"));
        QVERIFY2(summary->text().contains(QStringLiteral("2 layers × 4 heads (2 of keys)")),
                 qPrintable(summary->text()));

        // A name that is not there: said at once, and nothing can be started.
        q->setEditText(QStringLiteral("nope"));
        emit q->lineEdit()->textEdited(q->currentText());
        QTRY_VERIFY(summary->text().contains(QStringLiteral("no tensor is named 'nope'")));
        QVERIFY(!start->isEnabled());
        q->setEditText(QStringLiteral("l{layer}_q"));
        emit q->lineEdit()->textEdited(q->currentText());
        QTRY_VERIFY(dialog.ready());
        auto* layers = dialog.findChild<QLineEdit*>(QStringLiteral("importLayers"));
        layers->setText(QStringLiteral("1"));
        emit layers->textEdited(layers->text());
        QTRY_VERIFY(summary->text().startsWith(QStringLiteral("1 layers")));

        dialog.findChild<QAbstractButton*>(QStringLiteral("importTopKeys"))->click();
        CaptureResult result;
        connect(&dialog, &ImportDialog::imported, this,
                [&](const CaptureResult& r) { result = r; });
        QSignalSpy failed(&dialog, &ImportDialog::failed);
        start->click();
        QTRY_VERIFY_WITH_TIMEOUT(result.session, 20000);
        QCOMPARE(failed.count(), 0);
        const auto info = result.session->captureInfo(result.uuid);
        QVERIFY(info.complete());
        QCOMPARE(info.layersDone, std::vector<Index>{1});
        QVERIFY(info.topKeys);
        QCOMPARE(result.session->topKeys(result.uuid, 1, 0, {0, 1}).key.front(), 0);
        QVERIFY(isImportedModel(info.config));
        QVERIFY(result.session->path().string().starts_with(folder.path().toStdString()));
    }

    void showsTheTensorThatDoesNotFit() {
        QTemporaryDir folder;
        Engine engine;
        ImportDialog dialog(&engine, folder.path());
        auto* summary = dialog.findChild<QLabel*>(QStringLiteral("importSummary"));
        dialog.setFiles({data("bf16.npz")});
        QTRY_VERIFY(summary->text().contains(QStringLiteral("bfloat16")));
        QVERIFY(!dialog.ready());
        dialog.findChild<QAbstractButton*>(QStringLiteral("importBf16"))->click();
        QTRY_VERIFY(dialog.ready());
        QVERIFY(summary->text().contains(QStringLiteral("without values")));
        dialog.setFiles({data("maps.npz")});
        QTRY_VERIFY(summary->text().contains(QStringLiteral("finished maps")));
        dialog.setFiles({data("flipped.npz")});
        QTRY_VERIFY(dialog.ready());
        QSignalSpy failed(&dialog, &ImportDialog::failed);
        dialog.start();
        QTRY_COMPARE_WITH_TIMEOUT(failed.count(), 1, 20000);
        QVERIFY(failed.front().front().toString().contains(QStringLiteral("CRC")));
    }

    void knowsTensorFilesFromModels() {
        QVERIFY(isTensorFile(data("layers.npz")));
        QVERIFY(isTensorFile(data("heads.h5")));
        QVERIFY(isTensorFile(data("tensors.pkl")));  // opened only to be refused in words
        QVERIFY(isTensorFile(data("hook.safetensors")));
        QVERIFY(!isTensorFile(
            QStringLiteral(SPARSIGHT_SOURCE_DIR "/resources/models/bookworm/model.safetensors")));
        QVERIFY(!isTensorFile(data("make_import.py")));
    }

    void theStepSliderSelectsRowsOfGeneratedTokens() {
        QTemporaryDir folder;
        // A session is needed for the document to be open; its tokens are what counts here.
        const auto session = sessions::Session::create(
            (folder.path() + QStringLiteral("/s.sparsight")).toStdString());
        sessions::CaptureInfo c;
        c.config.layers = 1;
        c.config.heads = 2;
        c.config.kvHeads = 1;
        c.layersDone = {0};
        c.tokenIds = std::vector<std::int32_t>(20, 1);
        c.queries = 20;
        c.prefill = 12;
        c.decodeSteps = {0, 3, 7};
        Document document;
        DecodeBar bar(&document);
        QVERIFY(bar.isHidden());
        document.openCapture(session, c);
        QVERIFY(!bar.isHidden());
        auto* slider = bar.findChild<QSlider*>(QStringLiteral("decodeStep"));
        QCOMPARE(slider->maximum(), 2);
        slider->setValue(1);
        QCOMPARE(document.query(), Index(15));
        document.selectQuery(19);
        QCOMPARE(slider->value(), 2);
        bar.move(-1);
        QCOMPARE(document.query(), Index(15));
        bar.move(1);
        bar.move(1);
        QCOMPARE(document.query(), Index(19));
        document.selectQuery(3);
        bar.move(1);
        QCOMPARE(document.query(), Index(12));
        c.prefill = 20;
        c.decodeSteps.clear();
        document.openCapture(session, c);
        QVERIFY(bar.isHidden());
    }
};

QTEST_MAIN(TestImportDialog)
#include "test_import_dialog.moc"
