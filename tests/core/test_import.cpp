#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>

#include "core/import/imported_model.h"
#include "core/import/npy.h"
#include "core/import/read_layer.h"
#include "kernels/base/error.h"

using namespace sparsight;
using Catch::Matchers::Contains;

namespace {

const std::string kData = SPARSIGHT_TEST_DATA "/import/";

/// An array in memory.
class FakeFile final : public TensorFile {
public:
    explicit FakeFile(std::string name = "fake.npz") : TensorFile(std::move(name)) {}
    FakeFile& add(const std::string& name, const std::vector<Index>& shape,
                  Element element = Element::F32, bool fortran = false) {
        ForeignTensor t;
        t.name = name;
        t.dtype = "fake";
        t.element = element;
        t.width = element == Element::F64 ? 8 : element == Element::F32 ? 4 : 2;
        if (element == Element::Int) t.width = 8;
        t.shape = shape;
        t.fortran = fortran;
        m_tensors.push_back(t);
        return *this;
    }
    FakeFile& about(const std::string& json) {
        m_metadata["sparsight"] = json;
        return *this;
    }
    /// Element i of every tensor is i.
    void read(std::size_t tensor, Index first, Index count, std::byte* out) override {
        for (Index i = first; i < first + count; ++i, out += m_tensors[tensor].width) {
            const float single = float(i);
            const double wide = double(i);
            if (m_tensors[tensor].width == 8)
                std::memcpy(out, &wide, 8);
            else
                std::memcpy(out, &single, 4);
        }
    }
};

TensorSet setOf(FakeFile file) {
    std::vector<std::unique_ptr<TensorFile>> files;
    files.push_back(std::make_unique<FakeFile>(std::move(file)));
    return TensorSet(std::move(files));
}

std::string problemOf(const TensorSet& set, const ImportOptions& options = {}) {
    const ImportPlan plan = planImport(set, options);
    return plan.problems.empty() ? std::string() : plan.problems.front();
}

TensorSet open(std::vector<std::string> names) {
    std::vector<std::unique_ptr<TensorFile>> files;
    for (const std::string& name : names) {
        switch (tensorFormat(kData + name)) {
            case TensorFormat::Npy:
                files.push_back(openNpyFile(kData + name));
                break;
            case TensorFormat::Npz:
                files.push_back(openNpzFile(kData + name));
                break;
            default:
                files.push_back(openSafetensorsFile(kData + name));
        }
    }
    return TensorSet(std::move(files));
}

std::span<const std::byte> bytesOf(const std::string& text) {
    return std::as_bytes(std::span(text));
}

std::string npy(const std::string& dict, char version = 1) {
    std::string text = std::string("\x93NUMPY") + version + '\0';
    text += char(dict.size() & 0xff);
    text += char(dict.size() >> 8);
    if (version > 1) text += std::string(2, '\0');
    return text + dict;
}

}  // namespace

TEST_CASE("names say part, layer and head", "[import]") {
    const auto check = [](const char* name, Part part, const char* pattern) {
        CAPTURE(name);
        const auto g = guessName(name);
        REQUIRE(g);
        CHECK(g->part == part);
        CHECK(g->pattern == pattern);
    };
    check("layer.3.q", Part::Q, "layer.{layer}.q");
    check("p0.L12.query_states", Part::Q, "p0.L{layer}.query_states");
    check("dec/l0_h12_keys", Part::K, "dec/l{layer}_h{head}_keys");
    check("v7", Part::V, "v{layer}");
    check("a1:head2.value", Part::V, "a{layer}:head{head}.value");
    check("model/layers/0/lse", Part::Lse, "model/layers/{layer}/lse");
    check("layer.0.sinks", Part::Sinks, "layer.{layer}.sinks");
    CHECK(patternsOf(Part::K, "p1.L{layer}.query_states") ==
          std::vector<std::string>{"p1.L{layer}.k_states", "p1.L{layer}.key_states",
                                   "p1.L{layer}.keys_states"});
    CHECK(patternsOf(Part::V, "Q{layer}").front() == "V{layer}");
    CHECK(patternsOf(Part::V, "hidden").empty());
    CHECK(guessName("p2.input_ids")->part == Part::InputIds);
    CHECK_FALSE(guessName("model.layers.0.self_attn.q_proj.weight"));
    CHECK_FALSE(guessName("hidden_states"));
}

