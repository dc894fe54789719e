#include "ui/shell/theme.h"

#include <QApplication>
#include <QFontDatabase>
#include <QLocale>
#include <QPalette>
#include <QStyleFactory>

namespace sparsight::ui {
namespace {

const Theme kDark{"#16181d", "#1d2026", "#252932", "#30353f", "#e6e8ec", "#9aa3b2",
                  "#4aa8ff", "#0b1016", "#101114", "#d55e00", "#e69f00", true};
const Theme kLight{"#f3f4f6", "#ffffff", "#f0f2f5", "#d8dce3", "#1b1f26", "#5d6675",
                   "#0b6bcb", "#ffffff", "#e8eaee", "#c25400", "#8a5a00", false};
// Pure ends and a strong line, for eyes or screens that need it.
const Theme kContrast{"#000000", "#000000", "#141414", "#a0a0a0", "#ffffff", "#dddddd",
                      "#66c2ff", "#000000", "#000000", "#ff8a3c", "#ffd24a", true};

struct State {
    ThemeChoice choice = ThemeChoice::System;
    Theme theme = kDark;
    bool systemDark = true, systemKnown = false;
};

State& state() {
    static State s;
    return s;
}

QFont interFont(int pixels, QFont::Weight weight) {
    static const bool hasInter = QFontDatabase::families().contains(QStringLiteral("Inter"));
    QFont font = hasInter ? QFont(QStringLiteral("Inter"))
                          : QFontDatabase::systemFont(QFontDatabase::GeneralFont);
    font.setPixelSize(pixels);
    font.setWeight(weight);
    return font;
}

QPalette paletteOf(const Theme& t) {
    QPalette p;
    const auto set = [&p](QPalette::ColorRole role, const QColor& c) { p.setColor(role, c); };
    set(QPalette::Window, t.panel);
    set(QPalette::WindowText, t.text);
    set(QPalette::Base, t.raised);
    set(QPalette::AlternateBase, t.panel);
    set(QPalette::Text, t.text);
    set(QPalette::Button, t.raised);
    set(QPalette::ButtonText, t.text);
    set(QPalette::BrightText, t.onAccent);
    set(QPalette::ToolTipBase, t.raised);
    set(QPalette::ToolTipText, t.text);
    set(QPalette::PlaceholderText, t.muted);
    set(QPalette::Highlight, t.accent);
    set(QPalette::HighlightedText, t.onAccent);
    set(QPalette::Link, t.accent);
    set(QPalette::Light, t.raised.lighter(120));
    set(QPalette::Midlight, t.raised);
    set(QPalette::Mid, t.line);
    set(QPalette::Dark, t.line);
    set(QPalette::Shadow, t.window.darker(150));
    for (const auto role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText})
        p.setColor(QPalette::Disabled, role, t.muted);
    p.setColor(QPalette::Disabled, QPalette::Highlight, t.line);
    return p;
}

/// Names in braces stand for colours of the table.
constexpr const char* kSheet = R"(
QMainWindow, QDialog, #startPage { background: {window}; }
QWidget { font-size: 13px; }
QLabel, QCheckBox, QRadioButton { background: transparent; }
QLabel[role="title"], QToolButton[role="title"] { color: {muted}; font-size: 11px; font-weight: 600; }
QLabel[role="muted"] { color: {muted}; font-size: 12px; }
QLabel[role="strong"] { font-weight: 600; }
QLabel[role="hero"] { font-size: 24px; font-weight: 600; }
QLabel[role="figure"] { font-size: 19px; font-weight: 600; }
QLabel[role="danger"], QLabel[warn="true"] { color: {lost}; }
QLabel[stale="true"] { color: {muted}; }
QLabel[role="chip"] { background: {raised}; border: 1px solid {line}; border-radius: 6px; padding: 4px 10px; }
QLabel[role="pill"] { color: {accent}; background: {accentTint}; border-radius: 9px; padding: 2px 9px; font-weight: 600; font-size: 12px; }
QFrame[role="card"] { background: {raised}; border: none; border-radius: 6px; }
QFrame[role="banner"] { background: {bannerTint}; border: none; border-left: 3px solid {warning}; }
QFrame[role="line"] { background: {line}; border: none; }

QMenuBar { background: {panel}; color: {muted}; border-bottom: 1px solid {line}; padding: 1px 4px; }
QMenuBar::item { background: transparent; padding: 4px 9px; border-radius: 4px; }
QMenuBar::item:selected, QMenuBar::item:pressed { background: {raised}; color: {text}; }
QMenu { background: {panel}; border: 1px solid {line}; padding: 4px; }
QMenu::item { padding: 5px 28px 5px 22px; border-radius: 4px; }
QMenu::item:selected { background: {accentTint}; color: {text}; }
QMenu::item:disabled { color: {muted}; }
QMenu::separator { height: 1px; background: {line}; margin: 4px 6px; }

QToolBar { background: {panel}; border: none; border-bottom: 1px solid {line}; padding: 5px 8px; spacing: 8px; }
QStatusBar { background: {panel}; color: {muted}; border-top: 1px solid {line}; }
QStatusBar::item { border: none; }
QStatusBar QLabel, QStatusBar QPushButton { font-size: 12px; }

QMainWindow::separator { background: {line}; width: 1px; height: 1px; }
QMainWindow::separator:hover { background: {accent}; }
QDockWidget { background: {panel}; }
QWidget[role="panel"] { background: {panel}; }
#dockTitle { background: {panel}; }
#commandPalette { background: {panel}; border: 1px solid {line}; border-radius: 8px; }
#tourPanel { background: {panel}; border: 1px solid {line}; border-radius: 8px; }
#centre { background: {mapBackground}; }
QTabBar { background: {panel}; }
QTabBar::tab { background: transparent; color: {muted}; padding: 5px 12px; border: none; border-bottom: 2px solid transparent; font-size: 12px; }
QTabBar::tab:selected { color: {text}; border-bottom: 2px solid {accent}; }
QTabBar::tab:hover { color: {text}; }
QTabWidget::pane { border: none; }
QTabWidget QTabBar { background: transparent; }

QPushButton, QToolButton[role="chip"] { background: {raised}; border: 1px solid {line}; border-radius: 6px; padding: 4px 12px; min-height: 18px; }
QPushButton:hover, QToolButton[role="chip"]:hover { border-color: {muted}; }
QPushButton:pressed { background: {line}; }
QPushButton:checked, QToolButton[role="chip"]:checked { border: 1px solid {accent}; background: {accentTint}; }
QPushButton:disabled { color: {muted}; background: {panel}; }
QPushButton[role="primary"] { background: {accent}; color: {onAccent}; border: 1px solid {accent}; font-weight: 600; }
QPushButton[role="primary"]:hover { background: {accentHover}; }
QPushButton[role="primary"]:disabled { background: {line}; border-color: {line}; color: {muted}; }
QPushButton[role="flat"] { background: transparent; border: none; text-align: left; padding: 4px 6px; }
QPushButton[tall="true"] { min-height: 44px; }
QPushButton[role="flat"]:hover { background: {raised}; }
QPushButton:focus { border: 2px solid {accent}; padding: 3px 11px; }
QPushButton[role="primary"]:focus { border: 2px solid {text}; padding: 3px 11px; }
QPushButton[role="flat"]:focus { border: 2px solid {accent}; padding: 2px 4px; }
QPushButton[compact="true"] { font-size: 12px; padding: 1px 10px; }
QPushButton[compact="true"]:focus { padding: 0 9px; }
QToolButton { background: transparent; border: 1px solid transparent; border-radius: 4px; padding: 2px 4px; }
QToolButton:hover { background: {raised}; }
QToolButton:focus { border: 2px solid {accent}; padding: 1px 3px; }
QPushButton[role="row"] { text-align: left; padding: 2px 4px; background: transparent; border: 1px solid transparent; border-radius: 4px; }
QPushButton[role="row"]:focus { border: 2px solid {accent}; padding: 1px 3px; }
QPushButton[role="row"]:hover { background: {raised}; }
QPushButton[role="row"]:checked { background: {raised}; font-weight: 600; }
QToolButton::menu-indicator { image: none; width: 0; }

QLineEdit, QPlainTextEdit, QTextEdit, QAbstractSpinBox, QComboBox { background: {raised}; border: 1px solid {line}; border-radius: 6px; padding: 3px 8px; selection-background-color: {accent}; selection-color: {onAccent}; }
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus, QAbstractSpinBox:focus, QComboBox:focus { border: 2px solid {accent}; padding: 2px 7px; }
QComboBox[compact="true"] { font-size: 12px; padding: 1px 6px; }
QComboBox[compact="true"]:focus { padding: 0 5px; }
QLineEdit[role="value"] { background: transparent; border: 1px solid transparent; padding: 1px 4px; }
QLineEdit[role="value"]:hover { background: {raised}; border-color: {line}; }
QLineEdit[role="value"]:focus { background: {raised}; border: 2px solid {accent}; padding: 0 3px; }
QLineEdit:disabled, QComboBox:disabled, QAbstractSpinBox:disabled { color: {muted}; }
QComboBox::drop-down { border: none; width: 20px; }
QComboBox::down-arrow { image: url(:/icons/chevron-{tone}.svg); width: 10px; height: 10px; }
QComboBox QAbstractItemView { background: {panel}; border: 1px solid {line}; selection-background-color: {accentTint}; selection-color: {text}; outline: none; }
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { width: 0; border: none; }
QCheckBox::indicator, QRadioButton::indicator { width: 14px; height: 14px; border: 1px solid {muted}; background: {raised}; }
QCheckBox::indicator { border-radius: 4px; }
QRadioButton::indicator { border-radius: 8px; }
QCheckBox::indicator:checked { background: {accent}; border-color: {accent}; image: url(:/icons/check-{onTone}.svg); }
QRadioButton::indicator:checked { background: {accent}; border: 4px solid {raised}; }
QCheckBox:focus, QRadioButton:focus { color: {accent}; }
QCheckBox::indicator:focus, QRadioButton::indicator:focus { border: 2px solid {accent}; width: 12px; height: 12px; }
QGraphicsView { background: transparent; border: 2px solid transparent; }
QGraphicsView:focus { border-color: {accent}; }

QSlider::groove:horizontal { height: 4px; border-radius: 2px; background: {line}; }
QSlider::sub-page:horizontal { background: {accent}; border-radius: 2px; }
QSlider::handle:horizontal { width: 12px; height: 12px; margin: -5px 0; border-radius: 7px; background: {handle}; border: 1px solid {accent}; }
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus { background: {accent}; }
QSlider::sub-page:horizontal:disabled { background: {muted}; }

QProgressBar { background: {line}; border: none; border-radius: 3px; height: 6px; text-align: center; color: transparent; }
QProgressBar::chunk { background: {accent}; border-radius: 3px; }

QTableView, QListView, QTreeView { background: {panel}; alternate-background-color: {panel}; border: none; gridline-color: {line}; selection-background-color: {accentTint}; selection-color: {text}; outline: none; }
QTableView::item, QListView::item { padding: 2px 5px; border: none; }
QListView::item:selected, QTableView::item:selected { background: {accentTint}; color: {text}; }
QListView::item:hover { background: {raised}; }
#planGrid { font-size: 11px; }
#planGrid::item { padding: 1px; }
QHeaderView { background: {panel}; }
QHeaderView::section { background: {panel}; color: {muted}; font-size: 12px; font-weight: 400; border: none; padding: 3px 8px; }
#metricsTable QHeaderView::section { padding-right: 0; }
#metricsTable QHeaderView::up-arrow, #metricsTable QHeaderView::down-arrow { subcontrol-origin: margin; subcontrol-position: top center; width: 9px; height: 9px; }
#metricsTable QHeaderView::up-arrow { image: url(:/icons/chevron-up-{tone}.svg); }
#metricsTable QHeaderView::down-arrow { image: url(:/icons/chevron-{tone}.svg); }
QTableCornerButton::section, QAbstractScrollArea::corner { background: {panel}; border: none; }
QDialogButtonBox { dialogbuttonbox-buttons-have-icons: 0; }

QScrollArea, QScrollArea > QWidget > QWidget { background: transparent; border: none; }
QScrollBar:vertical { background: transparent; width: 10px; margin: 0; }
QScrollBar:horizontal { background: transparent; height: 10px; margin: 0; }
QScrollBar::handle { background: {line}; border-radius: 4px; min-height: 28px; min-width: 28px; margin: 1px; }
QScrollBar::handle:hover { background: {muted}; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QSplitter::handle { background: {line}; }
QToolTip { background: {raised}; color: {text}; border: 1px solid {line}; padding: 4px 6px; }
QGroupBox { border: none; margin-top: 18px; font-size: 11px; font-weight: 600; color: {muted}; }
QGroupBox::title { subcontrol-origin: margin; left: 0; }
)";

QString sheetOf(const Theme& t) {
    QString sheet = QString::fromUtf8(kSheet);
    const std::pair<const char*, QColor> colours[] = {
        {"{window}", t.window},
        {"{panel}", t.panel},
        {"{raised}", t.raised},
        {"{line}", t.line},
        {"{text}", t.text},
        {"{muted}", t.muted},
        {"{accent}", t.accent},
        {"{onAccent}", t.onAccent},
        {"{accentHover}", blend(t.accent, t.text, 0.85)},
        {"{accentTint}", blend(t.accent, t.panel, 0.16)},
        {"{bannerTint}", blend(t.warning, t.panel, 0.14)},
        {"{mapBackground}", t.mapBackground},
        {"{lost}", t.lost},
        {"{warning}", t.warning},
        {"{handle}", t.dark ? t.text : t.panel},
    };
    for (const auto& [name, colour] : colours) sheet.replace(QLatin1String(name), colour.name());
    sheet.replace(QLatin1String("{tone}"), t.dark ? QLatin1String("dark") : QLatin1String("light"));
    sheet.replace(QLatin1String("{onTone}"),
                  t.dark ? QLatin1String("light") : QLatin1String("dark"));
    return sheet;
}

}  // namespace

