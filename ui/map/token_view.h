#pragma once

#include <QAbstractScrollArea>
#include <QHash>
#include <vector>

#include "ui/map/head_data.h"

class QLabel;
class QPushButton;

namespace sparsight::ui {

class Engine;
class TokenText;

/// The prompt as flowing text. Its background is the selected query's attention (what the row
/// reads), or, with "Key", the selected key's column (who reads the token). A click selects the
/// token as query or key, Shift+click the other way round.
class TokenView : public QWidget {
    Q_OBJECT
public:
    TokenView(Document* document, Engine* engine, QWidget* parent);
    QSize minimumSizeHint() const override { return {200, 90}; }

protected:
    bool event(QEvent* event) override;

private:
    void setKeyMode(bool on);
    void refresh();  ///< asks for the probabilities of the selected row or column
    void refreshTitle();

    Document* m_document;
    Engine* m_engine;
    HeadRef m_head;
    bool m_keyMode = false;
    QLabel* m_title;
    QPushButton *m_query, *m_key;
    TokenText* m_text;
};

/// The tokens, laid out once per width and painted line by line.
class TokenText : public QAbstractScrollArea {
    Q_OBJECT
public:
    TokenText(Document* document, QWidget* parent);
    void setProbabilities(std::vector<float> p);
    void setKeyMode(bool on);
    void reset();  ///< another prompt
    /// Scrolls so far that the token is in sight.
    void reveal(Index token);

signals:
    void clicked(Index token, bool otherWay);

protected:
    void paintEvent(QPaintEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;
    void mousePressEvent(QMouseEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    bool viewportEvent(QEvent* event) override;

private:
    struct Token {
        QString text;
        float x = 0, width = 0;
        int line = 0;
    };
    void layOut();
    int lineHeight() const;
    Index tokenAt(const QPoint& point) const;

    Document* m_document;
    std::vector<Token> m_tokens;
    std::vector<Index> m_lineBegin;  ///< first token of each line
    std::vector<float> m_p;
    bool m_keyMode = false;
    int m_laidOutWidth = -1;
};

}  // namespace sparsight::ui
