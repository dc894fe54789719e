#pragma once

#include <QFrame>
#include <exception>
#include <functional>

class QLabel;
class QPushButton;
class QToolButton;

namespace sparsight::ui {

/// An error's sentence without its full stop, to stand inside another one.
QString reasonOf(const std::exception& error);

/// One sentence at the place that it is about: an error, or a fall-back that the user should know,
/// and what to do about it. Stays until it is closed or the next one comes. Logs what it says as
/// "banner".
class Banner : public QFrame {
    Q_OBJECT
public:
    /// @param name  object name; its parts are called "<name>Text", "<name>Action", "<name>Close"
    explicit Banner(QWidget* parent = nullptr, const QString& name = QStringLiteral("banner"));
    void showMessage(const QString& sentence, const QString& button = {},
                     std::function<void()> action = {});
    QString text() const;

private:
    QLabel* m_text;
    QPushButton* m_action;
    QToolButton* m_close;
    std::function<void()> m_run;
};

}  // namespace sparsight::ui
