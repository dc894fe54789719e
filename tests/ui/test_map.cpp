// Map, grid and text under mouse, wheel and keys, judged by the document and by pixels.
#include <QApplication>
#include <QFile>
#include <QPushButton>
#include <QScrollBar>
#include <QSignalSpy>
#include <QTest>
#include <QWheelEvent>
#include <cmath>
#include <limits>

#include "tests/sessions/synthetic.h"
#include "ui/engine.h"
#include "ui/map/head_grid.h"
#include "ui/map/map_paint.h"
#include "ui/map/map_view.h"
#include "ui/map/token_text.h"
#include "ui/map/token_view.h"
#include "ui/shell/banner.h"
#include "ui/shell/theme.h"

using namespace sparsight;
using namespace sparsight::ui;

namespace {

constexpr Index kTokens = 200;

int coloursOf(const QImage& image, const QRect& area) {
    QSet<QRgb> seen;
    for (int y = area.top(); y < area.bottom(); ++y)
        for (int x = area.left(); x < area.right(); ++x) seen.insert(image.pixel(x, y));
    return int(seen.size());
}

void drag(QWidget& w, QPoint from, QPoint to, Qt::KeyboardModifiers keys = Qt::NoModifier) {
    QTest::mousePress(&w, Qt::LeftButton, keys, from);
    for (int i = 1; i <= 4; ++i) QTest::mouseMove(&w, from + (to - from) * i / 4);
    QTest::mouseRelease(&w, Qt::LeftButton, keys, to);
}

}  // namespace

class TestMap : public QObject {
    Q_OBJECT

    sessions::test::TempFolder m_folder;
    std::shared_ptr<sessions::Session> m_session;
    std::unique_ptr<Document> m_document;
    std::unique_ptr<Engine> m_engine;
    std::unique_ptr<MapView> m_map;

    void settle() {
        QTRY_VERIFY_WITH_TIMEOUT(m_engine->idle(), 10000);
        QTest::qWait(30);
        QTRY_VERIFY_WITH_TIMEOUT(m_engine->idle(), 10000);
        QTest::qWait(10);
    }
    void open() {
        m_document->openCapture(m_session, m_session->captureInfo());
        for (Index l = 0; l < sessions::test::kLayers; ++l)
            m_document->setStats(l, m_session->stats(m_document->capture().uuid, l));
        settle();
    }
    double span() const { return m_document->view().q1 - m_document->view().q0; }

private slots:
    void initTestCase() {
        applyTheme(ThemeChoice::Dark);
        m_session = sessions::Session::create(m_folder / "small.sparsight");
        sessions::test::writeCapture(*m_session, kTokens);
    }

    void init() {
        m_document = std::make_unique<Document>();
        m_engine = std::make_unique<Engine>();
        m_map = std::make_unique<MapView>(m_document.get(), m_engine.get(), nullptr);
        m_map->resize(700, 600);
        m_map->show();
        QVERIFY(QTest::qWaitForWindowExposed(m_map.get()));
    }
    void cleanup() {
        m_map.reset();
        m_engine.reset();
        m_document.reset();
    }

    void saysWhatToDoWhenNothingIsOpen() {
        QVERIFY(coloursOf(m_map->grab().toImage(), m_map->rect()) > 3);
        QTest::mouseClick(m_map.get(), Qt::LeftButton, {}, {300, 300});
        QTest::keyClick(m_map.get(), Qt::Key_Down);
        QCOMPARE(m_document->query(), Index(-1));
    }

    void showsThePyramidAtOnceAndThenExactPixels() {
        QSignalSpy status(m_map.get(), &MapView::statusChanged);
        m_document->openCapture(m_session, m_session->captureInfo());
        m_document->setStats(0, m_session->stats(m_document->capture().uuid, 0));
        QVERIFY(!status.empty());
        QVERIFY(status.back()[2].toString().startsWith(QLatin1String("pyramid")));
        settle();
        QCOMPARE(status.back()[2].toString(), QStringLiteral("exact"));
        QCOMPARE(status.back()[1].toString(), QStringLiteral("rows 0–199 · columns 0–199"));
        // Below the diagonal is data, above it background.
        const QImage picture = m_map->grab().toImage();
        QVERIFY(coloursOf(picture, {100, 400, 60, 60}) > 20);
        QCOMPARE(coloursOf(picture, {340, 60, 60, 40}), 1);
    }

