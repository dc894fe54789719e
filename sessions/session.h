#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/capture/capture.h"
#include "core/metrics/head_metrics.h"
#include "core/metrics/mask_metrics.h"
#include "core/model/tokenizer.h"
#include "core/plan/attention_plan.h"

namespace sparsight::sessions {

enum class OpenMode { ReadOnly, ReadWrite };

/// A capture as the catalogue knows it.
struct CaptureInfo {
    std::string uuid;
    std::string state;                 ///< open, complete, failed, cancelled
    std::string modelName, modelHint;  ///< hint: directory as given, may have moved
    ModelConfig config;                ///< parsed from the stored config.json
    std::string promptName, promptText, generator;
    std::optional<NeedleTruth> truth;
    std::vector<std::int32_t> tokenIds;
    std::vector<TokenOffset> offsets;  ///< into promptText; empty when not stored
    Index queries = 0;                 ///< rows of the maps: all tokens (0 too), but for imports
    Index prefill = 0;                 ///< tokens of the prompt; those after it were generated
    std::vector<Index> decodeSteps;    ///< the steps that were asked for; empty = all
    /// Of an encoder-decoder's decoder: rows of the dec and cross layers.
    std::vector<std::int32_t> decoderIds;
    std::string decoderText;
    std::vector<TokenOffset> decoderOffsets;  ///< into decoderText; empty when not stored
    /// Of an image: tokenIds are then the tokens' numbers 0, 1, ..
    std::optional<ImageGrid> image;
    std::vector<Index> layersAsked;  ///< chosen layers
    std::vector<Index> layersDone;   ///< committed ones, ascending
    kernels::DType store = kernels::DType::F32;
    bool topKeys = false;  ///< it keeps the kTopKeys largest probabilities of every row
    std::string device, createdUtc, finishedUtc, error;
    Index bytes = 0;
    double massError = 0;
    bool complete() const { return state == "complete"; }
    Index generated() const { return Index(tokenIds.size()) - prefill; }
    InputSize size() const;
};
/// Heads, rows and keys of one layer of a capture.
LayerShape layerShape(const CaptureInfo& capture, Index layer);
/// Query heads of all captured layers together.
Index headCount(const CaptureInfo& capture);

/// What `session info` and `session list` show.
struct SessionInfo {
    std::filesystem::path path;
    std::string uuid, createdUtc, appVersion;
    Index bytes = 0;
    std::vector<CaptureInfo> captures;
    bool writable = false;
    std::string lockHolder;             ///< who holds the writer's lock, in words; "" = nobody
    std::vector<std::string> warnings;  ///< leftovers found at opening and what was done
};

struct CaptureRequest {
    ModelConfig config;
    std::filesystem::path modelDirectory;
    std::string promptName, promptText, generator;
    std::optional<NeedleTruth> truth;
    std::vector<std::int32_t> tokenIds;  ///< of the keys; -1 = not known
    std::vector<TokenOffset> offsets;
    Index queries = 0;  ///< rows of the maps; 0 = one for each token
    Index prefill = 0;  ///< tokens of the prompt, before generated ones; 0 = all
    std::vector<Index>
        decodeSteps;  ///< ascending steps of interest (0 = the first generated token)
    std::vector<std::int32_t> decoderIds;  ///< encoder-decoders: from the start token on
    std::string decoderText;
    std::vector<TokenOffset> decoderOffsets;
    Pixels image;  ///< read in place of text (tokenIds are the tokens' numbers); not stored
    CaptureOptions options;
    std::string device;
};

/// Makes a request one of an image: its tokens are numbered. request.config must be there.
/// @throws Error as imageGrid
void setImage(CaptureRequest& request, Pixels image);
InputSize sizeOf(const CaptureRequest& request);
ModelInput modelInput(const CaptureRequest& request);  ///< what the model reads

/// A `NAME.sparsight` folder: session.db (SQLite, the source of truth) + write-once HDF5 segments
/// (docs/sessions.md). Calls are serialised inside, so any thread may call; what layer() and
/// stats() return is immutable. Readers of other processes are welcome.
class Session {
public:
    /// @throws Error(Usage) when something is there already (use open)
    static std::shared_ptr<Session> create(const std::filesystem::path& folder);
    /// Recovers what a crash left (deletes tmp/*.part, adopts or sets aside orphans, replays
    /// trash).
    /// @throws Error(Resources) locked by another process (names the holder) in ReadWrite;
    ///         Error(NotFound); Error(Format) damaged or foreign, with the reason
    static std::shared_ptr<Session> open(const std::filesystem::path& folder, OpenMode mode);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    const std::filesystem::path& path() const;
    OpenMode mode() const;
    SessionInfo info() const;

