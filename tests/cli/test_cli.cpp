// Models, tokenizers, prompts and wrong input, as a user meets them.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <vector>

#include "tests/cli/cli.h"

using namespace cli_test;

TEST_CASE("info names the bundled model's facts", "[cli]") {
    const Json j = good("info bookworm --json").json();
    CHECK(j["name"] == "bookworm");
    CHECK(j["arch"] == "llama");
    CHECK(j["layers"] == 8);
    CHECK(j["heads"] == 8);
    CHECK(j["kvHeads"] == 4);
    CHECK(j["headDim"] == 64);
    CHECK(j["vocab"] == 4096);
    CHECK(j["maxPositions"] == 32768);
    CHECK(j["dtype"] == "bfloat16");
    CHECK(j["parameters"].get<double>() == Approx(8.5e6).epsilon(0.02));
    CHECK(j["bytes"] == 17056104);
    CHECK_THAT(j["tokenizer"].get<std::string>(), Catch::Contains("4096"));
}

TEST_CASE("devices are listed, and a device that is not there is refused", "[cli]") {
    const Json list = good("devices --json").json();
    REQUIRE(!list["devices"].empty());
    CHECK(list["devices"][0]["id"] == "cpu");
    CHECK(list["devices"][0]["memoryBytes"].get<double>() > 1e8);
    const bool gpu = list["devices"].size() > 1;
    CHECK(list["noGpu"].get<std::string>().empty() == gpu);
    CHECK_THAT(good("devices").out, Catch::Contains("CPU") && Catch::Contains("free"));
    const std::string what = "info bookworm --tokens 100 --device ";
    fails(what + "gpu", 2, "cpu, cuda or cuda:N");
    fails(what + "cuda:99", 6, gpu ? "cuda:99" : list["noGpu"].get<std::string>());
    if (!gpu) fails("generate bookworm --text /dev/null --device cuda", 6, "");
}

TEST_CASE("tokenize gives ids, tokens and both kinds of offsets", "[cli]") {
    const Scratch scratch;
    spill(scratch / "t.txt", "caf\u00e9 au lait");
    const Json with = good("tokenize bookworm --json --text " + (scratch / "t.txt")).json();
    const Json without =
        good("tokenize bookworm --json --no-special --text " + (scratch / "t.txt")).json();
    CHECK(with["ids"].size() == without["ids"].size() + 1);
    CHECK(with["ids"][0] == 0);
    CHECK(without["offsets"].back()[1] == 12);
    CHECK(without["byteOffsets"].back()[1] == 13);
    CHECK(without["tokens"].size() == without["ids"].size());
}

