#pragma once

#include <QColor>
#include <QFont>
#include <QString>

namespace sparsight::ui {

/// The colours of the window: one table that the palette, the stylesheet and everything that paints
/// itself read. After a change Qt sends QEvent::PaletteChange to every widget: repaint then.
struct Theme {
    QColor window;         ///< behind the panels, status bar
    QColor panel;          ///< docks and dialogs
    QColor raised;         ///< fields, chips, selected rows, cards
    QColor line;           ///< separators and frames
    QColor text;           ///< full contrast
    QColor muted;          ///< labels, at least 4.5:1 on `panel`
    QColor accent;         ///< the one accent: selection, focus, main button
    QColor onAccent;       ///< text on `accent`
    QColor mapBackground;  ///< around the map and above its diagonal: not data
    QColor lost;           ///< lost mass and bad values (Okabe-Ito vermilion)
    QColor warning;        ///< banners that tell of a fall-back or a locked session
    bool dark = true;
};

enum class ThemeChoice { System, Dark, Light, HighContrast };

/// The theme in use. GUI thread only.
const Theme& theme();
/// Sets the application's palette, stylesheet and font. Widgets learn of it by PaletteChange.
/// `System` follows the palette that the desktop gave when the program started.
///
/// The stylesheet knows these values of a widget's dynamic property "role":
///   title   11 px semi-bold, muted, for a panel's title line
///   muted   grey small text          strong  13 px semi-bold
///   figure  19 px key figure         card    raised box around a key figure
///   chip    raised, rounded          pill    rounded label in the accent's tint
///   primary the main button          flat    tool button without a frame
///   banner  one-sentence message     danger  text in the lost colour
///   value   a number that is typed over, framed under the mouse or with the focus
/// and of a button's or choice's "compact" (small, for title lines) and "tall" (two lines of text),
/// and of a label's "warn" (a bad value) and "stale" (of an earlier setting).
void applyTheme(ThemeChoice choice);
ThemeChoice themeChoice();
/// "system", "dark", "light", "high-contrast"; anything else is System.
ThemeChoice themeByName(const QString& name);
QString themeName(ThemeChoice choice);

/// Inter where it is installed, else the system's font; digits of one width.
QFont bodyFont();    ///< 13 px
QFont titleFont();   ///< 11 px semi-bold
QFont figureFont();  ///< 19 px semi-bold, for key figures
QFont smallFont();   ///< 11 px

/// `share` of one colour over the other, opaque.
QColor blend(const QColor& over, const QColor& under, double share);
/// 1234567 -> "1,234,567".
QString thousands(qint64 value);

}  // namespace sparsight::ui