    void clicksAndArrowsSelect() {
        open();
        QTest::mouseClick(m_map.get(), Qt::LeftButton, {}, {150, 400});
        const Index query = m_document->query(), key = m_document->key();
        QVERIFY(query > key && key > 0);
        QTest::keyClick(m_map.get(), Qt::Key_Down);
        QTest::keyClick(m_map.get(), Qt::Key_Left, Qt::ShiftModifier);
        QCOMPARE(m_document->query(), query + 1);
        QCOMPARE(m_document->key(), key - 10);
        // Hovering never selects.
        QTest::mouseMove(m_map.get(), {200, 300});
        QTest::qWait(20);
        QCOMPARE(m_document->query(), query + 1);
        // The row's ruler selects the query alone.
        QTest::mouseClick(m_map.get(), Qt::LeftButton, {}, {20, 300});
        QVERIFY(m_document->query() != query + 1);
        QCOMPARE(m_document->key(), key - 10);
    }

    void wheelZoomsAtTheCursorAndDragPans() {
        open();
        const QPoint at(200, 350);
        QTest::mouseClick(m_map.get(), Qt::LeftButton, {}, at);
        const Index key = m_document->key(), query = m_document->query();
        QWheelEvent wheel(at, m_map->mapToGlobal(at), {}, {0, 480}, Qt::NoButton, Qt::NoModifier,
                          Qt::NoScrollPhase, false);
        QApplication::sendEvent(m_map.get(), &wheel);
        QVERIFY(span() < double(kTokens) / 2);
        settle();
        QTest::mouseClick(m_map.get(), Qt::LeftButton, {}, at);
        QVERIFY(std::abs(m_document->key() - key) <= 1);  // the token under the cursor stayed
        QVERIFY(std::abs(m_document->query() - query) <= 1);
        const MapRect before = m_document->view();
        drag(*m_map, at, at + QPoint(-60, -40));
        QVERIFY(m_document->view().k0 > before.k0 && m_document->view().q0 > before.q0);
        QVERIFY(std::abs(span() - (before.q1 - before.q0)) < 1e-9);
        QVERIFY(std::abs(m_document->key() - key) <= 1);  // a drag selects nothing
    }

    void areaAndDoubleClickChangeTheView() {
        open();
        drag(*m_map, {150, 300}, {250, 400}, Qt::ShiftModifier);
        const MapRect area = m_document->view();
        QVERIFY(span() < 60 && span() > 20);
        QTest::mouseDClick(m_map.get(), Qt::LeftButton, {}, {200, 300});
        QCOMPARE(span(), double(kTokens));
        QTest::mouseDClick(m_map.get(), Qt::LeftButton, {}, {200, 300});
        QVERIFY(std::abs(m_document->view().q0 - area.q0) < 1e-6);
        settle();
        m_document->fitView();
        // Zoomed to tokens the rulers show them: other pixels than numbers.
        m_document->setView({100, 120, 50, 70});
        settle();
        QVERIFY(coloursOf(m_map->grab().toImage(), {4, 200, 110, 200}) > 5);
    }

    void masksAndLostMassChangeThePicture() {
        open();
        const QImage bare = m_map->grab().toImage();
        m_document->setMasks({maskLayer("a-shape:sink=4,window=32")});
        m_document->setPolicy(0,
                              std::make_shared<const kernels::Policy>(kernels::Streaming{4, 32}));
        settle();
        const QImage masked = m_map->grab().toImage();
        QVERIFY(bare != masked);
        m_document->setMaskVisible(0, false);
        settle();
        MapStyle style = m_document->style();
        style.showLost = true;
        m_document->setStyle(style);
        settle();
        QVERIFY(m_map->grab().toImage() != bare);
    }

    void gridSelectsSortsAndColours() {
        HeadGrid grid(m_document.get(), m_engine.get(), nullptr);
        grid.resize(236, 260);
        grid.show();
        open();
        auto* canvas = grid.findChild<HeadCanvas*>();
        QVERIFY(canvas);
        QVERIFY(canvas->width() <= 236);
        canvas->setFocus();
        QTest::keyClick(canvas, Qt::Key_Right);
        QTest::keyClick(canvas, Qt::Key_Down);
        QCOMPARE(m_document->layer(), Index(1));
        QCOMPARE(m_document->head(), Index(1));
        std::vector<HeadFacts> facts;
        for (Index l = 0; l < sessions::test::kLayers; ++l)
            for (Index h = 0; h < sessions::test::kHeads; ++h) {
                HeadFacts f;
                f.layer = l;
                f.head = h;
                f.sinkMass = 0.01 * double(l * 4 + h);
                facts.push_back(f);
            }
        m_document->setHeadFacts(facts);
        const QImage maps = canvas->grab().toImage();
        canvas->setColour(HeadMetric::Sink);
        QVERIFY(canvas->range());
        QCOMPARE(canvas->range()->second, 0.15);
        QVERIFY(canvas->grab().toImage() != maps);
        canvas->setSort(HeadMetric::Sink);  // L3 H3 is the first cell now
        m_document->selectHead(3, 3);
        QTest::keyClick(canvas, Qt::Key_Right);
        QCOMPARE(m_document->head(), Index(2));
    }

