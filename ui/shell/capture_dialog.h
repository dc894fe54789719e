#pragma once

#include <QDialog>
#include <QTimer>

#include "ui/shell/capture_job.h"

class QCheckBox;
class QComboBox;
class QDoubleSpinBox;
class QLabel;
class QLineEdit;
class QPlainTextEdit;
class QPushButton;
class QSpinBox;
class QTabWidget;

namespace sparsight::ui {

class Engine;
class JobFooter;

/// A new capture: model, prompt or needle, layers, storage; says before it starts what it takes,
/// and while it runs how far it is. The result is handed on by captured().
class CaptureDialog : public QDialog {
    Q_OBJECT
public:
    /// @param folder  where sessions are put unless the user chooses another place
    /// @param seed    of the first needle prompt
    CaptureDialog(Engine* engine, const QString& folder, quint64 seed, QWidget* parent = nullptr);
    void setModel(const QString& nameOrDirectory);
    /// Loads a text file as prompt. @throws Error(Io/NotFound)
    void loadText(const QString& file);
    CaptureOrder order() const;
    void start();

signals:
    void captured(const CaptureResult& result);
    void failed(const QString& sentence);

private:
    QWidget* makePromptTabs();
    QWidget* makeNeedlePage();
    QWidget* makeImagePage();
    QWidget* makeIdsPage();
    void changed();  ///< something that the estimate depends on
    void estimate();
    void describeModel();  ///< the facts of its headers, below its name
    void showFacts(const PromptFacts& facts);
    void cheaper();  ///< fewer layers and half the bytes
    QString freeName() const;

    Engine* m_engine;
    QString m_folder;
    QComboBox *m_model, *m_store;
    QTabWidget* m_tabs;
    QPlainTextEdit* m_text;
    QCheckBox *m_chat, *m_topKeys;
    QSpinBox *m_tokens, *m_seed, *m_decode;
    QDoubleSpinBox* m_depth;
    QLineEdit *m_haystack, *m_layers, *m_steps, *m_out, *m_decoder, *m_image, *m_imageSize, *m_ids;
    QLabel *m_count, *m_estimate, *m_modelFacts;
    JobFooter* m_footer;
    QPushButton* m_cheaper;
    QWidget* m_form;
    QTimer m_soon;
    QString m_textName, m_described;
    Index m_tokenCount = 0;
    bool m_outTouched = false;
};

}  // namespace sparsight::ui