TEST_CASE("errors are one clear sentence with their exit status", "[cli]") {
    const Scratch scratch;
    const std::string& s = needleSession();
    fails("info nosuchmodel", 4, "bookworm");
    fails("mask --method a-shap " + s, 4, "a-shape");
    fails("mask --method a-shape:windo=3 " + s, 2, "window");
    fails("mask --method a-shape:window=-3 " + s, 2, "window");
    fails("mask --method dense --layer 8 " + s, 4, "layer 8");
    fails("mask --method dense --head 8 " + s, 4, "0..7");
    fails("map --layer 0 --head 0 --rect 0:9,0:99999 -o " + (scratch / "x.png") + " " + s, 2,
          "not inside");
    fails("heads " + (scratch / "none.sparsight"), 4, "none.sparsight");
    spill(scratch / "empty.txt", "");
    fails("capture bookworm --no-special --text " + (scratch / "empty.txt") + " -o " +
              (scratch / "e.sparsight"),
          2, "empty");
    CHECK_FALSE(fs::exists(scratch / "e.sparsight"));
    fails(
        "capture bookworm --text " + (scratch / "nofile.txt") + " -o " + (scratch / "e.sparsight"),
        4, "nofile.txt");

    fs::create_directory(scratch / "gpt9");
    spill(scratch / "gpt9/config.json", R"({"model_type": "gpt9"})");
    fails("info " + (scratch / "gpt9"), 3, "llama");
    fs::create_directory(scratch / "damaged.sparsight");
    spill(scratch / "damaged.sparsight/session.db", "not a database");
    fails("heads " + (scratch / "damaged.sparsight"), 3, "session");

    const std::string plan = scratch / "anti.json";
    good("plan --model bookworm --uniform antidiagonal -o " + plan);
    fails("export " + plan + " --to minference -o " + (scratch / "mi.json"), 3, "antidiagonal");
    CHECK_FALSE(fs::exists(scratch / "mi.json"));
    fails("export " + plan + " --to minferenz -o " + (scratch / "mi.json"), 4, "minference");

    fails("capure bookworm", 2, "did you mean 'capture'");
    fails("nosuchcommand", 2, "nosuchcommand");
    fails("generate bookworm --max-new 0 --text " + (scratch / "empty.txt"), 2, "max-new");
    fails("eval bookworm --plan " + plan, 2, "--probe");
    fails("eval bookworm --plan " + plan + " --probe niah:token=9", 2, "tokens");
    fails("eval bookworm --plan " + plan + " --probe niah:tokens=5", 2, "too few");
    fails("run --method dense --repeat 4 " + s, 2, "repeat");
    fails("run --method dense --device cuda:99 " + s, 6, "sparsight: ");
    fails("map --layer 0 --head 0 --rect 1:2 -o " + (scratch / "x.png") + " " + s, 2,
          "q0:q1,k0:k1");
    fails("map --layer 0 --head 0 --size 12 -o " + (scratch / "x.png") + " " + s, 2, "WxH");
    fails("map --layer 0 --head 0 --stat median -o " + (scratch / "x.png") + " " + s, 2, "stat");
    fails("map --layer 0 --head 0 -o " + (scratch / "x.bmp") + " " + s, 2, ".npy");
    fails("map --layer 0 --head 0 --overlay a-shap -o " + (scratch / "x.png") + " " + s, 4,
          "a-shape");
    fails("curve --layer 0 --head 0 --methods dense -o " + (scratch / "x.txt") + " " + s, 2,
          ".csv");
    fails("mask --method dense --dump " + (scratch / "x.npy") + " " + s, 2, "--layer and --head");
    fails("mask --method dense -o " + (scratch / "x.txt") + " " + s, 2, ".csv");
    fails("heads --capture ffffffffffff " + s, 4, "ffffffffffff");
    fails("plan " + s + " -o " + (scratch / "p.json"), 2, "--recall");
    fails("plan --uniform dense -o " + (scratch / "p.json"), 2, "--model");
    fails("plan --model bookworm --uniform retrieval-heads -o " + (scratch / "p.json"), 2,
          "heads=");
    fails("import " + (scratch / "none.json") + " --model bookworm -o " + (scratch / "p.json"), 4,
          "none.json");
    fails("session list " + (scratch / "nodir"), 4, "nodir");
    fails("session check " + (scratch / "none.sparsight"), 4, "none.sparsight");
    for (const char* name : {"x.png", "x.bmp", "x.txt", "x.npy", "p.json"})
        CHECK_FALSE(fs::exists(scratch / name));
    CHECK(sparsight("heads " + s, "SPARSIGHT_KERNEL=abacus").status == 2);
    CHECK(sparsight("mask").status == 2);
    CHECK(sparsight("--help").status == 0);
    CHECK_FALSE(good("--version").out.empty());
    for (const char* command : {"list", "info", "check"})
        CHECK(sparsight(std::string("session ") + command + " --help").status == 0);
    for (const char* command :
         {"info", "tokenize", "generate", "eval", "capture", "heads", "mask", "map", "run", "curve",
          "plan", "export", "import", "methods", "session"}) {
        CAPTURE(command);
        CHECK(sparsight(std::string(command) + " --help").status == 0);
    }
}