TEST_CASE("name patterns", "[import]") {
    const auto m = matchName("l{layer}/h{head}/q", "l12/h3/q");
    REQUIRE(m);
    CHECK(m->layer == 12);
    CHECK(m->head == 3);
    CHECK_FALSE(matchName("l{layer}.q", "l.q"));
    CHECK_FALSE(matchName("l{layer}.q", "l1.qq"));
    CHECK_FALSE(matchName("l{layer}", "l99999999999999999999"));
    CHECK(matchName("q", "q")->layer == -1);
    CHECK_THROWS_WITH(checkPattern("l{layer}{head}"), Contains("side by side"));
    CHECK_THROWS_WITH(checkPattern("l{lay}"), Contains("may only have"));
    CHECK_THROWS_WITH(checkPattern("{layer}.{layer}"), Contains("twice"));
    CHECK_NOTHROW(checkPattern("layer.{layer}.h{head}"));
}

TEST_CASE(".npy headers of all versions, and damaged ones", "[import]") {
    const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }";
    for (const char version : {char(1), char(2), char(3)}) {
        const std::string text = npy(good, version);
        const NpyHeader h = parseNpyHeader(bytesOf(text), "x");
        CHECK(h.tensor.element == Element::F32);
        CHECK(h.tensor.shape == std::vector<Index>{3, 4});
        CHECK_FALSE(h.tensor.fortran);
        CHECK(h.dataOffset == Index(text.size()));
    }
    const auto element = [](const std::string& descr) {
        return parseNpyHeader(bytesOf(npy("{\"descr\": '" + descr +
                                          "', 'fortran_order': True, 'shape': (), }")),
                              "x")
            .tensor.element;
    };
    CHECK(element("<f2") == Element::F16);
    CHECK(element("<f8") == Element::F64);
    CHECK(element("<u2") == Element::Raw16);
    CHECK(element("|V2") == Element::Raw16);
    CHECK(element("<i8") == Element::Int);
    CHECK(element("|b1") == Element::Other);

    const auto fails = [](const std::string& text, const char* with) {
        CAPTURE(text);
        CHECK_THROWS_WITH(parseNpyHeader(bytesOf(text), "x"), Contains(with));
    };
    fails("\x93NUMP", "not a .npy array");
    fails(npy(good, 4), "version 4");
    fails(npy(good).substr(0, 30), "ends in its header");
    fails(npy("{'descr': '>f4', 'fortran_order': False, 'shape': (3,), }"), "big-endian");
    fails(npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }"), "pickled");
    fails(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }"), "records");
    fails(npy("{'descr': '<f4', 'shape': (3,), }"), "missing");
    fails(npy("{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,), }"), "True or False");
    fails(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }"), "not a number");
    fails(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"),
          "too large");
    fails(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,"), "damaged");
    fails(npy("{'descr': '<f4"), "not closed");
}

TEST_CASE("what a file is, and what is refused", "[import]") {
    CHECK(tensorFormat(kData + "stacked.npz") == TensorFormat::Npz);
    CHECK(tensorFormat(kData + "turned_q.npy") == TensorFormat::Npy);
    CHECK(tensorFormat(kData + "heads.h5") == TensorFormat::Hdf5);
    CHECK(tensorFormat(kData + "hook.safetensors") == TensorFormat::Safetensors);
    CHECK_THROWS_WITH(tensorFormat(kData + "tensors.pkl"),
                      Contains("pickle") && Contains("save_file(torch.load"));
    CHECK_THROWS_WITH(openNpzFile(kData + "torch.bin"),
                      Contains("pickle") && Contains("save_file(torch.load"));
    CHECK_THROWS_WITH(openNpyFile(kData + "objects.npy"), Contains("pickled"));
    CHECK_THROWS_WITH(openNpyFile(kData + "bigendian.npy"), Contains("newbyteorder"));
    CHECK_THROWS_WITH(tensorFormat(kData + "make_import.py"), Contains("that can be imported"));
    CHECK_THROWS_WITH(tensorFormat(kData + "nothing.npy"), Contains("there is no file"));
}

