// Captures and imports, and what may happen to their sessions.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "tests/cli/cli.h"

using namespace cli_test;

TEST_CASE("a capture checks itself and its heads are ranked", "[cli]") {
    const Json check = good("session check --json " + needleSession()).json();
    CHECK(check["ok"] == true);
    CHECK(check["segments"] == 16);  // q, k, v + pyramid of eight layers

    const Json info = good("session info --json " + needleSession()).json();
    CHECK(info["captures"][0]["state"] == "complete");
    CHECK(info["captures"][0]["massError"].get<double>() < 1e-4);

    const Json heads = good("heads --json " + needleSession()).json();
    REQUIRE(heads.size() == 64);
    Json best = heads[0];
    for (const Json& h : heads)
        if (h["retrieval"].get<double>() > best["retrieval"].get<double>()) best = h;
    CHECK(best["layer"] == 6);
    CHECK(best["head"] == 5);
    CHECK(best["retrieval"].get<double>() > 0.5);
    CHECK(best["label"] == "retrieval");
    CHECK(best["kvHead"] == 2);
}

TEST_CASE("an interrupted capture can be resumed", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "r.sparsight";
    // timeout sends the same signal as Ctrl+C once layers have begun to land.
    const Result cut = sparsight("capture bookworm --probe niah:tokens=6000 -o " + s,
                                 "timeout --preserve-status -s INT 4");
    if (cut.status == 0) {
        WARN("the machine finished 6000 tokens before the interrupt");
        return;
    }
    CHECK(cut.status == 5);
    if (!fs::exists(s)) return;  // interrupted while the model was loading
    const Json before = good("session info --json " + s).json()["captures"][0];
    CHECK(before["state"] == "cancelled");
    const Json after = good("capture bookworm --resume --json -o " + s).json();
    CHECK(after["layers"] == 8);
    CHECK(after["massError"].get<double>() < 1e-4);
    CHECK(good("session check --json " + s).json()["ok"] == true);
}

TEST_CASE("some layers only, and a second capture in the same session", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "part.sparsight";
    spill(scratch / "t.txt", "It was the best of times, it was the worst of times.");
    const Json first =
        good("capture bookworm --json --layers 0,2-3 --text " + (scratch / "t.txt") + " -o " + s)
            .json();
    CHECK(first["layers"] == 3);
    CHECK(first["bytes"].get<long>() > 0);
    const Json heads = good("heads --json " + s).json();
    CHECK(heads.size() == 24);
    CHECK(heads[0]["retrieval"].is_null());
    fails("mask --method dense --layer 5 " + s, 4, "0, 2, 3");
    fails("mask --method retrieval-heads " + s, 2, "--probe niah");
    const int beyond = sparsight("capture bookworm --layers 0,9 --text " + (scratch / "t.txt") +
                                 " -o " + (scratch / "x.sparsight"))
                           .status;
    CHECK((beyond == 2 || beyond == 4));
    CHECK_FALSE(fs::exists(scratch / "x.sparsight"));

    const Json second = good("capture bookworm --json --layers 1 --store f16 --text " +
                             (scratch / "t.txt") + " -o " + s)
                            .json();
    CHECK(second["capture"] != first["capture"]);
    CHECK(good("heads --json " + s).json().size() == 8);
    CHECK(good("heads --json --capture " + first["capture"].get<std::string>().substr(0, 12) + " " +
               s)
              .json()
              .size() == 24);
    const Json list = good("session list --json " + scratch.path.string()).json();
    REQUIRE(list.size() == 1);
    CHECK(list[0]["captures"].size() == 2);
}

TEST_CASE("a prompt beyond the limit is a warning, an estimate is not a capture", "[cli]") {
    const Result r = good("capture bookworm --estimate --json --probe niah:tokens=33000");
    CHECK_THAT(r.err, Catch::Contains("32,768"));
    const Json j = r.json();
    for (const char* key : {"tokens", "seconds", "memoryBytes", "diskBytes"})
        CHECK(j[key].get<double>() > 0);
}

