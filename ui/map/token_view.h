#pragma once

#include <QAbstractScrollArea>
#include <QHash>
#include <vector>

#include "ui/map/head_data.h"

class QPushButton;

namespace sparsight::ui {

class Banner;
class ElidedLabel;
class Engine;
class PatchGrid;
class TokenText;

/// The prompt as flowing text. Its background is the selected query's attention (what the row
/// reads), or, with "Key", the selected key's column (who reads the token). A click selects the
/// token as query or key, Shift+click the other way round. Long stretches that are not read are
/// folded to a chip; a click on it unfolds them.
class TokenView : public QWidget {
    Q_OBJECT
public:
    TokenView(Document* document, Engine* engine, QWidget* parent);
    QSize minimumSizeHint() const override { return {200, 90}; }
    /// What the background shows, and the choices, for the panel's title line.
    QWidget* tools() const { return m_tools; }
    bool folding() const;
    void setFolding(bool on);
    /// Unfolds the stretch that holds the token. @return false when it is not folded
    bool unfold(Index token);

protected:
    bool event(QEvent* event) override;

private:
    QPushButton* addButton(const char* name, const QString& text, const QString& help);
    void setKeyMode(bool on);
    void refresh();  ///< asks for the probabilities of the selected row or column
    void refreshTitle();
    Index own() const;  ///< the selected query, or key in key mode

    Document* m_document;
    Engine* m_engine;
    HeadRef m_head;
    bool m_keyMode = false;
    void click(Index token, bool otherWay);
    QWidget* m_tools;
    ElidedLabel* m_title;
    QPushButton *m_query, *m_key, *m_fold;
    Banner* m_banner;
    TokenText* m_text;
    PatchGrid* m_image;  ///< in place of the text when the capture is of an image
};

/// The tokens, laid out once per width and set of folds, and painted line by line.
class TokenText : public QAbstractScrollArea {
    Q_OBJECT
public:
    /// A stretch of tokens that is shown as a chip.
    struct Fold {
        Index first = 0, count = 0;
        double mass = 0;  ///< sum of its probabilities
        float x = 0, width = 0;
        int line = 0;
        bool contains(Index token) const { return token >= first && token < first + count; }
    };

    TokenText(Document* document, QWidget* parent);
    void setProbabilities(std::vector<float> p);
    void setKeyMode(bool on);
    void setFolding(bool on);
    bool folding() const { return m_folding; }
    bool unfold(Index token);
    void reset();  ///< another prompt
    /// Brings the selected token into sight, out of a fold if need be.
    void selectionMoved();
    const std::vector<Fold>& folds() const { return m_folds; }
    QRect chipRect(const Fold& fold) const;  ///< in the viewport, as it is scrolled now

signals:
    void clicked(Index token, bool otherWay);

protected:
    void paintEvent(QPaintEvent* event) override;
    void resizeEvent(QResizeEvent* event) override;
    void mousePressEvent(QMouseEvent* event) override;
    void mouseMoveEvent(QMouseEvent* event) override;
    void keyPressEvent(QKeyEvent* event) override;
    bool viewportEvent(QEvent* event) override;

private:
    struct Token {
        QString text;  ///< as it is painted
        float x = 0, width = 0;
        int line = 0;
    };
    void layOut();
    void measureTokens();
    /// @param context  tokens left standing around one that is read
    void findFolds(Index context);
    void flow();               ///< lines, around the folds
    void relayOut();           ///< keeps the selected token where it is on the screen
    void reveal(Index token);  ///< scrolls so far that it is in sight
    int textHeight() const;
    int lineHeight() const;
    Index own() const;     ///< -1 in cross-attention, where it is a token of the other sequence
    Index other() const;   ///< the token of the shown sequence that is selected the other way
    Index shown() const;   ///< tokens of the text: keys, in key mode rows
    bool crosses() const;  ///< rows and keys are different sequences
    QString shownText(Index token) const;
    Index tokenAt(const QPoint& point) const;
    const Fold* foldAt(const QPoint& point) const;
    const Fold* foldOf(Index token) const;
    void paintToken(QPainter& painter, Index token, const QRectF& box) const;
    void paintChip(QPainter& painter, const Fold& fold) const;
    QString helpAt(const QPoint& point) const;

    Document* m_document;
    std::vector<Token> m_tokens;
    std::vector<Index> m_lineBegin;  ///< first token of each line
    std::vector<Fold> m_folds;       ///< by first token
    std::vector<char> m_opened;      ///< tokens that a click has unfolded
    std::vector<float> m_p;
    bool m_keyMode = false, m_folding = true;
    int m_laidOutWidth = -1;
};

}  // namespace sparsight::ui