TEST_CASE("a truncated .npy and a wrong checksum of a .npz are found", "[import]") {
    const auto file = std::filesystem::temp_directory_path() / "sparsight_cut.npy";
    std::filesystem::copy_file(kData + "turned_q.npy", file,
                               std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 8);
    CHECK_THROWS_WITH(openNpyFile(file), Contains("does not hold what its header says"));
    std::filesystem::remove(file);

    const auto npz = openNpzFile(kData + "flipped.npz");
    const ForeignTensor& q = npz->tensors().front();
    std::vector<std::byte> all(std::size_t(q.elements() * q.width));
    CHECK_THROWS_WITH(npz->read(0, 0, q.elements(), all.data()), Contains("CRC"));
}

TEST_CASE("an entry of a .npz is read in any order of pieces", "[import]") {
    const auto npz = openNpzFile(kData + "layers.npz");
    std::size_t q = 0;
    while (npz->tensors()[q].name != "l1_q") ++q;
    const Index n = npz->tensors()[q].elements();
    std::vector<std::uint16_t> all(static_cast<std::size_t>(n)), piece(100);
    npz->read(q, 0, n, reinterpret_cast<std::byte*>(all.data()));
    for (const Index at : {Index(500), Index(0), n - 100, Index(100)}) {
        npz->read(q, at, 100, reinterpret_cast<std::byte*>(piece.data()));
        CHECK(std::equal(piece.begin(), piece.end(), all.begin() + at));
    }
}

TEST_CASE("layouts become the same heads", "[import]") {
    // Element i of every array is i, so a value says where it was read from.
    const Index L = 2, H = 3, T = 5, D = 4;
    const auto value = [&](const FakeFile& f, AxisOrder axes, Index l, Index h, Index t, Index c) {
        ImportOptions options;
        options.axes = axes;
        const TensorSet set = setOf(f);
        const ImportPlan plan = planImport(set, options);
        CAPTURE(plan.problems);
        REQUIRE(plan.problems.empty());
        const auto layer = readImportedLayer(set, plan.layers[std::size_t(l)], {});
        return kernels::loadFloat(layer.capture.q.p, layer.capture.q.t,
                                  h * layer.capture.q.sh + t * layer.capture.q.sn + c);
    };
    const auto both = [](const std::vector<Index>& shape, Element e = Element::F32,
                         bool fortran = false) {
        return FakeFile().add("q", shape, e, fortran).add("k", shape, e, fortran);
    };
    const Index l = 1, h = 2, t = 3, c = 1;
    CHECK(value(both({L, H, T, D}), AxisOrder::HeadsTokens, l, h, t, c) ==
          float(((l * H + h) * T + t) * D + c));
    CHECK(value(both({L, 1, H, T, D}), AxisOrder::HeadsTokens, l, h, t, c) ==
          float(((l * H + h) * T + t) * D + c));
    CHECK(value(both({L, T, H, D}, Element::F64), AxisOrder::TokensHeads, l, h, t, c) ==
          float(((l * T + t) * H + h) * D + c));
    CHECK(value(both({L, H, T, D}, Element::F32, true), AxisOrder::HeadsTokens, l, h, t, c) ==
          float(l + L * (h + H * (t + T * c))));
    CHECK(value(both({H, T, D}), AxisOrder::HeadsTokens, 0, h, t, c) == float((h * T + t) * D + c));
    CHECK(value(both({T, D}), AxisOrder::HeadsTokens, 0, 0, t, c) == float(t * D + c));
    FakeFile perHead;
    for (const char* part : {"q", "k"})
        for (const char* head : {"0", "1", "2"})
            perHead.add(std::string("h") + head + "_" + part + "_layer1", {T, D});
    CHECK(value(perHead, AxisOrder::HeadsTokens, 0, h, t, c) == float(t * D + c));
}

