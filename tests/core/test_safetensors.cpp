#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "core/model/config.h"
#include "core/model/safetensors.h"
#include "core/model/sha256.h"
#include "kernels/base/error.h"

using namespace sparsight;
namespace fs = std::filesystem;

namespace {

/// A folder of its own for each test, removed at the end.
struct Folder {
    fs::path path;
    Folder() {
        std::string name = (fs::temp_directory_path() / "sparsight_st_XXXXXX").string();
        REQUIRE(mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Folder() { fs::remove_all(path); }
};

std::string image(const std::string& header, const std::string& data, std::uint64_t announced) {
    std::string out;
    for (int i = 0; i < 8; ++i) out += char(announced >> (8 * i));
    return out + header + data;
}
std::string image(const std::string& header, const std::string& data) {
    return image(header, data, header.size());
}

void write(const fs::path& file, const std::string& bytes) {
    std::ofstream(file, std::ios::binary) << bytes;
}

std::string openError(const std::string& bytes, Errc expected = Errc::Format) {
    const Folder folder;
    const fs::path file = folder.path / "x.safetensors";
    write(file, bytes);
    try {
        SafeTensors::openFile(file);
    } catch (const Error& e) {
        CHECK(e.code() == expected);
        CHECK(std::string(e.what()).find("x.safetensors") != std::string::npos);  // names the file
        return e.what();
    }
    return "opened";
}

SafeTensors open(const std::string& bytes) {
    const Folder folder;
    write(folder.path / "x.safetensors", bytes);
    return SafeTensors::openFile(folder.path / "x.safetensors");
}

constexpr const char* kOne = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";

}  // namespace

TEST_CASE("SHA-256 of known messages", "[safetensors]") {
    CHECK(sha256Hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256Hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256Hex(std::string(1000000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    Sha256 pieces;  // pieces of every length give what the whole gives
    std::string whole;
    for (std::size_t n = 0; n < 200; ++n) {
        const std::string piece(n, char('a' + n % 26));
        pieces.add(piece);
        whole += piece;
    }
    CHECK(pieces.hex() == sha256Hex(whole));
}

TEST_CASE("what is written is read back", "[safetensors]") {
    const Folder folder;
    const fs::path file = folder.path / "t.safetensors";
    const std::vector<float> f = {1.5f, -2.25f, 3e38f, std::numeric_limits<float>::quiet_NaN(),
                                  0.f,  7.f};
    const std::vector<std::uint16_t> half = {0x3c00, 0xc000, 0x0001}, bf = {0x3fc0, 0xff80};
    const std::vector<std::int64_t> whole = {-5, 1ll << 40};
    const std::vector<std::uint8_t> bytes = {0, 1, 255};
    const std::vector<double> d = {0.1};
    writeSafeTensors(file,
                     {{"bytes", StDType::U8, {3}, bytes.data()},
                      {"f", StDType::F32, {2, 3}, f.data()},
                      {"half", StDType::F16, {3}, half.data()},
                      {"bf", StDType::BF16, {2}, bf.data()},
                      {"whole", StDType::I64, {2}, whole.data()},
                      {"scalar", StDType::F64, {}, d.data()},
                      {"nothing", StDType::F32, {0, 4}, nullptr}},
                     {{"format", "pt"}});
    const SafeTensors t = SafeTensors::openFile(file);
    CHECK(t.tensors().size() == 7);
    CHECK(t.metadata().at("format") == "pt");
    CHECK(t.fileBytes() == Index(fs::file_size(file)));
    CHECK(t.at("f").shape == std::vector<Index>{2, 3});
    const auto back = t.at("f").toFloat();
    CHECK(std::memcmp(back.data(), f.data(), 24) == 0);
    CHECK(t.at("half").toFloat() == std::vector<float>{1.0f, -2.0f, std::ldexp(1.0f, -24)});
    CHECK(t.at("bf").toFloat() ==
          std::vector<float>{1.5f, -std::numeric_limits<float>::infinity()});
    CHECK(t.at("whole").toInt() == whole);
    CHECK(t.at("bytes").toInt() == std::vector<std::int64_t>{0, 1, 255});
    CHECK(t.at("bytes").toFloat() == std::vector<float>{0, 1, 255});
    CHECK(t.at("scalar").elements() == 1);
    CHECK(t.at("scalar").toFloat() == std::vector<float>{0.1f});
    CHECK(t.at("nothing").toFloat().empty());
    CHECK_THROWS_WITH(t.at("absent"),
                      Catch::Contains("absent") && Catch::Contains("t.safetensors"));
    CHECK_THROWS_AS(t.at("f").toInt(), Error);
}

TEST_CASE("8-bit floats by hand", "[safetensors]") {
    // E4M3: 0x38 = 1, 0x7e = 448 (largest), 0x01 = 2^-9, 0xff = NaN; E5M2: 0x3c = 1, 0x7c = inf
    const auto t = open(image(
        R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[4,6]},"c":{"dtype":"F8_E8M0","shape":[2],"data_offsets":[6,8]}})",
        "\x38\x7e\x01\xff\x3c\x7c\x7f\x82"));
    const auto a = t.at("a").toFloat(), b = t.at("b").toFloat();
    CHECK(a[0] == 1.0f);
    CHECK(a[1] == 448.0f);
    CHECK(a[2] == std::ldexp(1.0f, -9));
    CHECK(std::isnan(a[3]));
    CHECK(b == std::vector<float>{1.0f, std::numeric_limits<float>::infinity()});
    CHECK(t.at("c").toFloat() == std::vector<float>{1.0f, 8.0f});
}

TEST_CASE("allowed oddities open", "[safetensors]") {
    CHECK(open(image("{}", "")).tensors().empty());
    CHECK(open(image(std::string("  \n") + kOne + "   ", "1234")).contains("a"));
    CHECK(open(image(R"({"__metadata__":null})", "")).tensors().empty());
    CHECK(
        open(
            image(
                R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":{"x":[1.5,{"y":null}]}}})",
                "1234"))
            .contains("a"));
    // order in the file does not matter
    CHECK(
        open(
            image(
                R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                "123"))
            .at("b")
            .toInt() == std::vector<std::int64_t>{'2', '3'});
    const auto other = open(image(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", "1"));
    CHECK(other.at("a").dtype == StDType::Other);
    CHECK_THROWS_WITH(other.at("a").toFloat(), Catch::Contains("F4"));
}

TEST_CASE("each rule of the format, broken one by one", "[safetensors]") {
    using Catch::Contains;
    CHECK_THAT(openError(""), Contains("too few"));
    CHECK_THAT(openError("1234567"), Contains("too few"));
    CHECK_THAT(openError(image("{}", "", 100000001)), Contains("100000000"));
    CHECK_THAT(openError(image("{}", "", ~std::uint64_t{0})), Contains("100000000"));
    CHECK_THAT(openError(image("{}", "", 3)), Contains("truncated"));
    CHECK_THAT(openError(image("", "")), Contains("not JSON"));
    CHECK_THAT(openError(image("{\"a\xff\":1}", "")), Contains("not JSON"));
    CHECK_THAT(openError(image("{", "")), Contains("not JSON"));
    CHECK_THAT(openError(image("{} x", "")), Contains("not JSON"));
    CHECK_THAT(openError(image(std::string("{}\0\0", 4), "")), Contains("not JSON"));
    CHECK_THAT(openError(image("\xef\xbb\xbf{}", "")), Contains("not JSON"));
    CHECK_THAT(openError(image("[]", "")), Contains("object"));
    CHECK_THAT(openError(image("3", "")), Contains("object"));
    CHECK_THAT(openError(image("\"s\"", "")), Contains("object"));
    const auto entry = [](const std::string& body) {
        return image("{\"a\":" + body + "}", "1234");
    };
    CHECK_THAT(openError(entry("5")), Contains("\"a\"") && Contains("object"));
    CHECK_THAT(openError(entry("[]")), Contains("\"a\"") && Contains("object"));
    CHECK_THAT(openError(entry("null")), Contains("\"a\"") && Contains("object"));
    CHECK_THAT(openError(entry(R"({"shape":[1],"data_offsets":[0,4]})")),
               Contains("dtype is missing"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","data_offsets":[0,4]})")),
               Contains("shape is missing"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[1]})")),
               Contains("data_offsets is missing"));
    CHECK_THAT(openError(entry(R"({"dtype":"f32","shape":[1],"data_offsets":[0,4]})")),
               Contains("unknown dtype"));
    CHECK_THAT(openError(entry(R"({"dtype":7,"shape":[1],"data_offsets":[0,4]})")),
               Contains("dtype must be a string"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})")),
               Contains("shape must be a list"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":["1"],"data_offsets":[0,4]})")),
               Contains("shape must be a list"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[[1]],"data_offsets":[0,4]})")),
               Contains("shape must be a list"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[{}],"data_offsets":[0,4]})")),
               Contains("shape must be a list"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})")),
               Contains("1.0"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4e0]})")),
               Contains("4e0"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})")),
               Contains("negative"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})")),
               Contains("two numbers"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,4]})")),
               Contains("two numbers"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})")),
               Contains("before they begin"));
    CHECK_THAT(openError(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})")),
               Contains("need 8"));
    CHECK_THAT(openError(entry(R"({"dtype":"F4","shape":[1],"data_offsets":[0,4]})")),
               Contains("whole bytes"));
    CHECK_THAT(
        openError(entry(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})")),
        Contains("twice"));
    CHECK_THAT(
        openError(entry(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})")),
        Contains("overflow"));
    CHECK_THAT(
        openError(entry(R"({"dtype":"F64","shape":[288230376151711744],"data_offsets":[0,4]})")),
        Contains("overflow"));
    CHECK_THAT(
        openError(entry(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]})")),
        Contains("out of range"));
    CHECK_THAT(
        openError(image(
            R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
            "12")),
        Contains("twice"));
    CHECK_THAT(openError(image(R"({"__metadata__":{},"__metadata__":{}})", "")), Contains("twice"));
    CHECK_THAT(openError(image(R"({"__metadata__":{"k":1}})", "")), Contains("must be a string"));
    CHECK_THAT(openError(image(R"({"__metadata__":{"k":{}}})", "")), Contains("must be a string"));
    CHECK_THAT(openError(image(R"({"__metadata__":{"k":null}})", "")),
               Contains("must be a string"));
    CHECK_THAT(openError(image(R"({"__metadata__":[]})", "")), Contains("__metadata__"));
    const auto two = [](const std::string& a, const std::string& b) {
        return image(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
                         R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}",
                     "1234");
    };
    CHECK(openError(two("[0,2]", "[2,4]")) == "opened");
    CHECK_THAT(openError(two("[0,2]", "[1,3]")), Contains("\"b\"") && Contains("overlap"));
    CHECK_THAT(openError(two("[0,2]", "[0,2]")), Contains("overlap"));
    CHECK_THAT(openError(two("[0,2]", "[3,5]")), Contains("hole"));
    CHECK_THAT(openError(two("[1,3]", "[3,5]")), Contains("hole"));
    CHECK_THAT(openError(image(kOne, "123")), Contains("truncated"));
    CHECK_THAT(openError(image(kOne, "12345")), Contains("trailing"));
    CHECK_THAT(openError(image("{}", "1")), Contains("trailing"));
    std::string deep = "{\"a\":{\"x\":";
    for (int i = 0; i < 100000; ++i) deep += "[";
    CHECK_THAT(openError(image(deep, "")), Contains("deeper"));
    std::string ones = "1";
    for (int i = 0; i < 100; ++i) ones += ",1";
    CHECK_THAT(
        openError(entry("{\"dtype\":\"F32\",\"shape\":[" + ones + "],\"data_offsets\":[0,4]}")),
        Contains("dimensions"));
}

