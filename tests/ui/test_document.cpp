#include <QSignalSpy>
#include <QTest>

#include "ui/document.h"
#include "ui/shell/mask_history.h"

using namespace sparsight;
using namespace sparsight::ui;

namespace {

MaskLayer layer(const char* spec) {
    MaskLayer l;
    l.spec = parseMethod(spec);
    l.colour = QColor("#56b4e9");
    return l;
}

sessions::CaptureInfo capture() {
    sessions::CaptureInfo c;
    c.config.layers = 3;
    c.config.heads = 4;
    c.layersDone = {1, 2};
    c.promptText = "naïve key";
    c.tokenIds = {5, 6};
    // "naïve" has five characters and six bytes.
    c.offsets = {{0, 5, 0, 6}, {5, 9, 6, 10}};
    return c;
}

}  // namespace

class TestDocument : public QObject {
    Q_OBJECT

private slots:
    void opensOnTheFirstCapturedLayer() {
        Document d;
        QSignalSpy opened(&d, &Document::captureChanged);
        d.openCapture(nullptr, capture());
        QCOMPARE(opened.count(), 1);
        QCOMPARE(d.layer(), Index(1));
        QCOMPARE(d.head(), Index(0));
        QCOMPARE(d.tokenText(0), QString::fromUtf8("naïve"));
        QCOMPARE(d.tokenText(1), QStringLiteral(" key"));
        QCOMPARE(d.tokenText(2), QString());
    }

    void settersEmitOnChangeOnlyAndIgnoreWhatIsOutOfRange() {
        Document d;
        d.openCapture(nullptr, capture());
        QSignalSpy head(&d, &Document::headChanged), query(&d, &Document::queryChanged),
            view(&d, &Document::viewChanged);
        d.selectHead(2, 3);
        d.selectHead(2, 3);
        d.selectHead(3, 0);
        d.selectHead(0, 4);
        QCOMPARE(head.count(), 1);
        QCOMPARE(d.head(), Index(3));
        d.selectQuery(1);
        d.selectQuery(2);
        d.selectQuery(-2);
        QCOMPARE(query.count(), 1);
        QCOMPARE(d.query(), Index(1));
        d.setView({1, 1, 0, 2});
        QCOMPARE(view.count(), 0);
        d.setView({0, 1, 0, 2});
        d.setView({0, 1, 0, 2});
        QCOMPARE(view.count(), 1);
    }

    void resultsFollowTheirLayerAndLeaveWithTheHead() {
        Document d;
        d.openCapture(nullptr, capture());
        d.setMasks({layer("a-shape"), layer("vertical-slash")});
        auto metrics = std::make_shared<MaskMetrics>();
        d.setMetrics(1, metrics);
        d.setMasks({layer("vertical-slash"), layer("a-shape")});
        QCOMPARE(d.metrics(0).get(), metrics.get());
        QVERIFY(!d.metrics(1));
        d.selectHead(2, 1);
        QVERIFY(!d.metrics(0));
        d.setMetrics(5, metrics);  // no such layer: ignored
        QVERIFY(!d.metrics(5));
    }

    void theActiveMaskStaysInRange() {
        Document d;
        d.setMasks({layer("a-shape"), layer("vertical-slash")});
        d.setActiveMask(1);
        d.setMasks({layer("a-shape")});
        QCOMPARE(d.activeMask(), 0);
        d.setMasks({});
        QCOMPARE(d.activeMask(), -1);
    }

    void twentyEditsAndTwentyUndosComeBackToTheSameState() {
        Document d;
        d.setMasks({layer("a-shape"), layer("vertical-slash"), layer("antidiagonal")});
        MaskHistory history(&d);
        const auto state = [&d] {
            QString s;
            for (const MaskLayer& l : d.masks())
                s += QStringLiteral("%1|%2|%3|%4;")
                         .arg(QString::fromStdString(toString(l.spec)), l.colour.name())
                         .arg(l.visible)
                         .arg(l.opacity);
            return s;
        };
        std::vector<QString> states{state()};
        quint32 random = 7;
        for (int i = 0; i < 20; ++i) {
            random = random * 1664525u + 1013904223u;
            const int which = int(random >> 28) % 3;
            if (i % 3 == 0)
                d.setMaskSpec(0, parseMethod("a-shape:window=" + std::to_string(100 + i)));
            else if (i % 3 == 1)
                d.setMaskVisible(which, !d.masks()[std::size_t(which)].visible);
            else
                d.setMaskStyle(which, QColor(i, 2 * i, 3 * i), 0.02 * i);
            QTest::qWait(0);
            // Within a moment a slider's positions are one step; here each edit is to stand alone.
            QVERIFY(history.canUndo());
            QTRY_VERIFY_WITH_TIMEOUT(history.settled(), 2000);
            states.push_back(state());
        }
        for (int i = 19; i >= 0; --i) {
            history.undo();
            QCOMPARE(state(), states[std::size_t(i)]);
        }
        QVERIFY(!history.canUndo());
        for (int i = 1; i <= 20; ++i) history.redo();
        QCOMPARE(state(), states.back());
        QVERIFY(!history.canRedo());
    }

    void aSliderOnItsWayIsOneStep() {
        Document d;
        d.setMasks({layer("a-shape:window=256")});
        MaskHistory history(&d);
        for (int w = 257; w < 300; ++w)
            d.setMaskSpec(0, parseMethod("a-shape:window=" + std::to_string(w)));
        history.undo();
        QCOMPARE(toString(d.masks()[0].spec), toString(parseMethod("a-shape:window=256")));
        QVERIFY(!history.canUndo());
    }
};

QTEST_MAIN(TestDocument)
#include "test_document.moc"
