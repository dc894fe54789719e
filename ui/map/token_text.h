#pragma once

#include <QAbstractScrollArea>
#include <QHash>
#include <QTimer>
#include <vector>

#include "ui/document.h"

namespace sparsight::ui {

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
    void focusInEvent(QFocusEvent* event) override;
    void focusOutEvent(QFocusEvent* event) override;
    bool viewportEvent(QEvent* event) override;

private:
    static constexpr int kPad = 12;              ///< pixels about the text
    static constexpr double kFaintest = 1e-3;    ///< probability from which a background is seen
    static constexpr QChar kLineEnd{u'\u23ce'};  ///< stands for a line break

    struct Token {
        QString text;  ///< as it is painted
        float x = 0, width = 0;
        int line = 0;
    };
    void layOut();
    /// Measures on, by slices that the window does not feel. @return false when some are left: the
    /// text is laid out once they are done
    bool measureTokens();
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
    static QString chipText(const Fold& fold);
    static bool startsWord(const QString& text);
    static double strength(double p);
    void paintToken(QPainter& painter, Index token, const QRectF& box) const;
    void paintChip(QPainter& painter, const Fold& fold) const;
    QString helpAt(const QPoint& point) const;

    Document* m_document;
    std::vector<Token> m_tokens;     ///< empty until all are measured
    std::vector<Token> m_measured;   ///< those done so far
    QHash<QString, float> m_widths;  ///< a prompt repeats its tokens
    QTimer m_measureSoon;            ///< then the layout goes on
    std::vector<Index> m_lineBegin;  ///< first token of each line
    std::vector<Fold> m_folds;       ///< by first token
    std::vector<char> m_opened;      ///< tokens that a click has unfolded
    std::vector<float> m_p;
    bool m_keyMode = false, m_folding = true, m_keyboardFocus = false;
    int m_laidOutWidth = -1;
};

}  // namespace sparsight::ui
