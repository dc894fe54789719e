#pragma once

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/masks/method.h"
#include "core/metrics/mask_metrics.h"
#include "core/model/safetensors.h"

/// One golden of tests/data/methods: what the authors' own code selected.
struct Golden {
    nlohmann::json json;
    sparsight::SafeTensors file;

    explicit Golden(const std::string& name)
        : file(sparsight::SafeTensors::openFile(path(name + ".safetensors"))) {
        std::ifstream in(path(name + ".json"));
        json = nlohmann::json::parse(in);
    }
    static std::string path(const std::string& name) {
        return std::string(SPARSIGHT_TEST_DATA) + "/methods/" + name;
    }
    double parameter(const char* name) const { return json.at("parameters").at(name).get<double>(); }
    std::vector<std::int64_t> ints(const std::string& name) const { return file.at(name).toInt(); }
    std::vector<float> floats(const std::string& name) const { return file.at(name).toFloat(); }
    /// float64 as stored (toFloat would round).
    std::vector<double> doubles(const std::string& name) const {
        const auto& t = file.at(name);
        REQUIRE(t.dtype == sparsight::StDType::F64);
        std::vector<double> out(std::size_t(t.elements()));
        std::memcpy(out.data(), t.bytes.data(), t.bytes.size());
        return out;
    }
    sparsight::Index extent(const std::string& name, int d) const {
        return file.at(name).shape[std::size_t(d)];
    }
    /// mask_bits [masks, n, ceil(n/8)], bit order little, as one byte per pair [n][n].
    std::vector<std::uint8_t> mask(sparsight::Index which, sparsight::Index n) const {
        const auto& t = file.at("mask_bits");
        const auto width = std::size_t(t.shape[2]), size = std::size_t(n);
        REQUIRE(t.shape[1] == n);
        std::vector<std::uint8_t> out(size * size);
        for (std::size_t r = 0; r < size; ++r)
            for (std::size_t c = 0; c < size; ++c)
                out[r * size + c] =
                    (std::to_integer<unsigned>(
                         t.bytes[(std::size_t(which) * size + r) * width + c / 8]) >>
                     (c % 8)) & 1u;
        return out;
    }
};

/// The stored q, k, v of the sample model (float16, 8 query heads, 4 KV heads, d 64), first n rows.
struct StoredLayer {
    sparsight::SafeTensors file;
    std::vector<std::uint16_t> q, k, v;
    sparsight::kernels::Problem problem;
    sparsight::Index stored = 0;

    StoredLayer(const std::string& name, sparsight::Index n)
        : file(sparsight::SafeTensors::openFile(Golden::path("inputs/" + name + ".safetensors"))) {
        const auto load = [&](const char* tensor) {
            const auto& t = file.at(tensor);
            REQUIRE(t.dtype == sparsight::StDType::F16);
            std::vector<std::uint16_t> out(t.bytes.size() / 2);  // the file's bytes are not aligned
            std::memcpy(out.data(), t.bytes.data(), t.bytes.size());
            return out;
        };
        q = load("q");
        k = load("k");
        v = load("v");
        stored = file.at("q").shape[1];
        problem.Hq = 8;
        problem.Hkv = 4;
        problem.Nq = problem.Nk = n;
        problem.d = problem.dv = 64;
        problem.scale = 0.125f;
    }
    sparsight::kernels::TensorView view(const std::vector<std::uint16_t>& x,
                                        sparsight::Index head) const {
        return {x.data() + head * stored * 64, sparsight::kernels::DType::F16,
                sparsight::Index(x.size()), stored * 64, 64};
    }
    sparsight::HeadInput head(sparsight::Index h, sparsight::kernels::Backend& backend) const {
        sparsight::HeadInput in;
        in.problem = problem.oneHead(h);
        in.q = view(q, h);
        in.k = view(k, h / 2);
        in.backend = &backend;
        in.head = h;
        in.kvHead = h / 2;
        return in;
    }
    sparsight::kernels::TensorView headV(sparsight::Index h) const { return view(v, h / 2); }

    /// Recall and coverage of a policy on one head, by the shipped metrics.
    sparsight::MaskMetrics measure(sparsight::Index h, sparsight::kernels::Backend& backend,
                                   const sparsight::kernels::Policy& policy) const {
        sparsight::MetricsOptions options;
        options.outputError = options.tileRecall = false;
        return sparsight::measureMask(backend, head(h, backend), headV(h), policy, options);
    }
};
