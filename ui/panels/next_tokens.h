#pragma once

#include <QWidget>
#include <memory>
#include <vector>

#include "core/model/next_tokens.h"
#include "core/model/tokenizer.h"

class QLabel;
class QPushButton;
class QTableWidget;

namespace sparsight::ui {

class Document;
class Engine;

/// The ten likeliest tokens after the selected one (the last when none is), as the captured model
/// gives them. The model runs over the prompt once, when asked; then every row is there.
class NextTokens : public QWidget {
    Q_OBJECT
public:
    NextTokens(Document* document, Engine* engine, QWidget* parent = nullptr);

    /// The captured model can be run, or why not, a sentence.
    QString obstacle() const { return m_obstacle; }

public slots:
    void ask();

signals:
    void changed();  ///< obstacle() may be another

private:
    /// What the model said of a capture.
    struct Answer {
        std::vector<std::vector<TokenGuess>> rows;
        std::shared_ptr<const Tokenizer> tokenizer;
        bool fills = false;  ///< guesses are for the token itself
    };
    void captureChanged();
    void refresh();
    void say(const QString& sentence, bool warn);
    void stopped(const QString& failure);
    bool ofDecoder() const;  ///< the answer's rows are those of the decoder's text
    Index row() const;       ///< that is shown
    QString textOf(Index row) const;
    void fill(Index row);

    Document* m_document;
    Engine* m_engine;
    QLabel *m_title, *m_note;
    QPushButton* m_button;
    QTableWidget* m_table;
    std::shared_ptr<const Answer> m_answer;
    QString m_obstacle, m_failure;
    bool m_running = false;
};

}  // namespace sparsight::ui
