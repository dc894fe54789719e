#pragma once

#include <QWidget>

class QLabel;
class QSettings;
class QVBoxLayout;

namespace sparsight::ui {

class Commands;

/// What the window shows without a session: the bundled sample, open, recent sessions, drop hint.
class StartPage : public QWidget {
    Q_OBJECT
public:
    StartPage(Commands* commands, QSettings* settings, QWidget* parent = nullptr);
    void refresh();  ///< the recent list

private:
    Commands* m_commands;
    QSettings* m_settings;
    QVBoxLayout* m_recent;
    QWidget* m_recentBox;
};

}  // namespace sparsight::ui
