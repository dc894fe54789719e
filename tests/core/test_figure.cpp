#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "core/export/figure.h"
#include "kernels/base/error.h"

using namespace sparsight;
namespace fs = std::filesystem;

namespace {

/// A folder of its own that goes when the test ends.
struct Folder {
    fs::path path = fs::temp_directory_path() / ("sparsight-figure-" + std::to_string(::getpid()));
    Folder() { fs::create_directories(path); }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    fs::path operator/(const char* name) const { return path / name; }
};

std::string bytesOf(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    REQUIRE(in);
    return {std::istreambuf_iterator<char>(in), {}};
}

/// Causal map of 4 x 4 pixels over 4 tokens.
MapFigure small() {
    MapFigure f;
    f.width = f.height = 4;
    f.q1 = f.k1 = 4;
    f.values.assign(16, -1.0f);
    for (std::size_t r = 0; r < 4; ++r)
        for (std::size_t c = 0; c <= r; ++c) f.values[r * 4 + c] = 1.0f / float(r + 1);
    f.scale = {ColourMap::Viridis, false, 0, 1};
    f.barLabel = "attention probability, max per pixel";
    f.title = "bookworm L6H5 <&>";
    f.caption = "Prompt: demo, 4 tokens.";
    f.metadata = R"({"producer":"sparsight","layer":6})";
    return f;
}

ChartFigure chart() {
    ChartFigure f;
    f.title = "Recall against density";
    f.xLabel = "density";
    f.yLabel = "exact recall";
    f.percentX = true;
    f.series.push_back({"a-shape", {0, 158, 115}, {0.1, 0.2, 0.4}, {0.5, NAN, 0.9}});
    f.series.push_back({"dense", {0, 0, 0}, {1}, {1}});
    return f;
}

Errc codeOf(const std::function<void()>& work) {
    try {
        work();
    } catch (const Error& e) {
        return e.code();
    }
    FAIL("no error");
    return Errc::Usage;
}

std::uint32_t argb(Rgb c) {
    return 0xff000000u | std::uint32_t(c.r) << 16 | std::uint32_t(c.g) << 8 | c.b;
}

/// Opening and closing tags match, attributes are quoted, no stray '<' or '&'.
void checkXml(const std::string& text) {
    std::vector<std::string> open;
    std::size_t at = 0;
    while ((at = text.find('<', at)) != std::string::npos) {
        const std::size_t end = text.find('>', at);
        REQUIRE(end != std::string::npos);
        const std::string tag = text.substr(at + 1, end - at - 1);
        REQUIRE(tag.find('<') == std::string::npos);
        REQUIRE(std::count(tag.begin(), tag.end(), '"') % 2 == 0);
        const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
        if (tag[0] == '/') {
            REQUIRE(!open.empty());
            REQUIRE(open.back() == tag.substr(1));
            open.pop_back();
        } else if (tag[0] != '?' && tag.back() != '/') {
            open.push_back(name);
        }
        at = end;
    }
    CHECK(open.empty());
    for (at = text.find('&'); at != std::string::npos; at = text.find('&', at + 1))
        CHECK(text.substr(at, 6).find(';') != std::string::npos);
}

}  // namespace

TEST_CASE("colour maps meet the published tables", "[figure]") {
    struct Known {
        ColourMap map;
        int index, r, g, b;
    };
    const Known known[] = {
        {ColourMap::Magma, 0, 0, 0, 4},           {ColourMap::Magma, 64, 81, 18, 124},
        {ColourMap::Magma, 128, 183, 55, 121},    {ColourMap::Magma, 200, 253, 152, 105},
        {ColourMap::Magma, 255, 252, 253, 191},   {ColourMap::Viridis, 0, 68, 1, 84},
        {ColourMap::Viridis, 64, 59, 82, 139},    {ColourMap::Viridis, 128, 33, 145, 140},
        {ColourMap::Viridis, 200, 112, 207, 87},  {ColourMap::Viridis, 255, 253, 231, 37},
        {ColourMap::Cividis, 0, 0, 34, 78},       {ColourMap::Cividis, 64, 67, 78, 108},
        {ColourMap::Cividis, 128, 125, 124, 120}, {ColourMap::Cividis, 200, 196, 180, 104},
        {ColourMap::Cividis, 255, 254, 232, 56},  {ColourMap::Grey, 0, 0, 0, 0},
        {ColourMap::Grey, 255, 255, 255, 255},    {ColourMap::Difference, 0, 5, 48, 97},
        {ColourMap::Difference, 255, 103, 0, 31}};
    for (const Known& k : known) {
        const Rgb c = colour(k.map, k.index / 255.0);
        CAPTURE(int(k.map), k.index, int(c.r), int(c.g), int(c.b));
        CHECK(std::abs(int(c.r) - k.r) <= 2);
        CHECK(std::abs(int(c.g) - k.g) <= 2);
        CHECK(std::abs(int(c.b) - k.b) <= 2);
    }
    CHECK(argb(colour(ColourMap::Difference, 0.5)) == 0xfff7f7f7u);
    CHECK(argb(colour(ColourMap::Magma, 7)) == argb(colour(ColourMap::Magma, 1)));
    CHECK(colourMapByName("cividis") == ColourMap::Cividis);
    CHECK(codeOf([] { colourMapByName("jet"); }) == Errc::Usage);
    CHECK(argb(parseColour("#0a9F73")) == 0xff0a9f73u);
    for (const char* bad : {"", "#12345", "123456#", "#12345g", "#1234567"})
        CHECK(codeOf([bad] { parseColour(bad); }) == Errc::Usage);
}

