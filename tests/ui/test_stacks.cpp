// Encoders in the window: named layers, maps that are rectangular or seen both ways, image patches.
#include <QApplication>
#include <QSet>
#include <QTest>

#include "tests/sessions/synthetic.h"
#include "ui/engine.h"
#include "ui/map/patch_grid.h"
#include "ui/map/map_view.h"
#include "ui/map/token_view.h"
#include "ui/shell/capture_job.h"
#include "ui/shell/theme.h"

using namespace sparsight;
using namespace sparsight::ui;

namespace {

const QString kParity = QStringLiteral(SPARSIGHT_TEST_DATA "/parity/");

int coloursOf(const QImage& image, const QRect& area) {
    QSet<QRgb> seen;
    for (int y = area.top(); y < area.bottom(); ++y)
        for (int x = area.left(); x < area.right(); ++x) seen.insert(image.pixel(x, y));
    return int(seen.size());
}

}  // namespace

class TestStacks : public QObject {
    Q_OBJECT

    sessions::test::TempFolder m_folder;
    Document m_document;
    Engine m_engine;
    CaptureResult m_text, m_image;

    void settle() {
        QTRY_VERIFY_WITH_TIMEOUT(m_engine.idle(), 20000);
        QTest::qWait(30);
        QTRY_VERIFY_WITH_TIMEOUT(m_engine.idle(), 20000);
    }
    CaptureResult capture(CaptureOrder order, const char* name) {
        order.out = QString::fromStdString((m_folder / name).string());
        const auto backend = kernels::makeBackend("cpu", 1);
        return runCapture(order, *backend, {});
    }

private slots:
    void initTestCase() {
        applyTheme(ThemeChoice::Dark);
        CaptureOrder text;
        text.model = kParity + QStringLiteral("bart");
        QStringList ids;
        for (int i = 0; i < 40; ++i) ids << QString::number(5 + 2 * i);
        text.ids = ids.join(QLatin1Char(','));
        m_text = capture(text, "text.sparsight");
        CaptureOrder image;
        image.model = kParity + QStringLiteral("vit_resized");
        image.image = kParity + QStringLiteral("image/colour.png");
        image.imageSize = QStringLiteral("48x72");
        m_image = capture(image, "image.sparsight");
    }

    void wrongOrdersSayWhy() {
        const auto backend = kernels::makeBackend("cpu", 1);
        CaptureOrder order;
        order.model = kParity + QStringLiteral("bert");
        order.needle = NeedleSpec{};
        QVERIFY_EXCEPTION_THROWN(promptFacts(order, *backend), Error);
        order.needle.reset();
        order.image = kParity + QStringLiteral("image/colour.png");
        QVERIFY_EXCEPTION_THROWN(promptFacts(order, *backend), Error);
        order.image.clear();
        order.ids = QStringLiteral("5, x");
        QVERIFY_EXCEPTION_THROWN(promptFacts(order, *backend), Error);
        order.ids = QStringLiteral("5, 7");
        QCOMPARE(promptFacts(order, *backend).tokens, Index(2));
    }

    void layersHaveTheirOwnShape() {
        m_document.openCapture(m_text.session, m_text.session->captureInfo(m_text.uuid));
        const auto& c = m_document.capture();
        QCOMPARE(c.config.layers, Index(8));  // 2 enc, 3 dec, 3 cross
        QVERIFY(c.decoderIds.size() > 1);     // generated
        const Index decoder = Index(c.decoderIds.size());
        QCOMPARE(m_document.headText(6, 1), QStringLiteral("cross.1 H1"));
        m_document.selectHead(0, 3);
        QCOMPARE(m_document.rows(), Index(40));
        QVERIFY(!m_document.causal());
        m_document.selectQuery(39);
        m_document.selectHead(6, 3);  // the decoder has two heads
        QCOMPARE(m_document.layer(), Index(0));
        m_document.selectHead(6, 1);
        QCOMPARE(m_document.rows(), decoder);
        QCOMPARE(m_document.keys(), Index(40));
        QCOMPARE(m_document.query(), Index(-1));  // another map
        QCOMPARE(m_document.view(), (MapRect{0, double(decoder), 0, 40}));
        QCOMPARE(m_document.keyText(0), QStringLiteral("5"));
        QCOMPARE(m_document.rowText(0), QStringLiteral("2"));  // the start token
        m_document.selectQuery(decoder);
        QCOMPARE(m_document.query(), Index(-1));
        m_document.selectHead(2, 0);
        QVERIFY(m_document.causal());
        QCOMPARE(m_document.keys(), decoder);
    }

    void mapShowsBothSides() {
        m_document.openCapture(m_text.session, m_text.session->captureInfo(m_text.uuid));
        MapView map(&m_document, &m_engine, nullptr);
        map.resize(700, 600);
        map.show();
        QVERIFY(QTest::qWaitForWindowExposed(&map));
        const auto upperRight = [&](Index layer) {
            m_document.selectHead(layer, 0);
            m_document.setStats(layer, m_text.session->stats(m_text.uuid, layer));
            QTest::qWait(50);
            settle();
            return coloursOf(map.grab().toImage(), {330, 40, 60, 40});
        };
        QVERIFY(upperRight(0) > 6);  // the encoder sees later keys
        QVERIFY(upperRight(7) > 6);  // so does cross-attention
        QVERIFY(upperRight(2) < 4);  // the decoder does not
    }

    void patchesLieAsInTheImage() {
        m_document.openCapture(m_image.session, m_image.session->captureInfo(m_image.uuid));
        TokenView view(&m_document, &m_engine, nullptr);
        view.resize(500, 300);
        view.show();
        m_document.close();
        m_document.openCapture(m_image.session, m_image.session->captureInfo(m_image.uuid));
        QVERIFY(QTest::qWaitForWindowExposed(&view));
        auto* grid = view.findChild<PatchGrid*>(QStringLiteral("imageGrid"));
        QVERIFY(grid && grid->isVisible());
        QCOMPARE(m_document.rows(), Index(55));
        QCOMPARE(m_document.tokenText(0), QStringLiteral("class token"));
        QCOMPARE(m_document.tokenText(1 + 9 + 2), QStringLiteral("patch 1,2"));
        const QRectF a = grid->tokenRect(1), right = grid->tokenRect(2),
                     below = grid->tokenRect(10);
        QCOMPARE(right.top(), a.top());
        QCOMPARE(below.left(), a.left());
        QVERIFY(qFuzzyCompare(below.top(), a.bottom()));
        QVERIFY(grid->tokenRect(55).isEmpty());
        QTest::mouseClick(grid, Qt::LeftButton, {}, grid->tokenRect(12).center().toPoint());
        QCOMPARE(m_document.query(), Index(12));
        settle();
        QVERIFY(coloursOf(grid->grab().toImage(), grid->rect()) > 10);
        QTest::mouseClick(grid, Qt::LeftButton, Qt::ShiftModifier,
                          grid->tokenRect(3).center().toPoint());
        QCOMPARE(m_document.key(), Index(3));
    }

    void cleanupTestCase() { m_document.close(); }
};

QTEST_MAIN(TestStacks)
#include "test_stacks.moc"