TEST_CASE("every truncation and every flipped byte of a file is an error or opens",
          "[safetensors]") {
    const std::string good = image(kOne, "1234");
    for (std::size_t n = 0; n < good.size(); ++n) CHECK(openError(good.substr(0, n)) != "opened");
    const Folder folder;
    for (std::size_t i = 0; i < good.size(); ++i)
        for (const int flip : {1, 0x20, 0x80}) {
            std::string bad = good;
            bad[i] = char(bad[i] ^ flip);
            write(folder.path / "x", bad);
            try {
                const SafeTensors t = SafeTensors::openFile(folder.path / "x");
                for (const auto& [name, tensor] : t.tensors()) CHECK(tensor.bytes.size() <= 4);
            } catch (const Error& e) {
                CHECK(e.code() == Errc::Format);
            }
        }
}

TEST_CASE("missing files, folders and pickles", "[safetensors]") {
    const Folder folder;
    CHECK_THROWS_WITH(SafeTensors::openFile(folder.path / "no"), Catch::Contains("does not exist"));
    CHECK_THROWS_AS(SafeTensors::openFile(folder.path), Error);
    CHECK_THROWS_WITH(SafeTensors::openModel(folder.path), Catch::Contains("neither"));
    write(folder.path / "pytorch_model.bin", "x");
    CHECK_THROWS_WITH(SafeTensors::openModel(folder.path), Catch::Contains("pickle"));
    write(folder.path / "model.fp16.safetensors", image("{}", ""));
    CHECK_THROWS_WITH(SafeTensors::openModel(folder.path),
                      Catch::Contains("model.fp16.safetensors"));
    write(folder.path / "model.safetensors", image(kOne, "1234"));
    CHECK(SafeTensors::openModel(folder.path).contains("a"));
    write(folder.path / "config.json", R"({"transformers_weights":"model.fp16.safetensors"})");
    CHECK(SafeTensors::openModel(folder.path).tensors().empty());
    write(folder.path / "config.json", R"({"transformers_weights":"../x"})");
    CHECK_THROWS_WITH(SafeTensors::openModel(folder.path), Catch::Contains("inside"));
}

