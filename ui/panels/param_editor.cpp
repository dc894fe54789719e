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

namespace sparsight::ui {
namespace {

constexpr int kSteps = 1000;

QString number(const Param& param, double value) {
    return param.kind == Param::Int ? QLocale::c().toString(qlonglong(std::llround(value)))
                                    : QString::number(value, 'g', 4);
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
    column->setSpacing(6);
}

void ParamEditor::setSpec(const MethodSpec& spec, Index tokens) {
    const bool rebuilt = spec.id != m_spec.id || m_fields.empty();
    m_spec = spec;
    m_showing = true;
    if (rebuilt) rebuild(tokens);
    for (const Field& field : m_fields) show(field);
    m_showing = false;
}

void ParamEditor::rebuild(Index tokens) {
    m_fields.clear();
    while (QLayoutItem* item = layout()->takeAt(0)) {
        if (item->widget()) item->widget()->deleteLater();
        delete item;
    }
    const Method& m = method(m_spec.id);
    for (const Param& param : m.params) {
        if (param.kind == Param::Flag) addFlag(param);
        else if (param.kind == Param::Text) addText(param);
        else addNumber(param, tokens);
    }
    if (m.params.empty()) {
        auto* label = new QLabel(tr("This method has no parameters."), this);
        label->setProperty("role", "muted");
        layout()->addWidget(label);
    }
}

void ParamEditor::addNumber(const Param& param, Index tokens) {
    auto* box = new QWidget(this);
    auto* column = new QVBoxLayout(box);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(1);
    auto* top = new QHBoxLayout;
    top->setSpacing(4);
    auto* name = new QLabel(title(param), box);
    name->setProperty("role", "muted");
    auto* line = new QLineEdit(box);
    line->setObjectName(QStringLiteral("param_") + QString::fromUtf8(param.name));
    line->setAccessibleName(title(param));
    line->setAlignment(Qt::AlignRight);
    line->setFixedWidth(72);
    line->setFrame(false);
    auto* unit = new QLabel(QString::fromUtf8(param.unit) == QLatin1String("1") ? QString() : QString::fromUtf8(param.unit), box);
    unit->setProperty("role", "muted");
    auto* reset = new QToolButton(box);
    reset->setText(QStringLiteral("↺"));
    reset->setAutoRaise(true);
    reset->setFixedSize(24, 24);
    reset->setObjectName(QStringLiteral("reset_") + QString::fromUtf8(param.name));
    reset->setToolTip(tr("Back to the standard value, %1").arg(number(param, param.standard)));
    top->addWidget(name);
    top->addStretch();
    top->addWidget(line);
    top->addWidget(unit);
    top->addWidget(reset);
    auto* slider = new QSlider(Qt::Horizontal, box);
    slider->setObjectName(QStringLiteral("slider_") + QString::fromUtf8(param.name));
    slider->setAccessibleName(title(param));
    slider->setRange(0, kSteps);
    slider->setPageStep(kSteps / 20);
    column->addLayout(top);
    column->addWidget(slider);
    const QString help = QStringLiteral("%1 (%2 … %3, standard %4)")
                             .arg(QString::fromUtf8(param.help), number(param, param.least),
                                  number(param, param.most), number(param, param.standard));
    for (QWidget* w : {static_cast<QWidget*>(name), static_cast<QWidget*>(line), static_cast<QWidget*>(slider)})
        w->setToolTip(help);
    layout()->addWidget(box);

    Field field{&param, slider, line, param.most};
    // A count larger than the prompt changes nothing: the slider ends there, the field does not.
    if (param.kind == Param::Int && tokens > 0)
        field.most = std::max(param.least + 1, std::min(param.most, double(tokens)));
    m_fields.push_back(field);
    connect(slider, &QSlider::valueChanged, this, [this, field](int position) {
        if (!m_showing) setValue(field, valueAt(field, position));
    });
    connect(line, &QLineEdit::editingFinished, this, [this, field] {
        bool ok = false;
        const double typed = QLocale::c().toDouble(field.line->text().remove(u','), &ok);
        if (ok && !m_showing) setValue(field, typed);
        else show(field);
    });
    connect(reset, &QToolButton::clicked, this, [this, field] { setValue(field, field.param->standard); });
}

void ParamEditor::addFlag(const Param& param) {
    auto* box = new QCheckBox(title(param), this);
    box->setObjectName(QStringLiteral("param_") + QString::fromUtf8(param.name));
    box->setToolTip(QString::fromUtf8(param.help));
    box->setChecked(value(param) != 0);
    layout()->addWidget(box);
    const Field field{&param};
    connect(box, &QCheckBox::toggled, this, [this, field](bool on) { setValue(field, on ? 1 : 0); });
}

void ParamEditor::addText(const Param& param) {
    auto* box = new QWidget(this);
    auto* row = new QHBoxLayout(box);
    row->setContentsMargins(0, 0, 0, 0);
    auto* name = new QLabel(title(param), box);
    name->setProperty("role", "muted");
    name->setToolTip(QString::fromUtf8(param.help));
    auto* line = new QLineEdit(box);
    line->setObjectName(QStringLiteral("param_") + QString::fromUtf8(param.name));
    line->setAccessibleName(title(param));
    line->setToolTip(QString::fromUtf8(param.help));
    const auto given = m_spec.params.texts.find(param.name);
    if (given != m_spec.params.texts.end()) line->setText(QString::fromStdString(given->second));
    row->addWidget(name);
    row->addWidget(line, 1);
    layout()->addWidget(box);
    const std::string key = param.name;
    connect(line, &QLineEdit::editingFinished, this, [this, line, key] {
        const std::string text = line->text().trimmed().toStdString();
        MethodSpec next = m_spec;
        if (text.empty()) next.params.texts.erase(key);
        else next.params.texts[key] = text;
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
    if (param.kind != Param::Real) next = std::round(next);
    if (next != value(param)) {
        m_spec.params.numbers[param.name] = next;
        emit edited(m_spec);
    }
    m_showing = true;
    show(field);
    m_showing = false;
}

void ParamEditor::show(const Field& field) {
    const double v = value(*field.param);
    if (field.line) field.line->setText(number(*field.param, v));
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
