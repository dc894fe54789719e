#include "ui/shell/recent.h"

#include <QBuffer>
#include <QDateTime>
#include <QDir>
#include <QDirIterator>
#include <QFileInfo>
#include <QSettings>
#include <cmath>

#include "ui/document.h"
#include "ui/shell/theme.h"

namespace sparsight::ui {
namespace {

constexpr int kKept = 20;
constexpr int kPicture = 96;

const QString kList = QStringLiteral("recent/paths");

QString keyOf(const QString& path) {
    return QStringLiteral("recent/") +
           QString::fromLatin1(path.toUtf8().toBase64(QByteArray::Base64UrlEncoding |
                                                      QByteArray::OmitTrailingEquals));
}

QImage drawHead(const LayerStats& stats, Index head) {
    // The coarsest level that still fills the picture; max keeps thin lines visible.
    std::size_t level = 0;
    while (level + 1 < stats.pyramid.size() && stats.pyramid[level + 1].rows >= kPicture) ++level;
    const View<const float, 3> all = stats.maxima(level);
    const auto& l = stats.pyramid[level];
    QImage image(kPicture, kPicture, QImage::Format_RGB32);
    const ColourScale scale;
    for (int y = 0; y < kPicture; ++y)
        for (int x = 0; x < kPicture; ++x) {
            const Index row = Index(y) * l.rows / kPicture, col = Index(x) * l.cols / kPicture;
            const float value = col > row ? -1.0f : all(head, row, col);
            const double t = scale.position(double(value));
            const Rgb c = std::isnan(t) ? Rgb{16, 17, 20} : colour(scale.map, t);
            image.setPixel(x, y, qRgb(c.r, c.g, c.b));
        }
    return image;
}

}  // namespace

QString bytesText(qint64 bytes) {
    if (bytes < 1'000'000) return QStringLiteral("%1 kB").arg((bytes + 500) / 1000);
    if (bytes < 1'000'000'000)
        return QStringLiteral("%1 MB").arg(double(bytes) / 1e6, 0, 'f',
                                           bytes < 100'000'000 ? 1 : 0);
    return QStringLiteral("%1 GB").arg(double(bytes) / 1e9, 0, 'f', 1);
}

std::vector<RecentSession> recentSessions(QSettings& settings, int count) {
    std::vector<RecentSession> list;
    for (const QString& path : settings.value(kList).toStringList()) {
        if (int(list.size()) == count) break;
        if (!sessions::isSession(path.toStdString())) continue;
        const QString key = keyOf(path);
        RecentSession r;
        r.path = path;
        r.name = QFileInfo(path).completeBaseName();
        r.what = settings.value(key + QStringLiteral("/what")).toString();
        r.when = QFileInfo(QDir(path).filePath(QStringLiteral("session.db")))
                     .lastModified()
                     .toString(QStringLiteral("yyyy-MM-dd hh:mm"));
        qint64 bytes = 0;
        for (QDirIterator it(path, QDir::Files, QDirIterator::Subdirectories); it.hasNext();) {
            it.next();
            bytes += it.fileInfo().size();
        }
        r.size = bytesText(bytes);
        r.picture.loadFromData(settings.value(key + QStringLiteral("/picture")).toByteArray(),
                               "PNG");
        list.push_back(std::move(r));
    }
    return list;
}

void rememberSession(QSettings& settings, const Document& document) {
    const QString path =
        QDir(QString::fromStdString(document.session()->path().string())).absolutePath();
    QStringList paths = settings.value(kList).toStringList();
    paths.removeAll(path);
    paths.prepend(path);
    while (paths.size() > kKept) settings.remove(keyOf(paths.takeLast()));
    settings.setValue(kList, paths);
    const auto& c = document.capture();
    settings.setValue(keyOf(path) + QStringLiteral("/what"),
                      QStringLiteral("%1 · %2 tokens · %3 layers")
                          .arg(QString::fromStdString(c.modelName), thousands(document.tokens()))
                          .arg(c.layersDone.size()));
}

void rememberPicture(QSettings& settings, const Document& document) {
    if (!document.isOpen() || document.head() < 0) return;
    const auto stats = document.stats(document.layer());
    if (!stats || stats->pyramid.empty()) return;
    QByteArray bytes;
    QBuffer buffer(&bytes);
    buffer.open(QIODevice::WriteOnly);
    drawHead(*stats, document.head()).save(&buffer, "PNG");
    const QString path =
        QDir(QString::fromStdString(document.session()->path().string())).absolutePath();
    settings.setValue(keyOf(path) + QStringLiteral("/picture"), bytes);
}

}  // namespace sparsight::ui