TEST_CASE("values find their place on the scale", "[figure]") {
    const ColourScale log{ColourMap::Magma, true, 1e-4, 1};
    CHECK(log.position(1e-2) == Approx(0.5));
    CHECK(log.position(1) == Approx(1));
    CHECK(log.position(0) == 0);
    CHECK(log.position(5) == 1);
    CHECK(std::isnan(log.position(-1)));
    CHECK(std::isnan(log.position(NAN)));
    const ColourScale linear{ColourMap::Magma, false, 0, 2};
    CHECK(linear.position(0.5) == Approx(0.25));
    const std::vector<float> values{-1, 0.5f, 3, NAN};
    const ColourScale fitted = fitScale(ColourMap::Grey, true, values);
    CHECK(fitted.hi == Approx(3));
    CHECK(fitted.lo == Approx(3e-5));
    CHECK(fitScale(ColourMap::Grey, false, values).lo == 0);
    CHECK(fitScale(ColourMap::Grey, false, std::vector<float>{-1}).hi == 1);
}

TEST_CASE("the same figure gives the same bytes and leaves no other file", "[figure]") {
    const Folder folder;
    for (const char* ending : {"png", "svg", "pdf"}) {
        const fs::path a = folder.path / (std::string("a.") + ending);
        const fs::path b = folder.path / (std::string("b.") + ending);
        CAPTURE(ending);
        writeFigure(small(), a);
        writeFigure(chart(), b);  // something in between that could count on
        writeFigure(small(), b);
        CHECK(bytesOf(a) == bytesOf(b));
        writeFigure(chart(), a);
        writeFigure(chart(), b);
        CHECK(bytesOf(a) == bytesOf(b));
    }
    CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 6);
    CHECK(bytesOf(folder / "a.pdf").find("CreationDate") == std::string::npos);
}

TEST_CASE("an SVG figure is well-formed and names its axes", "[figure]") {
    const Folder folder;
    writeFigure(small(), folder / "f.svg");
    const std::string map = bytesOf(folder / "f.svg");
    checkXml(map);
    for (const char* text :
         {">key (token)<", ">query (token)<", ">attention probability, max per pixel<",
          "<title>bookworm L6H5 &lt;&amp;&gt;</title>", "Prompt: demo, 4 tokens.",
          "{&quot;producer&quot;:&quot;sparsight&quot;,&quot;layer&quot;:6}</metadata>"})
        CHECK(map.find(text) != std::string::npos);
    writeFigure(chart(), folder / "c.svg");
    const std::string svg = bytesOf(folder / "c.svg");
    checkXml(svg);
    for (const char* text : {">density<", ">exact recall<", ">a-shape<", ">dense<", ">100%<"})
        CHECK(svg.find(text) != std::string::npos);
}

TEST_CASE("PNG and PDF say what made them", "[figure]") {
    const Folder folder;
    MapFigure f = small();
    writeFigure(f, folder / "f.PNG");
    const std::string png = bytesOf(folder / "f.PNG");
    CHECK(png.substr(0, 8) == "\x89PNG\r\n\x1a\n");
    CHECK(png.find(std::string("tEXtsparsight\0", 14) + f.metadata) != std::string::npos);
    f.caption = "Prompt: Bücher";
    writeFigure(f, folder / "u.png");
    CHECK(bytesOf(folder / "u.png").find("iTXtDescription") != std::string::npos);
    const auto big = [&](std::size_t at) {
        return (std::uint32_t(static_cast<unsigned char>(png[at + 2])) << 8) |
               static_cast<unsigned char>(png[at + 3]);
    };
    CHECK(big(16) == 2102);  // 178 mm at 300 dpi
    CHECK(big(20) == 1654);  // 140 mm
    writeFigure(f, folder / "f.pdf");
    CHECK(bytesOf(folder / "f.pdf").substr(0, 5) == "%PDF-");
}