TEST_CASE("shards: found by the index, every lie of it refused", "[safetensors]") {
    const Folder folder;
    const auto tensor = [](const char* name) {
        return image(
            std::string("{\"") + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
            "x");
    };
    const auto index = [&](const std::string& map) {
        write(folder.path / "model.safetensors.index.json",
              R"({"metadata":{},"weight_map":)" + map + "}");
    };
    write(folder.path / "m1.safetensors", tensor("a"));
    write(folder.path / "m2.safetensors", tensor("b"));
    index(R"({"a":"m1.safetensors","b":"m2.safetensors"})");
    const auto t = SafeTensors::openModel(folder.path);
    CHECK(t.tensors().size() == 2);
    CHECK(t.notes().empty());
    CHECK(t.fileBytes() == Index(fs::file_size(folder.path / "m1.safetensors") +
                                 fs::file_size(folder.path / "m2.safetensors")));
    using Catch::Contains;
    const auto refused = [&](const std::string& map, const char* word) {
        index(map);
        CHECK_THROWS_WITH(SafeTensors::openModel(folder.path), Contains(word));
    };
    refused(R"({"a":"m1.safetensors","c":"m2.safetensors"})", "\"c\" is not in m2");
    refused(R"({"a":"m1.safetensors","b":"m3.safetensors"})", "missing");
    refused("{\"a\":\"" + std::string(3000, 'x') + "\"}", "missing");  // no file system has it
    refused(R"({"a":"../m1.safetensors"})", "plain file name");
    refused(R"({"a":"/etc/passwd"})", "plain file name");
    refused(R"({"a":".."})", "plain file name");
    refused(R"({"a":3})", "plain file name");
    refused(R"({"a":"m1.safetensors","a":"m2.safetensors"})", "twice");
    refused("{}", "empty");
    refused("[]", "weight_map");
    write(folder.path / "m2.safetensors", tensor("a"));
    refused(R"({"a":"m1.safetensors","b":"m2.safetensors"})", "another shard");
    write(
        folder.path / "m2.safetensors",
        image(
            R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"z":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
            "xy"));
    index(R"({"a":"m1.safetensors","b":"m2.safetensors"})");
    CHECK(SafeTensors::openModel(folder.path).notes().size() == 1);
}

TEST_CASE("the sample model opens", "[safetensors]") {
    const auto t = SafeTensors::openModel(resolveModel("bookworm"));
    CHECK(t.at("model.embed_tokens.weight").shape == std::vector<Index>{4096, 256});
    CHECK(t.at("model.layers.7.self_attn.k_proj.weight").dtype == StDType::BF16);
    CHECK(sha256File(resolveModel("bookworm") / "model.safetensors") ==
          "59e1499d0da61931fa98391fa2cfaca49493f71053345bfa55847588cbe365ff");
}
