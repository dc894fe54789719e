#include <charconv>
#include <iostream>

#include "app/cli/command.h"
#include "core/export/figure.h"
#include "core/figures/map_figure.h"
#include "sessions/analysis.h"

namespace sparsight::cli {
namespace {

struct Options {
    std::string session, capture, rect, rows = "all", size = "1024x1024", statistic = "max",
                                        scale = "log", colours = "magma", out;
    std::vector<std::string> overlays;
    std::string layer;
    Index head = 0;
    bool dark = false;
};

Index number(std::string_view text, const std::string& whole, const char* form) {
    Index value = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc{} || end != text.data() + text.size())
        throw Error(Errc::Usage, "'" + whole + "' is not of the form " + form);
    return value;
}

/// "q0:q1,k0:k1" within the capture; empty = everything.
void parseRect(const std::string& text, kernels::RenderSpec& spec) {
    if (text.empty()) return;
    const char* form = "q0:q1,k0:k1";
    const auto comma = text.find(','), first = text.find(':'), second = text.find(':', comma);
    if (comma == std::string::npos || first > comma || second == std::string::npos)
        throw Error(Errc::Usage, "'" + text + "' is not of the form " + form);
    const std::string_view v = text;
    const Index nq = spec.q1, nk = spec.k1;
    spec.q0 = number(v.substr(0, first), text, form);
    spec.q1 = number(v.substr(first + 1, comma - first - 1), text, form);
    spec.k0 = number(v.substr(comma + 1, second - comma - 1), text, form);
    spec.k1 = number(v.substr(second + 1), text, form);
    if (spec.q0 < 0 || spec.q0 >= spec.q1 || spec.q1 > nq || spec.k0 < 0 || spec.k0 >= spec.k1 ||
        spec.k1 > nk)
        throw Error(Errc::Usage, "the rectangle " + text + " is not inside the map: queries 0:" +
                                     std::to_string(nq) + ", keys 0:" + std::to_string(nk));
}

void map(const Context& context, const Options& o) {
    requireEnding(o.out, {".png", ".svg", ".pdf", ".npy"});
    std::vector<MethodSpec> overlays;
    for (const std::string& text : o.overlays) overlays.push_back(parseMethod(text));
    const auto session = sessions::Session::open(o.session, sessions::OpenMode::ReadOnly);
    const auto capture = findCapture(*session, o.capture);
    const auto backend = context.backend();
    const Index layer = parseLayer(o.layer, capture.config);
    sessions::chosenHeads(capture, {layer, o.head});
    const auto data = sessions::readLayer(*session, capture, layer);
    std::vector<HeadFacts> facts;
    if (!overlays.empty())
        facts = sessions::sessionHeadFacts(*session, capture, *backend, context.job());
    const HeadInput input = sessions::sessionHeadInput(data, facts, o.head, *backend);

    MapRequest request;
    request.spec.q1 = input.problem.Nq;
    request.spec.k1 = input.problem.Nk;
    parseRect(o.rect, request.spec);
    if (const RowRange rows = parseRows(o.rows); rows != RowRange::All) {
        if (!o.rect.empty())
            throw Error(Errc::Usage, "--rows and --rect both choose rows: give one of them");
        if (rows == RowRange::Decode && capture.generated() == 0)
            throw Error(Errc::Usage,
                        "the capture holds no generated tokens: capture with --decode N for their "
                        "rows");
        if (rows == RowRange::Prefill)
            request.spec.q1 = request.spec.k1 = capture.prefill;
        else
            request.spec.q0 = capture.prefill;
    }
    const auto cross = o.size.find('x');
    if (cross == std::string::npos)
        throw Error(Errc::Usage, "'" + o.size + "' is not of the form WxH");
    request.spec.width = number(std::string_view(o.size).substr(0, cross), o.size, "WxH");
    request.spec.height = number(std::string_view(o.size).substr(cross + 1), o.size, "WxH");
    if (request.spec.width < 1 || request.spec.height < 1 || request.spec.width > 16384 ||
        request.spec.height > 16384)
        throw Error(Errc::Usage,
                    "--size " + o.size + ": width and height must be 1 to 16384 pixels");
    request.spec.statistic = o.statistic == "sum"    ? kernels::Statistic::Sum
                             : o.statistic == "mean" ? kernels::Statistic::Mean
                                                     : kernels::Statistic::Max;
    request.log = o.scale == "log";
    request.colours = colourMapByName(o.colours);
    request.overlays = overlays;
    request.modelName = capture.modelName;
    request.promptName = capture.promptName;
    request.captureUuid = capture.uuid;
    request.headName = headName(capture.config, layer, o.head);

    const std::string ending = std::filesystem::path(o.out).extension().string();
    if (ending == ".npy") {
        std::vector<float> px(std::size_t(request.spec.width * request.spec.height));
        backend->render(input.problem, input.q, input.k, input.lse, request.spec, px.data(),
                        context.job());
        writeNpy(o.out, px, {request.spec.height, request.spec.width});
    } else {
        FigureSize size;
        size.dark = o.dark;
        writeFigure(makeMapFigure(*backend, input, request, context.job()), o.out, size);
    }
    endProgress();
    if (context.json)
        printJson(
            {{"file", o.out}, {"width", request.spec.width}, {"height", request.spec.height}});
    else
        std::cout << "wrote " << o.out << "\n";
}

}  // namespace

void addMapCommand(CLI::App& app, Context& context) {
    const auto o = std::make_shared<Options>();
    auto* c =
        addCommand(app, context, "map", "Draw a head's attention map, exactly, with masks over it",
                   [&context, o] { map(context, *o); });
    c->add_option("session", o->session, "Session folder")->required();
    c->add_option("--capture", o->capture, "Capture uuid or its beginning (default: the newest)");
    c->add_option("--layer", o->layer, "Layer, 3 or cross.0")->required();
    c->add_option("--head", o->head, "Query head")->required();
    c->add_option("--rect", o->rect, "Part of the map: q0:q1,k0:k1 (default: all)");
    c->add_option("--rows", o->rows,
                  "Rows: prefill (the prompt's), decode (the generated tokens') or all")
        ->capture_default_str()
        ->check(CLI::IsMember({"prefill", "decode", "all"}));
    c->add_option("--size", o->size, "Pixels of the raster, WxH")->capture_default_str();
    c->add_option("--stat", o->statistic, "Value of a pixel: sum, mean or max of its pairs")
        ->capture_default_str()
        ->check(CLI::IsMember({"sum", "mean", "max"}));
    c->add_option("--scale", o->scale, "Colour scale: log or linear")
        ->capture_default_str()
        ->check(CLI::IsMember({"log", "linear"}));
    c->add_option("--colours", o->colours, "Colour map: magma, viridis, cividis, grey")
        ->capture_default_str();
    c->add_option("--overlay", o->overlays, "Mask drawn over the map (may be repeated)")
        ->allow_extra_args(false);
    c->add_flag("--dark", o->dark, "Light on dark");
    c->add_option("-o,--out", o->out,
                  "F.png, F.svg, F.pdf, or F.npy (raw float32 statistic; -1 = no pair)")
        ->required();
    addComputeOptions(*c, context);
}

}  // namespace sparsight::cli