TEST_CASE("cells have the colours of their values, with sharp edges", "[figure]") {
    MapFigure f = small();
    const bool dark = GENERATE(false, true);
    FigureSize size;
    size.dark = dark;
    const Index w = 890, h = 700;
    const auto pixels = previewFigure(f, size, w, h);
    const auto at = [&](Index x, Index y) { return pixels[std::size_t(y * w + x)]; };
    // The colour bar shows every colour too, but only the map has runs of one colour this long:
    // the first row of pixels that holds one starts the map.
    const std::uint32_t one = argb(colour(ColourMap::Viridis, 1));
    Index x0 = -1, y0 = -1, cell = 0;
    for (Index y = 0; y < h && x0 < 0; ++y)
        for (Index x = 0; x < w; ++x) {
            Index run = 0;
            while (x + run < w && at(x + run, y) == one) ++run;
            if (run > 60) {
                x0 = x;
                y0 = y;
                cell = run;
                break;
            }
        }
    REQUIRE(x0 >= 0);
    for (Index r = 0; r < 4; ++r)
        for (Index c = 0; c < 4; ++c) {
            const std::uint32_t expected =
                c <= r ? argb(colour(ColourMap::Viridis, 1.0 / double(r + 1)))
                : dark ? 0xff2c3038u
                       : 0xffe8e9ecu;
            CAPTURE(r, c, dark);
            for (const Index part : {cell / 8, cell / 2, cell - cell / 8})
                CHECK(at(x0 + c * (cell + 1) + part - c, y0 + r * (cell + 1) + part - r) ==
                      expected);
        }
    CHECK(at(2, 2) == (dark ? 0xff16181du : 0xffffffffu));

    MapFigure::Overlay overlay{"a-shape", {255, 0, 0}, 1.0, std::vector<float>(16, 0.0f)};
    overlay.kept[5] = 1;  // row 1, column 1
    f.overlays.push_back(overlay);
    const auto covered = previewFigure(f, size, w, h);
    CHECK(std::count(covered.begin(), covered.end(), 0xffff0000u) > 1000);
}

TEST_CASE("wrong figures and files are told", "[figure]") {
    const Folder folder;
    CHECK(codeOf([&] { writeFigure(small(), folder / "f.bmp"); }) == Errc::Usage);
    CHECK(codeOf([&] { writeFigure(chart(), folder / "f"); }) == Errc::Usage);
    CHECK(codeOf([&] { writeFigure(small(), folder / "no/such/f.png"); }) == Errc::Io);
    MapFigure f = small();
    f.values.pop_back();
    CHECK(codeOf([&] { writeFigure(f, folder / "f.png"); }) == Errc::Shape);
    f = small();
    f.overlays.push_back({"x", {}, 0.5, {1}});
    CHECK(codeOf([&] { writeFigure(f, folder / "f.png"); }) == Errc::Shape);
    CHECK(codeOf([&] {
              writeFigure(small(), folder / "f.png", {20, 15, 300, false});
          }) == Errc::Usage);
    ChartFigure c = chart();
    c.series[0].x.pop_back();
    CHECK(codeOf([&] { writeFigure(c, folder / "c.png"); }) == Errc::Shape);
    CHECK(fs::is_empty(folder.path));
    writeFigure(ChartFigure{}, folder / "empty.svg");  // axes without data
}

TEST_CASE("npy files start at a multiple of 64 and hold the array", "[figure]") {
    const Folder folder;
    const std::vector<float> data{1, 2, 3, 4, 5, 6};
    writeNpy(folder / "a.npy", data, {2, 3});
    const std::string a = bytesOf(folder / "a.npy");
    CHECK(a.substr(0, 8) == std::string("\x93NUMPY\x01\x00", 8));
    const std::size_t header =
        static_cast<unsigned char>(a[8]) + 256u * static_cast<unsigned char>(a[9]);
    CHECK((10 + header) % 64 == 0);
    CHECK(a[9 + header] == '\n');
    CHECK(a.substr(10).rfind("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 0) ==
          0);
    REQUIRE(a.size() == 10 + header + 24);
    CHECK(std::memcmp(a.data() + 10 + header, data.data(), 24) == 0);

    const std::vector<std::uint8_t> mask{0, 1, 1};
    writeNpy(folder / "m.npy", mask, {3});
    const std::string m = bytesOf(folder / "m.npy");
    CHECK(m.find("'descr': '|u1', 'fortran_order': False, 'shape': (3,), }") != std::string::npos);
    CHECK(m.substr(m.size() - 3) == std::string("\0\1\1", 3));
    CHECK(codeOf([&] { writeNpy(folder / "x.npy", mask, {2}); }) == Errc::Shape);
}