TEST_CASE("shapes that do not fit are told in words", "[import]") {
    const auto with = [](const std::vector<Index>& q, const std::vector<Index>& k) {
        return problemOf(setOf(FakeFile().add("layer.0.q", q).add("layer.0.k", k)));
    };
    CHECK(with({4, 10, 8}, {2, 10, 8}).empty());
    CHECK_THAT(with({4, 10, 8}, {2, 10, 16}), Contains("the widths must be equal"));
    CHECK_THAT(with({4, 10, 8}, {3, 10, 8}), Contains("must be a multiple of the key heads"));
    CHECK_THAT(with({10, 4, 8}, {9, 2, 8}), Contains("--axes thd"));
    CHECK_THAT(with({2, 4, 10, 8}, {2, 2, 10, 8}), Contains("batch of 2"));
    CHECK_THAT(with({4, 10, 8, 3, 2}, {4, 10, 8}), Contains("has the axes [H, T, d]"));
    CHECK_THAT(with({0, 10, 8}, {2, 10, 8}), Contains("empty"));
    CHECK_THAT(problemOf(setOf(FakeFile().add("layer.0.q", {4, 10, 8}))),
               Contains("no tensor looks like keys"));
    CHECK_THAT(problemOf(setOf(FakeFile()
                                   .add("layer.0.q", {4, 10, 8})
                                   .add("layer.0.k", {4, 10, 8})
                                   .add("layer.1.q", {4, 10, 8}))),
               Contains("layer 1") && Contains("no k"));
    CHECK_THAT(problemOf(setOf(FakeFile()
                                   .add("layer.0.q", {4, 10, 8})
                                   .add("layer.0.k", {4, 10, 8})
                                   .add("layer.1.q", {4, 11, 8})
                                   .add("layer.1.k", {4, 11, 8}))),
               Contains("other heads or tokens"));
    CHECK_THAT(problemOf(setOf(FakeFile()
                                   .add("layer.0.q", {4, 10, 8})
                                   .add("layer.0.k", {4, 10, 8})
                                   .add("layer.0.v", {4, 9, 8}))),
               Contains("v is 4 heads of 9 tokens"));
    CHECK_THAT(
        problemOf(setOf(FakeFile().add("q", {4, 10, 8}).add("k", {4, 10, 8}).add("sinks", {3}))),
        Contains("3 sinks for 4 query heads"));
    CHECK_THAT(
        problemOf(setOf(
            FakeFile().add("h0_l0_q", {10, 8}).add("h2_l0_q", {10, 8}).add("h0_l0_k", {10, 8}))),
        Contains("head 1 of layer 0 is missing"));
    CHECK_THAT(
        problemOf(setOf(
            FakeFile().add("q", {4, 10, 8}, Element::Raw16).add("k", {4, 10, 8}, Element::Raw16))),
        Contains("--bf16"));
    CHECK_THAT(problemOf(setOf(FakeFile()
                                   .add("a.q", {4, 10, 8})
                                   .add("a.k", {4, 10, 8})
                                   .add("b.q", {4, 10, 8})
                                   .add("b.k", {4, 10, 8}))),
               Contains("several sets of queries: a.q, b.q"));
    CHECK_THAT(problemOf(setOf(FakeFile().add("model.layers.0.self_attn.q_proj.weight", {8, 8}))),
               Contains("a model's weights"));
    CHECK(problemOf(open({"maps.npz"})).empty());  // finished maps, small enough
    CHECK_THAT(problemOf(setOf(FakeFile().add("attention.0", {2, 8, 2000}))),
               Contains("a map of 2000 keys") && Contains("dump_qkv.py"));
    CHECK_THAT(problemOf(setOf(FakeFile().add("attn", {2, 8, 8}).add("x.probs", {2, 8, 8}))),
               Contains("several sets of attention maps: attn, x.probs"));
    ImportOptions scaled;
    scaled.scale = 2;
    CHECK_THAT(problemOf(open({"maps.npz"}), scaled), Contains("in a finished map already"));
    ImportOptions causal;
    causal.causal = true;
    CHECK_THAT(problemOf(open({"cross.npz"}), causal), Contains("50 queries cannot be causal"));
    ImportOptions layers;
    layers.layers = {0, 7};
    CHECK_THAT(problemOf(open({"stacked.npz"}), layers), Contains("no layer 7; there are 0, 1"));
}

