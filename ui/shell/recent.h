#pragma once

#include <QImage>
#include <QString>
#include <vector>

class QSettings;

namespace sparsight::ui {

class Document;

/// An entry of the start page's list.
struct RecentSession {
    QString path, name;
    QString what;    ///< "bookworm · 1,497 tokens · 8 layers", "" = not known
    QString when;    ///< date of its last change
    QString size;    ///< on disk
    QImage picture;  ///< of the head that was shown; may be null
};

/// At most `count` sessions that still exist, latest first.
std::vector<RecentSession> recentSessions(QSettings& settings, int count);
/// Puts the open session first in the list.
void rememberSession(QSettings& settings, const Document& document);
/// Keeps a small picture of the selected head for the list, drawn from the pyramid.
void rememberPicture(QSettings& settings, const Document& document);
/// "14.2 MB"
QString bytesText(qint64 bytes);

}  // namespace sparsight::ui