    void textFollowsAndSelects() {
        TokenView view(m_document.get(), m_engine.get(), nullptr);
        view.resize(500, 160);
        view.show();
        open();
        auto* text = view.findChild<TokenText*>();
        QVERIFY(text);
        m_document->selectQuery(150);
        settle();
        QTest::mouseClick(text->viewport(), Qt::LeftButton, {}, {100, 12});
        const Index query = m_document->query();
        QVERIFY(query >= 0 && query != 150);
        QTest::mouseClick(text->viewport(), Qt::LeftButton, Qt::ShiftModifier, {60, 12});
        QVERIFY(m_document->key() >= 0 && m_document->key() < query);
        QCOMPARE(m_document->query(), query);
        QTest::keyClick(text, Qt::Key_Right);
        QCOMPARE(m_document->query(), query + 1);
        settle();
    }

    void aLongTextIsLaidOutBitByBit() {
        sessions::CaptureInfo c;
        c.config.layers = 1;
        c.config.heads = c.config.kvHeads = 1;
        c.layersDone = {0};
        constexpr Index kLong = 30000;
        for (Index i = 0; i < kLong; ++i) {
            const Index at = Index(c.promptText.size());
            c.promptText += " w" + std::to_string(i % 97);
            c.offsets.push_back({at, Index(c.promptText.size())});
            c.tokenIds.push_back(1);
        }
        Document document;
        document.openCapture(nullptr, std::move(c));
        TokenText text(&document, nullptr);
        text.resize(400, 200);
        text.show();
        QVERIFY(QTest::qWaitForWindowExposed(&text));
        text.reset();
        QCOMPARE(text.verticalScrollBar()->maximum(), 0);  // nothing is there yet
        QTRY_VERIFY(text.verticalScrollBar()->maximum() > 0);
        QTest::qWait(50);  // its scroll bar has made the lines shorter
        QSignalSpy clicked(&text, &TokenText::clicked);
        text.verticalScrollBar()->setValue(text.verticalScrollBar()->maximum());
        // The last line holds the last tokens.
        QPoint at(14, text.viewport()->height());
        while (clicked.isEmpty() && at.y() > 0) {
            at.ry() -= 4;
            QTest::mouseClick(text.viewport(), Qt::LeftButton, {}, at);
        }
        QVERIFY(!clicked.isEmpty());
        const Index first = clicked.front().front().value<Index>();
        QVERIFY2(first > kLong - 400 && first < kLong, qPrintable(QString::number(first)));
        // Another prompt while the first one is under way.
        text.reset();
        document.openCapture(nullptr, {});
        text.reset();
        QTest::qWait(20);
        QCOMPARE(text.verticalScrollBar()->maximum(), 0);
    }

    void manyValuesHaveTheColoursOfSingleOnes() {
        for (const bool log : {false, true}) {
            MapStyle style;
            style.log = log;
            const ColourScale scale = probabilityScale(style);
            std::vector<float> values{-1, 0, 1e-9f, 1, 2, std::numeric_limits<float>::quiet_NaN()};
            for (int i = 0; i < 4000; ++i)
                values.push_back(log ? std::pow(10.0f, -6 + 6 * float(i) / 4000) : float(i) / 4000);
            const QImage many = paintValues(values, Index(values.size()), 1, scale);
            for (std::size_t i = 0; i < values.size(); ++i) {
                // A value between two colours may take either.
                const QRgb a = many.pixel(int(i), 0),
                           b = paintValues({&values[i], 1}, 1, 1, scale).pixel(0, 0);
                for (const int shift : {0, 8, 16})
                    QVERIFY2(std::abs(int(a >> shift & 255) - int(b >> shift & 255)) <= 4,
                             qPrintable(QString::number(double(values[i]))));
                QCOMPARE(qAlpha(a), qAlpha(b));
            }
        }
    }