    // --- captures -------------------------------------------------------------------------
    /// @return uuid; the row is committed with state 'open'
    std::string beginCapture(const CaptureRequest& request);
    /// Commits one layer: Q, K, V, LSE and the statistics. After it returns, the layer survives a
    /// crash. @throws Error(Resources) no space, with the exact shortfall; the session stays usable
    void addLayer(const std::string& capture, const LayerCapture& layer, const LayerStats& stats);
    /// @param state complete, cancelled or failed
    void finishCapture(const std::string& capture, const std::string& state,
                       const std::string& error = {});
    /// Back to 'open' for the remaining layers; @return layers still to do
    std::vector<Index> resumeCapture(const std::string& capture);
    void removeCapture(const std::string& capture);

    CaptureInfo captureInfo(const std::string& uuid = {}) const;  ///< "" = the newest
    /// Checks CRC on first use, then maps Q, K, V, LSE. @throws Error(NotFound) layer not captured
    std::shared_ptr<const LayerCapture> layer(const std::string& capture, Index layer) const;
    /// Without top keys, which are many: topKeys() reads those that are wanted.
    std::shared_ptr<const LayerStats> stats(const std::string& capture, Index layer) const;
    /// The kTopKeys largest probabilities of some rows of a head.
    /// @throws Error(NotFound) when the capture keeps none, or for a layer, head or rows that it
    ///         does not have
    TopKeys topKeys(const std::string& capture, Index layer, Index head, TokenSpan rows) const;

    // --- what was computed ------------------------------------------------------------------
    void saveHeadFacts(const std::string& capture, const std::vector<HeadFacts>& facts);
    std::vector<HeadFacts> headFacts(const std::string& capture) const;  ///< empty = not yet
    void saveMaskMetrics(const std::string& capture, const MethodSpec& method,
                         const std::vector<MaskMetrics>& rows);
    void savePlan(const std::string& capture, const AttentionPlan& plan);
    std::vector<AttentionPlan> plans() const;
    void setUiState(const std::string& key, const std::string& json);
    std::optional<std::string> uiState(const std::string& key) const;

    struct Impl;

private:
    explicit Session(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> m_impl;
};

/// Whether a path looks like a session folder (cheap).
bool isSession(const std::filesystem::path& folder);

struct CheckReport {
    bool ok = true;
    Index segments = 0, bytes = 0;
    std::vector<std::string> problems;  ///< sentences
};
/// Verifies everything: quick_check, invariants, every CRC. Never changes anything.
CheckReport checkSession(const std::filesystem::path& folder, const Job& job = {});

/// Sessions in a directory (not recursive).
std::vector<SessionInfo> listSessions(const std::filesystem::path& directory);

/// The hidden sub-command that writes and re-reads HDF5 in a process of its own (crash of libhdf5
/// then costs nothing). Call from main() of every program before anything else: returns an exit
/// status when argv asked for it.
std::optional<int> runSessionHelper(int argc, char** argv);

/// Runs a capture into a session, from request to the finished state. On Cancelled or an error the
/// capture is marked and finished layers stay; the exception goes on.
/// @param resume uuid of a partial capture to go on with; "" = a new one
/// @return uuid
std::string captureToSession(Session& session, ModelRunner& model, kernels::Backend& backend,
                             const CaptureRequest& request, const std::string& resume = {},
                             const Job& job = {});

}  // namespace sparsight::sessions