QColor blend(const QColor& over, const QColor& under, double share) {
    const auto mix = [share](int a, int b) { return int(share * a + (1 - share) * b + 0.5); };
    return QColor(mix(over.red(), under.red()), mix(over.green(), under.green()),
                  mix(over.blue(), under.blue()));
}

const Theme& theme() {
    return state().theme;
}

ThemeChoice themeChoice() {
    return state().choice;
}

void applyTheme(ThemeChoice choice) {
    State& s = state();
    if (!s.systemKnown) {
        // Qt 6.4 has no colour scheme to ask: the desktop's own palette tells.
        s.systemDark = QApplication::palette().color(QPalette::Window).lightness() < 128;
        s.systemKnown = true;
        QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
    }
    s.choice = choice;
    switch (choice) {
        case ThemeChoice::Dark:
            s.theme = kDark;
            break;
        case ThemeChoice::Light:
            s.theme = kLight;
            break;
        case ThemeChoice::HighContrast:
            s.theme = kContrast;
            break;
        case ThemeChoice::System:
            s.theme = s.systemDark ? kDark : kLight;
            break;
    }
    QApplication::setFont(bodyFont());
    QApplication::setPalette(paletteOf(s.theme));
    qApp->setStyleSheet(sheetOf(s.theme));
}

ThemeChoice themeByName(const QString& name) {
    for (const ThemeChoice c : {ThemeChoice::Dark, ThemeChoice::Light, ThemeChoice::HighContrast})
        if (name == themeName(c)) return c;
    return ThemeChoice::System;
}

QString themeName(ThemeChoice choice) {
    switch (choice) {
        case ThemeChoice::Dark:
            return QStringLiteral("dark");
        case ThemeChoice::Light:
            return QStringLiteral("light");
        case ThemeChoice::HighContrast:
            return QStringLiteral("high-contrast");
        case ThemeChoice::System:
            break;
    }
    return QStringLiteral("system");
}

QFont bodyFont() {
    return interFont(13, QFont::Normal);
}
QFont titleFont() {
    return interFont(11, QFont::DemiBold);
}
QFont figureFont() {
    return interFont(19, QFont::DemiBold);
}
QFont smallFont() {
    return interFont(11, QFont::Normal);
}

QString thousands(qint64 value) {
    return QLocale(QLocale::English, QLocale::UnitedStates).toString(value);
}

}  // namespace sparsight::ui