TEST_CASE("the file's words count, the user's more", "[import]") {
    const TensorSet set = open({"hook.safetensors"});
    ImportPlan plan = planImport(set, {});
    REQUIRE(plan.problems.empty());
    REQUIRE(plan.layers.size() == 2);
    CHECK(plan.layers[0].problem.window == 9);
    CHECK(plan.layers[1].problem.window == 0);
    CHECK(plan.layers[0].problem.softcap == 6.0f);
    CHECK(plan.layers[0].problem.scale == 0.5f);
    CHECK(plan.modelName == "tiny");
    CHECK(plan.notes.empty());
    const auto layer = readImportedLayer(set, plan.layers[1], {});
    REQUIRE(layer.capture.problem.sinks);
    CHECK(layer.fileLse.size() == 4 * 37);

    ImportOptions options;
    options.window = 5;
    options.scale = 2;
    options.patterns[std::size_t(Part::Sinks)] = "-";
    plan = planImport(set, options);
    REQUIRE(plan.problems.empty());
    CHECK(plan.layers[1].problem.window == 5);
    CHECK(plan.layers[1].problem.scale == 2.0f);
    CHECK(plan.layers[1].sinks.pieces.empty());

    const auto about = [](const std::string& json) {
        return problemOf(
            setOf(FakeFile().add("layer.0.q", {1, 4, 8}).add("layer.0.k", {1, 4, 8}).about(json)));
    };
    CHECK_THAT(about("{"), Contains("not a JSON object"));
    CHECK_THAT(about(R"({"version": 9})"), Contains("newer version"));
    CHECK_THAT(about(R"({"layers": [{"scaling": "much"}]})"), Contains("docs/importing.md"));
    CHECK_THAT(about(R"({"position_bias": true})"), Contains("bias by position"));
}

TEST_CASE("token ids belong to the queries' prompt and must have their number", "[import]") {
    FakeFile file;
    for (const char* p : {"p0", "p1"})
        for (const char* part : {".q", ".k"}) file.add(std::string(p) + part, {2, 6, 8});
    file.add("p0.input_ids", {6}, Element::Int).add("p1.input_ids", {1, 6}, Element::Int);
    ImportOptions options;
    options.patterns[std::size_t(Part::Q)] = "p1.q";
    const TensorSet set = setOf(file);
    ImportPlan plan = planImport(set, options);
    REQUIRE(plan.problems.empty());
    REQUIRE(plan.inputIds);
    CHECK(set.entries()[*plan.inputIds].name == "p1.input_ids");
    CHECK(plan.patterns[std::size_t(Part::K)] == "p1.k");

    const TensorSet odd = setOf(
        FakeFile().add("q", {2, 6, 8}).add("k", {2, 6, 8}).add("input_ids", {5}, Element::Int));
    plan = planImport(odd, {});
    CHECK_FALSE(plan.inputIds);
    REQUIRE(plan.problems.empty());
    ImportOptions asked;
    asked.patterns[std::size_t(Part::InputIds)] = "input_ids";
    CHECK_THAT(problemOf(odd, asked), Contains("5 token ids, the keys are 6"));
}

TEST_CASE("files with equal names are told apart by their stems", "[import]") {
    std::vector<std::unique_ptr<TensorFile>> files;
    for (const char* name : {"dir/layer0.npz", "dir/layer1.npz"})
        files.push_back(
            std::make_unique<FakeFile>(FakeFile(name).add("q", {2, 6, 8}).add("k", {1, 6, 8})));
    const TensorSet set(std::move(files));
    const ImportPlan plan = planImport(set, {});
    REQUIRE(plan.problems.empty());
    CHECK(plan.patterns[std::size_t(Part::Q)] == "layer{layer}:q");
    REQUIRE(plan.layers.size() == 2);
    CHECK(plan.layers[1].problem.Hkv == 1);
}

TEST_CASE("the description of imported tensors survives its JSON", "[import]") {
    const TensorSet set = open({"stacked.npz"});
    const ModelConfig c = importedModel(planImport(set, {}), set, "mine");
    CHECK(isImportedModel(c.json));
    CHECK_FALSE(isImportedModel(std::string(R"({"model_type": "llama"})")));
    const ModelConfig back = parseImportedModel(c.json, "mine");
    CHECK(back.layers == 2);
    CHECK(back.heads == 4);
    CHECK(back.kvHeads == 2);
    CHECK(back.headDim == 8);
    CHECK(back.sha256 == c.sha256);
    CHECK_THROWS_WITH(parseImportedModel(R"({"num_hidden_layers": 0})", "x"),
                      Contains("num_hidden_layers"));
}
