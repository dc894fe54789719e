#pragma once

#include <QWidget>

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

}  // namespace sparsight::ui
