#pragma once

#include <QJsonObject>
#include <QString>

namespace sparsight::ui {

/// Opens the file of `--ui-log`: one JSON object per line, {"ms": since program start, "event":
/// ...,
/// ...}, flushed at once so that a test may read along. Without a file the calls below cost
/// nothing.
/// @return false when the file cannot be written
bool openUiLog(const QString& file);
bool uiLogIsOpen();
/// Events: started, opened, command, selection, paint, frame, job, export, error, banner, layout,
/// screenshot, quit.
/// A duration in milliseconds is called "took" (a field "ms" of the caller is written as that).
/// Any thread.
void uiLog(const QString& event, const QJsonObject& fields = {});
/// Milliseconds since the program started.
double uiMilliseconds();

}  // namespace sparsight::ui
