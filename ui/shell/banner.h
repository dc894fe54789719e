#pragma once

#include <QFrame>
#include <functional>

class QLabel;
class QPushButton;

namespace sparsight::ui {

/// One sentence over the map: an error, or a fall-back that the user should know. Stays until it is
/// closed or the next one comes.
class Banner : public QFrame {
    Q_OBJECT
public:
    explicit Banner(QWidget* parent = nullptr);
    void showMessage(const QString& sentence, const QString& button = {},
                     std::function<void()> action = {});
    QString text() const;

private:
    QLabel* m_text;
    QPushButton *m_action, *m_close;
    std::function<void()> m_run;
};

}  // namespace sparsight::ui