    void unreadTextIsFoldedAndAClickUnfoldsIt() {
        TokenView view(m_document.get(), m_engine.get(), nullptr);
        view.resize(300, 90);
        view.show();
        open();
        auto* text = view.findChild<TokenText*>();
        // Row 20 cannot see the 179 tokens behind it: no background, nothing to read.
        m_document->selectQuery(20);
        settle();
        QCOMPARE(text->folds().size(), std::size_t(1));
        const TokenText::Fold fold = text->folds().front();
        QVERIFY(fold.first > 20 && fold.contains(100) && !fold.contains(20));
        QVERIFY(fold.count > 100 && fold.mass < 1e-6);
        const QRect chip = text->chipRect(fold);
        QVERIFY(text->viewport()->rect().contains(chip));
        // A selected token stands, whatever the row thinks of it.
        m_document->selectKey(100);
        QCOMPARE(text->folds().size(), std::size_t(2));
        for (const TokenText::Fold& f : text->folds()) QVERIFY(!f.contains(100));
        m_document->selectKey(-1);
        m_document->selectQuery(19);
        settle();
        m_document->selectQuery(20);
        settle();
        QTest::mouseClick(text->viewport(), Qt::LeftButton, {},
                          text->chipRect(text->folds().front()).center());
        QVERIFY(text->folds().empty());
        QCOMPARE(m_document->query(), Index(20));  // unfolding selects nothing
        view.setFolding(true);                     // folds what was opened again
        QCOMPARE(text->folds().size(), std::size_t(1));
        QTest::keyClick(text, Qt::Key_Return);
        QVERIFY(text->folds().empty());
        view.setFolding(true);
        view.setFolding(false);
        QVERIFY(text->folds().empty());
        // What fits needs no folds.
        view.setFolding(true);
        view.resize(900, 300);
        QTRY_VERIFY(text->folds().empty());
        settle();
    }

    void aDamagedLayerIsToldInPlaceAndCanBeTriedAgain() {
        const auto folder = m_folder / "damaged.sparsight";
        std::filesystem::copy(m_folder / "small.sparsight", folder,
                              std::filesystem::copy_options::recursive);
        std::filesystem::remove(folder / "lock");
        std::vector<std::pair<std::filesystem::path, QByteArray>> sound;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
            QFile file(QString::fromStdString(entry.path().string()));
            if (entry.path().filename().string().find("qkv") == std::string::npos ||
                !file.open(QIODevice::ReadWrite))
                continue;
            QByteArray bytes = file.readAll();
            sound.emplace_back(entry.path(), bytes);
            bytes[bytes.size() / 2] = char(bytes[bytes.size() / 2] ^ 4);
            file.seek(0);
            file.write(bytes);
        }
        QVERIFY(sound.size() >= std::size_t(sessions::test::kLayers));

        TokenView text(m_document.get(), m_engine.get(), nullptr);
        text.resize(500, 200);
        text.show();
        const auto session = sessions::Session::open(folder, sessions::OpenMode::ReadOnly);
        m_document->openCapture(session, session->captureInfo());
        m_document->setStats(0, session->stats(m_document->capture().uuid, 0));
        m_document->selectQuery(150);
        settle();
        const auto* mapNotice = m_map->findChild<Banner*>(QStringLiteral("mapNotice"));
        const auto* textNotice = text.findChild<Banner*>(QStringLiteral("tokenBanner"));
        QVERIFY2(mapNotice->text().contains(QLatin1String("coarse map")) &&
                     mapNotice->text().contains(QLatin1String("checksum")),
                 qPrintable(mapNotice->text()));
        QVERIFY2(textNotice->text().contains(QLatin1String("checksum")),
                 qPrintable(textNotice->text()));
        QVERIFY(m_map->rect().contains(mapNotice->geometry()));
        // The coarse picture is still there, above the sentence.
        QVERIFY(coloursOf(m_map->grab().toImage(), {60, 150, 250, 250}) >= 3);

        for (const auto& [path, bytes] : sound) {
            QFile file(QString::fromStdString(path.string()));
            QVERIFY(file.open(QIODevice::WriteOnly));
            file.write(bytes);
        }
        QSignalSpy status(m_map.get(), &MapView::statusChanged);
        for (const char* button : {"mapNoticeAction", "tokenBannerAction"})
            for (QWidget* view : {static_cast<QWidget*>(m_map.get()), static_cast<QWidget*>(&text)})
                if (auto* b = view->findChild<QPushButton*>(QLatin1String(button))) b->click();
        settle();
        QCOMPARE(mapNotice->text(), QString());
        QCOMPARE(textNotice->text(), QString());
        QCOMPARE(status.back()[2].toString(), QStringLiteral("exact"));
    }

    void spaceHidesWhatLiesOverTheMapWhileItIsHeld() {
        open();
        const QImage bare = m_map->grab().toImage();
        m_document->setMasks({maskLayer("a-shape:sink=4,window=32")});
        kernels::Streaming kept{4, 32};
        m_document->setPolicy(0, std::make_shared<const kernels::Policy>(kept));
        settle();
        const auto map = [this] { return m_map->grab({60, 30, 300, 500}).toImage(); };
        const QImage masked = map();
        QVERIFY(masked != bare.copy(60, 30, 300, 500));
        QTest::keyPress(m_map.get(), Qt::Key_Space);
        const QImage held = map();
        QTest::keyRelease(m_map.get(), Qt::Key_Space);
        QCOMPARE(held, bare.copy(60, 30, 300, 500));
        QCOMPARE(map(), masked);
    }
};

QTEST_MAIN(TestMap)
#include "test_map.moc"
