#include "ui/shell/ui_log.h"

#include <QElapsedTimer>
#include <QFile>
#include <QJsonDocument>
#include <QMutex>
#include <cmath>

namespace sparsight::ui {
namespace {

struct Log {
    QFile file;
    QMutex mutex;
};

Log& log() {
    static Log l;
    return l;
}

const QElapsedTimer& clock() {
    static const QElapsedTimer timer = [] {
        QElapsedTimer t;
        t.start();
        return t;
    }();
    return timer;
}

}  // namespace

double uiMilliseconds() {
    return std::round(double(clock().nsecsElapsed()) / 1e3) / 1e3;
}

bool openUiLog(const QString& file) {
    clock();
    log().file.setFileName(file);
    return log().file.open(QIODevice::WriteOnly | QIODevice::Truncate);
}

bool uiLogIsOpen() {
    return log().file.isOpen();
}

void uiLog(const QString& event, const QJsonObject& fields) {
    if (!uiLogIsOpen()) return;
    QJsonObject line = fields;
    if (line.contains(QStringLiteral("ms")))
        line.insert(QStringLiteral("took"), line.value(QStringLiteral("ms")));
    line.insert(QStringLiteral("ms"), uiMilliseconds());
    line.insert(QStringLiteral("event"), event);
    const QByteArray bytes = QJsonDocument(line).toJson(QJsonDocument::Compact) + '\n';
    const QMutexLocker lock(&log().mutex);
    log().file.write(bytes);
    log().file.flush();
}

}  // namespace sparsight::ui