TEST_CASE("truncated weights and NaN weights are refused by name", "[cli]") {
    const Scratch scratch;
    const fs::path model = fs::path(SPARSIGHT_SOURCE_DIR) / "resources/models/bookworm";
    for (const char* kind : {"cut", "nan"}) {
        const fs::path copy = scratch.path / kind;
        fs::copy(model, copy, fs::copy_options::recursive);
        fs::permissions(copy / "model.safetensors", fs::perms::owner_write, fs::perm_options::add);
        if (std::string(kind) == "cut") {
            fs::resize_file(copy / "model.safetensors",
                            fs::file_size(copy / "model.safetensors") - 100);
        } else {
            std::fstream f(copy / "model.safetensors",
                           std::ios::in | std::ios::out | std::ios::binary);
            f.seekp(-2, std::ios::end);
            f.write("\xff\x7f", 2);  // a bfloat16 NaN in the last tensor
        }
        spill(scratch / "t.txt", "Call me Ishmael.");
        fails("generate " + copy.string() + " --text " + (scratch / "t.txt"), 3,
              std::string(kind) == "cut" ? "model.safetensors" : "model.");
    }
}

TEST_CASE("tokenize reads standard input and a tokenizer.json alone", "[cli]") {
    const Scratch scratch;
    const std::string file =
        std::string(SPARSIGHT_SOURCE_DIR) + "/resources/models/bookworm/tokenizer.json";
    const Result byModel = piped("Call me Ishmael.", "tokenize bookworm --json");
    const Result byFile = piped("Call me Ishmael.", "tokenize " + file + " --json --text -");
    REQUIRE(byModel.status == 0);
    REQUIRE(byFile.status == 0);
    CHECK(byModel.json() == byFile.json());
    CHECK(byModel.err.empty());

    spill(scratch / "tokenizer.json",
          R"({"version": "1.0", "model": {"type": "Mystery", "vocab": [["a", 0.0]]}})");
    const Result mystery = piped("a", "tokenize " + (scratch / "tokenizer.json"));
    CHECK(mystery.status == 3);
    CHECK_THAT(mystery.err, Catch::Contains("Mystery") && Catch::Contains("Unigram"));
}

TEST_CASE("tokenize reads a pair and decodes ids", "[cli]") {
    const Scratch scratch;
    const std::string bert =
        std::string("tokenize --json ") + SPARSIGHT_TEST_DATA + "/parity/tokenizers/bert_uncased";
    spill(scratch / "a", "Hello there");
    spill(scratch / "b", " and you?");
    const Json j = good(bert + " --text " + (scratch / "a") + " --pair " + (scratch / "b")).json();
    const Json golden = Json::parse(
        slurp(std::string(SPARSIGHT_TEST_DATA) + "/parity/tokenizers/bert_uncased/golden.json"));
    const auto& pairs = golden["pair"];
    const auto g = std::find_if(pairs.begin(), pairs.end(),
                                [](const Json& p) { return p["a"] == "Hello there"; });
    REQUIRE(g != pairs.end());
    CHECK(j["ids"] == (*g)["ids"]);
    CHECK(j["typeIds"] == (*g)["type_ids"]);
    CHECK(j["offsets"] == (*g)["offsets"]);
    CHECK(j["special"][0] == 1);
    CHECK(j["words"][0].is_null());
    std::string ids;
    for (const Json& id : j["ids"]) ids += (ids.empty() ? "" : ",") + std::to_string(id.get<int>());
    const Json text = good(bert + " --decode " + ids).json();
    CHECK_THAT(text["textWithSpecial"].get<std::string>(), Catch::StartsWith("[CLS] hello there"));
    CHECK_THAT(text["text"].get<std::string>(), Catch::StartsWith("hello there"));
}