TEST_CASE("a session that another process writes to can be read, not written", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "l.sparsight";
    spill(scratch / "t.txt", "Call me Ishmael.");
    const std::string capture =
        "capture bookworm --layers 0 --text " + (scratch / "t.txt") + " -o " + s;
    good(capture);
    const int fd = ::open((s + "/session.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    REQUIRE(::fcntl(fd, F_OFD_SETLK, &lock) == 0);
    fails(capture, 6, "open for writing");
    CHECK(good("heads --json " + s).json().size() == 8);
    ::close(fd);
    good(capture);
}

TEST_CASE("a full disk loses nothing that was finished", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "full.sparsight";
    const std::string args = "capture bookworm --probe niah:tokens=500 -o " + s;
    const Result r = sparsight(args, "SPARSIGHT_FAULT=S4:6:enospc");
    INFO(r.err);
    CHECK(r.status == 6);
    CHECK_THAT(r.err, Catch::Contains("disk is full"));
    CHECK(good("session check --json " + s).json()["ok"] == true);
    CHECK(newestCapture(s)["state"] != "complete");
    const Json after = good("capture bookworm --resume --json -o " + s).json();
    CHECK(after["layers"] == 8);
    CHECK(newestCapture(s)["state"] == "complete");
}

TEST_CASE("one flipped byte in a segment is found and named", "[cli]") {
    const Scratch scratch;
    const std::string s = scratch / "f.sparsight";
    spill(scratch / "t.txt", "Call me Ishmael.");
    good("capture bookworm --layers 0 --text " + (scratch / "t.txt") + " -o " + s);
    fs::path largest;
    for (const auto& entry : fs::recursive_directory_iterator(s))
        if (entry.is_regular_file() && entry.path().extension() == ".h5" &&
            (largest.empty() || entry.file_size() > fs::file_size(largest)))
            largest = entry.path();
    REQUIRE_FALSE(largest.empty());
    fs::permissions(largest, fs::perms::owner_write, fs::perm_options::add);
    std::string bytes = slurp(largest);
    bytes[bytes.size() / 2] = char(bytes[bytes.size() / 2] ^ 0x20);
    spill(largest.string(), bytes);
    const Result check = sparsight("session check --json " + s);
    CHECK(check.status == 3);
    CHECK(check.json()["ok"] == false);
    CHECK_FALSE(check.json()["problems"].empty());
    CHECK(sparsight("mask --method dense " + s).status == 3);
}

TEST_CASE("import-tensors makes a session that every command reads", "[cli]") {
    const Scratch scratch;
    const std::string data = SPARSIGHT_TEST_DATA "/import/", session = scratch / "i.sparsight";
    const Json list = good("import-tensors " + data + "layers.npz --list --json").json();
    CHECK(list["patterns"]["q"] == "l{layer}_q");
    CHECK(list["problems"].empty());
    CHECK(list["tensors"].size() == 9);
    CHECK_FALSE(fs::exists(session));

    const Json j = good("import-tensors " + data + "layers.npz --json -o " + session).json();
    CHECK(j["layers"] == 2);
    CHECK(j["heads"] == 4);
    CHECK(j["kvHeads"] == 2);
    CHECK(j["lseDifference"].get<double>() < 3e-6);
    CHECK(good("heads --json " + session).json().size() == 8);
    CHECK(good("mask --json --method a-shape:sink=1,window=8 --layer 1 " + session).json().size() ==
          4);
    good("map " + session + " --layer 0 --head 3 -o " + (scratch / "m.npy"));
    CHECK(npyShape(slurp(scratch / "m.npy")) == "(1024, 1024)");
    good("curve " + session + " --layer 0 --head 1 --methods oracle-blocks --points 3");
    CHECK(good("run --json --method a-shape:sink=1,window=8 --layer 1 " + session)
              .json()["denseMs"]
              .get<double>() > 0);
    CHECK(good("session check " + session).status == 0);
    CHECK(newestCapture(session)["model"] == "layers");

    // Into the same session: no values, another name, chosen layers and parts.
    const Json again = good("import-tensors " + data +
                            "layers.npz --map v=- --map k=l{layer}_k "
                            "--layers 1 --name other --top-k --json -o " +
                            session)
                           .json();
    CHECK(again["layers"] == 1);
    CHECK(good("session info --json " + session).json()["captures"].size() == 2);
    CHECK(newestCapture(session)["model"] == "other");
    const Json rows = good("mask --json --method a-shape:sink=1,window=8 " + session).json();
    CHECK(rows[0]["outputError"].is_null());
    CHECK(rows[0]["recall"].get<double>() < 1);
    CHECK(rows[0]["topOverlap"]["64"].get<double>() < 1);
    CHECK(good("top --json --layer 1 --head 3 --row last " + session).json()[0]["stored"] == true);
    fails("run --method a-shape " + session, 3, "without values");
}

TEST_CASE("import-tensors says what is wrong, and with which option it would be right", "[cli]") {
    const Scratch scratch;
    const std::string data = SPARSIGHT_TEST_DATA "/import/",
                      out = " -o " + (scratch / "x.sparsight");
    fails("import-tensors " + data + "bf16.npz" + out, 3, "--bf16");
    fails("import-tensors " + data + "tensors.pkl" + out, 3, "save_file(torch.load");
    fails("import-tensors " + data + "torch.bin" + out, 3, "save_file(torch.load");
    fails("import-tensors " + data + "maps.npz -o " + (scratch / "causal.sparsight"), 3,
          "--bidirectional");
    fails("import-tensors " + data + "cross.npz --causal" + out, 3, "--bidirectional");
    fails("import-tensors " + data + "stacked.npz --layers 5" + out, 3, "there are 0, 1");
    fails("import-tensors " + data + "stacked.npz --map x=y" + out, 2, "PART=PATTERN");
    fails("import-tensors " + data + "stacked.npz --map q=nope --map k=k" + out, 3, "no tensor");
    fails("import-tensors " + data + "stacked.npz --tokenizer bookworm" + out, 2, "input_ids");
    fails("import-tensors nothing.npz" + out, 4, "there is no file");
    fails("import-tensors " + data + "stacked.npz", 2, "-o NAME.sparsight");
    CHECK_FALSE(fs::exists(scratch / "x.sparsight"));
}

TEST_CASE("a small finished map becomes a session", "[cli]") {
    const Scratch scratch;
    const std::string session = scratch / "map.sparsight";
    const Result r = good(
        "import-tensors " SPARSIGHT_TEST_DATA "/import/maps.npz --bidirectional -o " + session);
    CHECK_THAT(r.out + r.err, Catch::Contains("finished maps"));
    good("map " + session + " --layer 0 --head 1 --size 4x4 -o " + (scratch / "m.npy"));

    const std::string bytes = slurp(scratch / "m.npy");
    CHECK(npyShape(bytes) == "(4, 4)");
    for (std::size_t i = 0; i < 16; ++i) {
        float p = 0;
        std::memcpy(&p, bytes.data() + bytes.size() - 64 + 4 * i, 4);
        CHECK(p == Approx(0.25f));
    }
    fails("run --method dense " + session, 3, "without values");
}

TEST_CASE("captures of images and of encoder-decoders, layers by name", "[cli]") {
    const Scratch scratch;
    const std::string parity = SPARSIGHT_TEST_DATA "/parity/";
    const auto info = [](const std::string& session) {
        return good("session info --json " + session).json()["captures"][0];
    };
    const std::string image = " --image " + parity + "image/colour.png";
    const std::string pictures = scratch / "image.sparsight";
    CHECK(good("capture " + parity + "vit_resized --image-size 48x72 --json" + image + " -o " +
               pictures)
              .json()["tokens"] == 55);  // 6 x 9 patches and the class token
    CHECK(info(pictures)["image"]["rows"] == 6);
    CHECK(info(pictures)["image"]["cols"] == 9);

    const std::string text = scratch / "text.sparsight";
    good("capture " + parity + "t5 --ids 5,6,7,8 --decoder-new 3 -o " + text);
    CHECK(info(text)["decoderTokens"].get<int>() >= 2);  // the start token and what was generated
    const std::string alone = scratch / "alone.sparsight";
    good("capture " + parity + "t5 --ids 5,6,7,8 --decoder-new 0 -o " + alone);
    CHECK(info(alone)["decoderTokens"] == 0);
    for (const Json& name : info(alone)["layerNames"])
        CHECK(name.get<std::string>().starts_with("enc."));
    const std::string some = scratch / "some.sparsight";
    good("capture " + parity + "bart --ids 5,6,7,8 --decoder-ids 2,5 --layers cross.0,enc.1 -o " +
         some);
    CHECK(info(some)["layerNames"] == Json{"enc.1", "cross.0"});
    CHECK(info(some)["decoderTokens"] == 2);
    spill(scratch / "t.txt", "a b");
    const std::string words = scratch / "words.sparsight";
    good("capture " + parity + "t5 --ids 5,6 --decoder-text " + (scratch / "t.txt") + " -o " +
         words);
    CHECK(info(words)["decoderTokens"].get<int>() > 1);

    const std::string out = " -o " + (scratch / "x.sparsight");
    fails("capture " + parity + "bert --ids 3,4 --decoder-ids 1" + out, 3,
          "only encoder-decoders do");
    fails("capture " + parity + "bert" + image + out, 3, "does not read images");
    fails("capture " + parity + "vit --image-size 0x72" + image + out, 2, "image size '0x72'");
    fails("capture " + parity + "t5 --ids 5,6 --layers crss.0" + out, 4, "cross.0 to cross.1");
    fails("capture " + parity + "vit --image-size 48" + out, 2, "--image");
    CHECK_FALSE(fs::exists(scratch / "x.sparsight"));
}

TEST_CASE("capture --decode stores prompt and generated rows, --rows chooses among them", "[cli]") {
    const Scratch scratch;
    const std::string session = scratch / "d.sparsight", text = scratch / "p.txt";
    spill(text, "The old man looked at the sea for a long time, and then he said to the boy that");
    const Json generated = good("generate bookworm --text " + text + " --max-new 10 --json").json();
    const Json j = good("capture bookworm --text " + text +
                        " --decode-steps 0,3,7-9 --top-k --json -o " + session)
                       .json();
    CHECK(j["generated"] == 10);
    const Json info = newestCapture(session);
    const int prompt = info["prefill"], tokens = info["tokens"];
    CHECK(tokens == prompt + 10);
    CHECK(prompt == generated["promptTokens"]);
    CHECK(info["decodeSteps"] == Json({0, 3, 7, 8, 9}));

    const Json all = good("heads --json " + session).json();
    const Json prefill = good("heads --json --rows prefill " + session).json();
    const Json decode = good("heads --json --rows decode " + session).json();
    REQUIRE(all.size() == 64);
    REQUIRE(prefill.size() == 64);
    REQUIRE(decode.size() == 64);
    // Fewer than 64 rows: the mean over all rows is that of the two parts.
    for (std::size_t i = 0; i < 64; ++i) {
        const double mixed = (prefill[i]["entropy"].get<double>() * prompt +
                              decode[i]["entropy"].get<double>() * 10) /
                             tokens;
        CHECK(all[i]["entropy"].get<double>() == Approx(mixed).margin(1e-4));
    }
    // The stored top keys are of all rows, and each part has its own.
    const auto overlap = [&](const std::string& rows) {
        return good("mask --json --layer 2 --head 1 --method a-shape:sink=2,window=4 --rows " +
                    rows + " " + session)
            .json()[0]["topOverlap"]["16"]
            .get<double>();
    };
    CHECK(overlap("all") * tokens ==
          Approx(overlap("prefill") * prompt + overlap("decode") * 10).margin(1e-6));
    CHECK(overlap("decode") < overlap("prefill"));
    CHECK(good("top --json --layer 2 --head 1 --row last " + session).json()[0]["row"] ==
          tokens - 1);
    const Json masks = good(
                           "mask --json --rows decode --layer 2 --head 1 "
                           "--method a-shape:sink=2,window=4 " +
                           session)
                           .json();
    CHECK(masks[0]["coverage"].get<double>() < 0.4);  // six keys of about twenty in each row
    good("mask --rows decode --layer 2 --head 1 --method a-shape:sink=2,window=4 --dump " +
         (scratch / "mask.npy") + " " + session);
    CHECK(npyShape(slurp(scratch / "mask.npy")) == "(10, " + std::to_string(tokens) + ")");
    good("map " + session + " --layer 2 --head 1 --rows decode --size 50x10 -o " +
         (scratch / "m.npy"));
    CHECK(npyShape(slurp(scratch / "m.npy")) == "(10, 50)");

    // A capture without decoding has one region only.
    good("capture bookworm --text " + text + " -o " + session);
    CHECK(newestCapture(session)["prefill"] == prompt);
    fails("heads --rows decode " + session, 2, "--decode N");
    fails("map --layer 0 --head 0 --rows decode -o " + (scratch / "n.npy") + " " + session, 2,
          "--decode N");
    fails("capture bookworm --text " + text + " --decode-steps 3-1 -o " + session, 2, "0,3,5-9");
    fails("capture bookworm --text " + text + " --decode 2 --decode-steps 5 -o " + session, 2,
          "steps 0 to 1");
    fails("capture bookworm --resume --decode 2 -o " + session, 2, "leave --decode out");
}
