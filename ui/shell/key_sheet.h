#pragma once

#include <QDialog>

namespace sparsight::ui {

class Commands;

/// All keys on one sheet.
class KeySheet : public QDialog {
public:
    KeySheet(const Commands& commands, QWidget* parent);
};

}  // namespace sparsight::ui