TEST_CASE("a conversation is written by the model's chat template", "[cli]") {
    const Scratch scratch;
    fs::copy_file(std::string(SPARSIGHT_SOURCE_DIR) + "/resources/models/bookworm/tokenizer.json",
                  scratch / "tokenizer.json");
    const std::string tokenize = "tokenize --json " + scratch.path.string();
    spill(scratch / "chat.json", R"([{"role": "user", "content": "Call me Ishmael."}])");
    const Result none = sparsight(tokenize + " --chat " + (scratch / "chat.json"));
    CHECK(none.status == 4);
    CHECK_THAT(none.err, Catch::Contains("no chat template"));
    spill(scratch / "chat_template.jinja",
          "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
          "{% if add_generation_prompt %}you:{% endif %}");
    const Json chat = good(tokenize + " --chat " + (scratch / "chat.json")).json();
    spill(scratch / "text.txt", "user: Call me Ishmael.\nyou:");
    CHECK(chat == good(tokenize + " --no-special --text " + (scratch / "text.txt")).json());
    CHECK(sparsight(tokenize + " --chat a --text b").status == 2);
    spill(scratch / "chat_template.jinja", "{% include 'other' %}");
    const Result beyond = sparsight(tokenize + " --chat " + (scratch / "chat.json"));
    CHECK(beyond.status == 3);
    CHECK_THAT(beyond.err, Catch::Contains("include"));
}

