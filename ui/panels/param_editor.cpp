#include "ui/panels/param_editor.h"

#include <QCheckBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QLocale>
#include <QSlider>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "ui/panels/panel_parts.h"

namespace sparsight::ui {
namespace {

constexpr int kSteps = 1000;
constexpr int kNameWidth = 74, kValueWidth = 116;

QString number(const Param& param, double value) {
    return param.kind == Param::Int ? QLocale::c().toString(qlonglong(std::llround(value)))
                                    : QString::number(value, 'g', 4);
}

/// " tokens", or nothing for a share.
QString unitOf(const Param& param) {
    const QString unit = QString::fromUtf8(param.unit);
    return unit.isEmpty() || unit == QLatin1String("1") ? QString() : QLatin1Char(' ') + unit;
}

QString title(const Param& param) {
    QString name = QString::fromUtf8(param.name);
    return name.replace(u'_', u' ');
}

}  // namespace

ParamEditor::ParamEditor(QWidget* parent) : QWidget(parent) {
    setObjectName(QStringLiteral("paramEditor"));
    auto* column = new QVBoxLayout(this);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(0);
}

void ParamEditor::setSpec(const MethodSpec& spec, Index tokens) {
    const bool rebuilt = spec.id != m_spec.id || tokens != m_tokens;
    m_spec = spec;
    m_tokens = tokens;
    m_showing = true;
    if (rebuilt) rebuild();
    for (const Field& field : m_fields) showValue(field);
    m_showing = false;
}

void ParamEditor::rebuild() {
    m_fields.clear();
    while (QLayoutItem* item = layout()->takeAt(0)) {
        if (item->widget()) item->widget()->deleteLater();
        delete item;
    }
    const Method& m = method(m_spec.id);
    for (const Param& param : m.params) {
        if (param.kind == Param::Flag)
            addFlag(param);
        else if (param.kind == Param::Text)
            addText(param);
        else
            addNumber(param);
    }
    if (m.params.empty()) {
        layout()->addWidget(mutedLabel(tr("This method has no parameters."), this));
    }
}

void ParamEditor::addNumber(const Param& param) {
    auto* box = new QWidget(this);
    auto* row = new QHBoxLayout(box);
    row->setContentsMargins(0, 0, 0, 0);
    row->setSpacing(6);
    auto* name = mutedLabel(title(param), box);
    name->setFixedWidth(kNameWidth);
    auto* slider = new QSlider(Qt::Horizontal, box);
    slider->setObjectName(QStringLiteral("slider_") + QString::fromUtf8(param.name));
    slider->setAccessibleName(title(param));
    slider->setRange(0, kSteps);
    slider->setPageStep(kSteps / 20);
    slider->setMinimumWidth(60);
    auto* line = new QLineEdit(box);
    line->setObjectName(QStringLiteral("param_") + QString::fromUtf8(param.name));
    line->setAccessibleName(title(param));
    line->setProperty("role", "value");
    line->setAlignment(Qt::AlignRight);
    line->setFixedWidth(kValueWidth);
    auto* reset = new QToolButton(box);
    reset->setText(QStringLiteral("↺"));
    reset->setAutoRaise(true);
    reset->setFixedSize(24, 24);
    reset->setObjectName(QStringLiteral("reset_") + QString::fromUtf8(param.name));
    reset->setAccessibleName(tr("Reset %1").arg(title(param)));
    reset->setToolTip(tr("Back to the standard value, %1").arg(number(param, param.standard)));
    row->addWidget(name);
    row->addWidget(slider, 1);
    row->addWidget(line);
    row->addWidget(reset);
    const QString help = QStringLiteral("%1 (%2 … %3, standard %4)")
                             .arg(QString::fromUtf8(param.help), number(param, param.least),
                                  number(param, param.most), number(param, param.standard));
    for (QWidget* w : std::initializer_list<QWidget*>{name, line, slider}) w->setToolTip(help);
    layout()->addWidget(box);

    Field field{&param, slider, line, nullptr, param.most};
    // A count larger than the prompt changes nothing: the slider ends there, the field does not.
    if (param.kind == Param::Int && m_tokens > 0)
        field.most = std::max(param.least + 1, std::min(param.most, double(m_tokens)));
    m_fields.push_back(field);
    connect(slider, &QSlider::valueChanged, this, [this, field](int at) {
        if (m_showing) return;
        const double now = value(*field.param), wanted = valueAt(field, at);
        const double step = field.param->step > 0             ? field.param->step
                            : field.param->kind == Param::Int ? 1
                                                              : 0;
        // A key or the wheel moves by one at least: on the logarithmic scale a position may be less
        // than a token, and rounding would put the slider back each time.
        const int before = position(field, now);
        if (!field.slider->isSliderDown() && std::abs(wanted - now) < step && at != before)
            setValue(field, now + (at > before ? step : -step));
        else
            setValue(field, wanted);
    });
    connect(line, &QLineEdit::editingFinished, this, [this, field] {
        bool ok = false;
        // "1,024 tokens": the unit may stand or be left out.
        const QString first = field.line->text().trimmed().section(u' ', 0, 0);
        const double typed = QLocale::c().toDouble(QString(first).remove(u','), &ok);
        if (ok && !m_showing)
            setValue(field, typed);
        else
            showValue(field);
    });
    connect(reset, &QToolButton::clicked, this,
            [this, field] { setValue(field, field.param->standard); });
}

void ParamEditor::addFlag(const Param& param) {
    auto* box = new QCheckBox(title(param), this);
    box->setObjectName(QStringLiteral("param_") + QString::fromUtf8(param.name));
    box->setToolTip(QString::fromUtf8(param.help));
    layout()->addWidget(box);
    const Field field{&param, nullptr, nullptr, box};
    m_fields.push_back(field);
    connect(box, &QCheckBox::toggled, this, [this, field](bool on) {
        if (!m_showing) setValue(field, on ? 1 : 0);
    });
}

void ParamEditor::addText(const Param& param) {
    auto* box = new QWidget(this);
    auto* row = new QHBoxLayout(box);
    row->setContentsMargins(0, 0, 0, 0);
    auto* name = mutedLabel(title(param), box);
    name->setFixedWidth(kNameWidth);
    name->setToolTip(QString::fromUtf8(param.help));
    auto* line = new QLineEdit(box);
    line->setObjectName(QStringLiteral("param_") + QString::fromUtf8(param.name));
    line->setAccessibleName(title(param));
    line->setToolTip(QString::fromUtf8(param.help));
    row->addWidget(name);
    row->addWidget(line, 1);
    layout()->addWidget(box);
    m_fields.push_back({&param, nullptr, line});
    const std::string key = param.name;
    connect(line, &QLineEdit::editingFinished, this, [this, line, key] {
        const std::string text = line->text().trimmed().toStdString();
        MethodSpec next = m_spec;
        if (text.empty())
            next.params.texts.erase(key);
        else
            next.params.texts[key] = text;
        if (next == m_spec) return;
        m_spec = next;
        emit edited(m_spec);
    });
}

double ParamEditor::value(const Param& param) const {
    const auto given = m_spec.params.numbers.find(param.name);
    return given == m_spec.params.numbers.end() ? param.standard : given->second;
}

void ParamEditor::setValue(const Field& field, double wanted) {
    const Param& param = *field.param;
    double next = std::clamp(wanted, param.least, param.most);
    if (param.step > 0)
        next = param.least + std::round((next - param.least) / param.step) * param.step;
    else if (param.kind != Param::Real)
        next = std::round(next);
    if (next != value(param)) {
        m_spec.params.numbers[param.name] = next;
        emit edited(m_spec);
    }
    m_showing = true;
    showValue(field);
    m_showing = false;
}

void ParamEditor::showValue(const Field& field) {
    if (field.param->kind == Param::Text) {
        const auto given = m_spec.params.texts.find(field.param->name);
        field.line->setText(
            given == m_spec.params.texts.end() ? QString() : QString::fromStdString(given->second));
        return;
    }
    const double v = value(*field.param);
    if (field.box) field.box->setChecked(v != 0);
    if (field.line) field.line->setText(number(*field.param, v) + unitOf(*field.param));
    if (field.slider && !field.slider->isSliderDown()) field.slider->setValue(position(field, v));
}

int ParamEditor::position(const Field& field, double value) {
    const double least = field.param->least, most = field.most;
    if (most <= least) return 0;
    const double share = field.param->kind == Param::Int && most - least > 64
                             ? std::log1p(value - least) / std::log1p(most - least)
                             : (value - least) / (most - least);
    return int(std::lround(std::clamp(share, 0.0, 1.0) * kSteps));
}

double ParamEditor::valueAt(const Field& field, int position) {
    const double least = field.param->least, most = field.most, share = double(position) / kSteps;
    if (field.param->kind == Param::Int && most - least > 64)
        return least + std::expm1(share * std::log1p(most - least));
    return least + share * (most - least);
}

}  // namespace sparsight::ui
