#pragma once

#include <QFrame>
#include <functional>
#include <vector>

class QLineEdit;
class QListWidget;

namespace sparsight::ui {

class Commands;
class Document;

/// A place that the typed text names.
struct Destination {
    QString title;    ///< "Head L6 H5"
    QString note;     ///< at the right
    QString blocked;  ///< why it cannot be reached; "" = it can
    std::function<void()> go;
};
/// What `L12H7`, `token 51234`, `q:5000 k:120`, `"needle text"`, `worst recall`, `needle` lead to.
std::vector<Destination> destinations(Document& document, const QString& typed);

/// The list under the "go to" field: places first (Ctrl+P), then commands (Ctrl+Shift+P shows only
/// those), recent ones first, keys at the right, blocked ones with their reason.
class CommandPalette : public QFrame {
    Q_OBJECT
public:
    CommandPalette(Document* document, Commands* commands, QWidget* window);
    void open(bool commandsOnly, const QString& text = {});
    void dismiss();
    /// Titles now listed, for scripts and tests.
    QStringList titles() const;

protected:
    bool eventFilter(QObject* watched, QEvent* event) override;

private:
    struct Row {
        QString title, note, blocked;
        std::function<void()> go;
    };
    void refill();
    void accept(int row);

    Document* m_document;
    Commands* m_commands;
    QLineEdit* m_field;
    QListWidget* m_list;
    std::vector<Row> m_rows;
    bool m_commandsOnly = false;
};

}  // namespace sparsight::ui