TEST_CASE("info reads the headers of a huge model only", "[cli]") {
    // 400 GB in 62 shards, all holes: whoever reads weights would be seen.
    const Scratch scratch;
    constexpr std::int64_t hidden = 16384, width = 53248, vocab = 128256, layers = 62;
    Json map;
    const auto shard = [&](const std::string& name,
                           const std::vector<std::pair<std::string, Json>>& all) {
        Json header;
        std::int64_t at = 0;
        for (const auto& [tensor, shape] : all) {
            std::int64_t bytes = 2;
            for (const Json& d : shape) bytes *= d.get<std::int64_t>();
            header[tensor] = {
                {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {at, at + bytes}}};
            map[tensor] = name;
            at += bytes;
        }
        const std::string json = header.dump();
        const std::uint64_t size = json.size();
        spill(scratch / name, std::string(reinterpret_cast<const char*>(&size), 8) + json);
        fs::resize_file(scratch / name, 8 + size + std::uint64_t(at));
    };
    for (std::int64_t l = 0; l < layers; ++l) {
        const std::string p = "model.layers." + std::to_string(l) + ".";
        std::vector<std::pair<std::string, Json>> all{
            {p + "self_attn.q_proj.weight", {hidden, hidden}},
            {p + "self_attn.k_proj.weight", {1024, hidden}},
            {p + "self_attn.v_proj.weight", {1024, hidden}},
            {p + "self_attn.o_proj.weight", {hidden, hidden}},
            {p + "mlp.gate_proj.weight", {width, hidden}},
            {p + "mlp.up_proj.weight", {width, hidden}},
            {p + "mlp.down_proj.weight", {hidden, width}},
            {p + "input_layernorm.weight", Json::array({hidden})},
            {p + "post_attention_layernorm.weight", Json::array({hidden})}};
        if (l == 0) {
            all.push_back({"model.embed_tokens.weight", {vocab, hidden}});
            all.push_back({"lm_head.weight", {vocab, hidden}});
            all.push_back({"model.norm.weight", Json::array({hidden})});
        }
        shard("model-" + std::to_string(l) + ".safetensors", all);
    }
    spill(scratch / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
    Json config = {{"model_type", "llama"},
                   {"hidden_size", hidden},
                   {"intermediate_size", width},
                   {"num_hidden_layers", layers},
                   {"num_attention_heads", 128},
                   {"num_key_value_heads", 8},
                   {"vocab_size", vocab},
                   {"torch_dtype", "bfloat16"},
                   {"max_position_embeddings", 8192}};
    spill(scratch / "config.json", config.dump());
    const Json j = good("info --tokens 4096 --json " + scratch.path.string()).json();
    CHECK(j["parameters"] == 201840345088);
    CHECK(j["bytes"].get<double>() > 4.03e11);
    CHECK(j["files"] == layers);
    CHECK(j["storedAs"] == "BF16");
    CHECK(j["unsupported"] == "");
    const Json& estimate = j["estimate"];
    CHECK(estimate["seconds"].get<double>() > 1);
    // One layer as float32 is 12.7 GB; the whole model would be 807 GB.
    CHECK(estimate["memoryBytes"].get<double>() > 1.2e10);
    CHECK(estimate["memoryBytes"].get<double>() < 3e10);

    // A tensor that is missing, and an architecture that nobody knows, still have facts.
    config["num_hidden_layers"] = layers + 1;
    spill(scratch / "config.json", config.dump());
    const Result missing = sparsight("info " + scratch.path.string());
    CHECK(missing.status == 3);
    CHECK_THAT(missing.out, Catch::Contains("201,840,345,088"));
    CHECK_THAT(missing.err, Catch::Contains("model.layers.62.input_layernorm.weight"));
    config["model_type"] = "lama";
    spill(scratch / "config.json", config.dump());
    const Result unknown = sparsight("info " + scratch.path.string());
    CHECK(unknown.status == 3);
    CHECK_THAT(unknown.out, Catch::Contains("201,840,345,088"));
    CHECK_THAT(unknown.err, Catch::Contains("did you mean llama?"));
    CHECK_THAT(unknown.err, Catch::Contains("import-tensors"));
}

TEST_CASE("a header that promises more than the file holds is refused", "[cli]") {
    const Scratch scratch;
    const fs::path model = fs::path(SPARSIGHT_SOURCE_DIR) / "resources/models/bookworm";
    fs::create_directory(scratch / "m");
    for (const char* name : {"config.json", "tokenizer.json"})
        fs::copy(model / name, scratch.path / "m" / name);
    spill(scratch / "m/model.safetensors",
          std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + "{}");
    fails("info " + (scratch / "m"), 3, "model.safetensors");
}

TEST_CASE("gui without a display says so", "[cli]") {
    if (!fs::exists(fs::path(SPARSIGHT_CLI).parent_path() / "sparsight-gui")) {
        WARN("built without the desktop program");
        return;
    }
    const Result r = sparsight("gui", "env -u DISPLAY -u WAYLAND_DISPLAY -u QT_QPA_PLATFORM");
    CHECK(r.status == 6);
    CHECK_THAT(r.err, Catch::Contains("no display"));
}

TEST_CASE("logits of encoders, of encoder-decoders and of images", "[cli]") {
    const Scratch scratch;
    const std::string parity = SPARSIGHT_TEST_DATA "/parity/";
    const Json bert = good("logits " + parity + "bert --ids 2,9,11 --top 4 --json").json();
    REQUIRE(bert.size() == 3);
    for (const Json& row : bert) {
        REQUIRE(row["top"].size() == 4);
        double sum = 0;
        for (std::size_t i = 0; i < 4; ++i) {
            sum += row["top"][i]["probability"].get<double>();
            if (i > 0) CHECK(row["top"][i]["logit"] <= row["top"][i - 1]["logit"]);
        }
        CHECK(sum <= 1);
        CHECK(sum > 0.1);
    }
    spill(scratch / "t.txt", "a b");
    CHECK(good("logits " + parity + "bert --no-special --json --text " + (scratch / "t.txt"))
                  .json()
                  .size() +
              2 ==
          good("logits " + parity + "bert --json --text " + (scratch / "t.txt")).json().size());

    const std::string t5 = "logits " + parity + "t5 --ids 5,6,7";
    fails(t5, 2, "--decoder-text");
    CHECK(good(t5 + " --decoder-ids 0,4 --json").json().size() == 2);
    // The decoder's text, like its ids, begins with the start token.
    CHECK(good(t5 + " --json --decoder-text " + (scratch / "t.txt")).json().size() > 1);
    good(t5 + " --decoder-ids 0,4 -o " + (scratch / "l.npy"));
    CHECK(npyShape(slurp(scratch / "l.npy")).starts_with("(2, "));

    const std::string image = " --image " + parity + "image/colour.png";
    const Json vit = good("logits " + parity + "vit --json" + image).json();
    REQUIRE(vit.size() == 1);  // classes of the whole image, no tokens
    CHECK_FALSE(vit[0]["top"][0].contains("probability"));
    const Json resized =
        good("logits " + parity + "vit_resized --json --image-size 48x72" + image).json();
    CHECK(resized.size() == 1);
    fails("logits " + parity + "bert" + image, 3, "does not read images");
}
