#pragma once

#include <QAbstractTableModel>
#include <QDialog>
#include <QTimer>

#include "sessions/import_to_session.h"
#include "ui/shell/capture_job.h"

class QCheckBox;
class QComboBox;
class QFormLayout;
class QLabel;
class QLineEdit;
class QTableView;

namespace sparsight::ui {

class Engine;
class JobFooter;

/// The tensors of the files and what each is taken for.
class ImportPreview : public QAbstractTableModel {
    Q_OBJECT
public:
    enum Column { Tensor, Type, Shape, TakenFor, Place, ColumnCount };
    using QAbstractTableModel::QAbstractTableModel;
    struct Row {
        QString tensor, type, shape, part, place, problem;
    };
    void setRows(std::vector<Row> rows);
    int rowCount(const QModelIndex& parent = {}) const override {
        return parent.isValid() ? 0 : int(m_rows.size());
    }
    int columnCount(const QModelIndex& parent = {}) const override {
        return parent.isValid() ? 0 : ColumnCount;
    }
    QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
    QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

private:
    std::vector<Row> m_rows;
};

/// Tensors of other programs into a session: shows what the files hold, maps names to layers and
/// heads, checks every shape before anything is read, then imports. The result is handed on by
/// imported().
class ImportDialog : public QDialog {
    Q_OBJECT
public:
    /// @param folder  where sessions are put unless the user chooses another place
    ImportDialog(Engine* engine, const QString& folder, QWidget* parent = nullptr);
    /// Opens files in place of those that were there; what was typed for others is forgotten.
    void setFiles(const QStringList& files);
    void start();
    bool ready() const { return m_ready; }  ///< the shapes are checked and nothing is wrong

signals:
    void imported(const CaptureResult& result);
    void failed(const QString& sentence);

private:
    /// The files and the plan for them, made in a lane.
    struct State {
        std::shared_ptr<const TensorSet> set;
        ImportPlan plan;
    };
    void makeForm(QFormLayout* form);
    void makePatternRow(QFormLayout* form, Part part, const QString& label, const QString& help);
    void chooseFiles();
    void changed();  ///< something that the plan depends on
    void plan();
    void showPlan(const State& state);
    void showProblem(const QString& sentence);
    /// What the fields say. @throws Error(Usage) for a field that is no number
    sessions::ImportRequest request() const;
    QString freeName() const;

    Engine* m_engine;
    QString m_folder;
    QStringList m_files;
    std::shared_ptr<const TensorSet> m_set;
    ImportPlan m_plan;
    ImportPreview m_preview;
    QWidget* m_form;
    QLabel *m_fileNames, *m_summary;
    QComboBox* m_patterns[kParts] = {};
    bool m_typed[kParts] = {};  ///< the user chose the pattern
    QComboBox *m_axes, *m_causal;
    QLineEdit *m_scale, *m_softcap, *m_window, *m_layers, *m_tokenizer, *m_name, *m_out;
    QCheckBox *m_bf16, *m_topKeys;
    QTableView* m_table;
    JobFooter* m_footer;
    QTimer m_soon;
    bool m_ready = false, m_outTouched = false;
};

/// Whether a file that was dropped is one of tensors to import, not a model's weights: .npy, .npz
/// and HDF5, pickles (to say why not), and safetensors that hold q and k. Reads headers only.
bool isTensorFile(const QString& path);

}  // namespace sparsight::ui
