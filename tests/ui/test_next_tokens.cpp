// What the model says after each token, in the window.
#include <QLabel>
#include <QPushButton>
#include <QTableWidget>
#include <QTest>
#include <fstream>

#include "tests/sessions/synthetic.h"
#include "ui/document.h"
#include "ui/engine.h"
#include "ui/panels/next_tokens.h"
#include "ui/shell/capture_job.h"

using namespace sparsight;
using namespace sparsight::ui;

namespace {

const QString kParity = QStringLiteral(SPARSIGHT_TEST_DATA "/parity/");

}  // namespace

class TestNextTokens : public QObject {
    Q_OBJECT

    sessions::test::TempFolder m_folder;
    Document m_document;
    Engine m_engine;
    NextTokens m_panel{&m_document, &m_engine};

    template <class T>
    T* child(const char* name) {
        return m_panel.findChild<T*>(QLatin1String(name));
    }
    QString title() { return child<QLabel>("nextTokensTitle")->text(); }
    QString note() { return child<QLabel>("nextTokensNote")->text(); }
    QString cell(int row, int column) {
        return child<QTableWidget>("nextTokensTable")->item(row, column)->text();
    }
    void open(CaptureOrder order, const char* name) {
        order.out = QString::fromStdString((m_folder / name).string());
        const auto backend = kernels::makeBackend("cpu", 1);
        const CaptureResult r = runCapture(order, *backend, {});
        m_document.openCapture(r.session, r.session->captureInfo(r.uuid));
    }
    void ask() {
        child<QPushButton>("nextTokensAsk")->click();
        QTRY_VERIFY_WITH_TIMEOUT(m_engine.idle(), 20000);
        QTest::qWait(30);
    }

private slots:
    void withoutACaptureItSaysWhatToDo() {
        QVERIFY(!child<QPushButton>("nextTokensAsk")->isEnabled());
        QVERIFY(note().contains(QStringLiteral("Open a capture")));
    }

    void everyTokenHasItsAnswer() {
        CaptureOrder order;
        order.model = QStringLiteral("bookworm");
        order.text = QStringLiteral("It was the best of times, it was the worst of");
        open(order, "decoder.sparsight");
        QVERIFY(child<QPushButton>("nextTokensAsk")->isEnabled());
        ask();
        QCOMPARE(child<QTableWidget>("nextTokensTable")->rowCount(), 10);
        // The last token, as nothing is selected; the numbers are the model's own.
        const auto model = loadModel(resolveModel("bookworm"));
        const auto backend = kernels::makeBackend("cpu", 1);
        const auto rows = nextTokens(*model, {m_document.capture().tokenIds, {}, {}},
                                     denseAttention(*backend), 10);
        const auto check = [&](Index row) {
            const auto& best = rows[std::size_t(row)];
            for (int i = 0; i < 10; ++i) QCOMPARE(cell(i, 2).toInt(), best[std::size_t(i)].id);
            QVERIFY(title().startsWith(QStringLiteral("After token %1,").arg(row)));
        };
        check(m_document.tokens() - 1);
        m_document.selectHead(0, 0);
        m_document.selectQuery(4);
        check(4);
        // What the text has next stands out where the model expects it.
        const std::int32_t next = m_document.capture().tokenIds[5];
        for (int i = 0; i < 10; ++i)
            QCOMPARE(child<QTableWidget>("nextTokensTable")->item(i, 0)->font().bold(),
                     cell(i, 2).toInt() == next);
    }

    void aMaskedLanguageModelFillsPlaces() {
        CaptureOrder order;
        order.model = kParity + QStringLiteral("bert");
        order.ids = QStringLiteral("2,9,11,3");
        open(order, "bert.sparsight");
        QVERIFY(child<QTableWidget>("nextTokensTable")->isHidden());  // of another capture
        ask();
        QVERIFY2(title().startsWith(QStringLiteral("In place of token")),
                 qPrintable(title() + note()));
    }

    void anImageAndAMovedModelSayWhyNot() {
        CaptureOrder image;
        image.model = kParity + QStringLiteral("vit");
        image.image = kParity + QStringLiteral("image/colour.png");
        open(image, "image.sparsight");
        QVERIFY(note().contains(QStringLiteral("image")));
        QVERIFY(!child<QPushButton>("nextTokensAsk")->isEnabled());

        const auto moved = m_folder / "model";
        std::filesystem::copy((kParity + QStringLiteral("qwen2")).toStdString(), moved);
        CaptureOrder order;
        order.model = QString::fromStdString(moved.string());
        order.ids = QStringLiteral("5,6,7");
        open(order, "moved.sparsight");
        std::ofstream(moved / "config.json", std::ios::app) << " ";  // another model now
        ask();
        QVERIFY2(note().contains(QStringLiteral("differs")), qPrintable(note()));
        std::filesystem::remove_all(moved);
        const sessions::CaptureInfo capture = m_document.capture();
        const auto session = m_document.session();
        m_document.close();
        m_document.openCapture(session, capture);
        QVERIFY(!child<QPushButton>("nextTokensAsk")->isEnabled());
        QVERIFY2(note().contains(QStringLiteral("model")), qPrintable(note()));
    }
};

QTEST_MAIN(TestNextTokens)
#include "test_next_tokens.moc"
