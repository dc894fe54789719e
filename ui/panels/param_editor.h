#pragma once

#include <QWidget>
#include <functional>
#include <vector>

#include "core/masks/method.h"

class QCheckBox;
class QLineEdit;
class QSlider;

namespace sparsight::ui {

/// Fields made from a method's parameter table: per number a slider with a typed field, unit, wheel
/// and reset; a check box for flags; a line for text. Emits while a slider moves.
class ParamEditor : public QWidget {
    Q_OBJECT
public:
    explicit ParamEditor(QWidget* parent = nullptr);
    /// Shows `spec`; built again when the method or the prompt changes.
    /// @param tokens  bounds the sliders' range
    void setSpec(const MethodSpec& spec, Index tokens);
    const MethodSpec& spec() const { return m_spec; }

signals:
    void edited(const MethodSpec& spec);

private:
    struct Field {
        const Param* param;
        QSlider* slider = nullptr;
        QLineEdit* line = nullptr;
        QCheckBox* box = nullptr;
        double most = 1;  ///< end of the slider
    };
    void rebuild();
    void addNumber(const Param& param);
    void addFlag(const Param& param);
    void addText(const Param& param);
    double value(const Param& param) const;
    void setValue(const Field& field, double value);
    void showValue(const Field& field);
    /// Slider position 0..1000 of a value: logarithmic for counts, linear for shares.
    static int position(const Field& field, double value);
    static double valueAt(const Field& field, int position);

    MethodSpec m_spec;
    Index m_tokens = 0;
    std::vector<Field> m_fields;
    bool m_showing = false;
};

}  // namespace sparsight::ui
