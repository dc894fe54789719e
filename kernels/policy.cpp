#include "kernels/policy.h"

#include <string>

#include "kernels/base/error.h"

namespace sparsight::kernels {
namespace {

using Ranges = std::vector<Range>;

/// Appends [begin, end) clipped to [lo, hi); merges with the last range where they touch.
void append(Ranges& out, Index begin, Index end, Index lo, Index hi) {
    begin = std::max(begin, lo);
    end = std::min(end, hi);
    if (begin >= end) return;
    if (!out.empty() && begin <= out.back().end) {
        out.back().end = std::max(out.back().end, std::int32_t(end));
    } else {
        out.push_back({std::int32_t(begin), std::int32_t(end)});
    }
}

struct Row {
    const Problem& problem;
    Index row, lo, hi;
    Ranges& out;

    void operator()(const Dense&) const { append(out, lo, hi, lo, hi); }

    void operator()(const Streaming& s) const {
        const Index position = problem.position(row);
        append(out, 0, s.sink, lo, hi);
        append(out, position - s.window + 1, position + 1, lo, hi);
    }

    void operator()(const BlockList& list) const {
        const auto block = std::size_t(row / list.block);
        if (block + 1 >= list.rowPtr.size()) return;
        for (auto i = list.rowPtr[block]; i < list.rowPtr[block + 1]; ++i) {
            const Index key = Index(list.col[std::size_t(i)]) * list.block;
            append(out, key, key + list.block, lo, hi);
        }
    }

    void operator()(const VerticalSlash& vs) const {
        // Diagonals ascend, so their keys descend: walk them from the back and merge.
        const Index position = problem.position(row);
        auto column = vs.cols.begin();
        auto diagonal = vs.diags.rbegin();
        while (column != vs.cols.end() || diagonal != vs.diags.rend()) {
            const bool takeColumn =
                diagonal == vs.diags.rend() ||
                (column != vs.cols.end() && Index(*column) <= position - *diagonal);
            const Index key = takeColumn ? Index(*column++) : position - *diagonal++;
            append(out, key, key + 1, lo, hi);
        }
    }

    void operator()(const RowRanges& groups) const {
        const auto group = std::size_t(
            std::upper_bound(groups.rowEnd.begin(), groups.rowEnd.end(), std::int32_t(row)) -
            groups.rowEnd.begin());
        if (group >= groups.rowEnd.size()) return;
        for (auto i = groups.rangePtr[group]; i < groups.rangePtr[group + 1]; ++i) {
            const Range& r = groups.ranges[std::size_t(i)];
            append(out, r.begin, r.end, lo, hi);
        }
    }
};

void require(bool condition, const std::string& what) {
    if (!condition) throw Error(Errc::Shape, "mask: " + what);
}

/// Entries that are not above the one before them. Lists are long: no branch, no sentence.
std::uint32_t descents(const std::vector<std::int32_t>& list) {
    std::uint32_t count = 0;
    for (std::size_t i = 1; i < list.size(); ++i) count += list[i - 1] >= list[i] ? 1u : 0u;
    return count;
}

void checkSorted(const std::vector<std::int32_t>& list, Index limit, const std::string& name) {
    if (list.empty() || (list.front() >= 0 && list.back() < limit && descents(list) == 0)) return;
    for (std::size_t i = 0; i < list.size(); ++i) {
        require(list[i] >= 0 && list[i] < limit, name + " " + std::to_string(list[i]) +
                                                     " is outside 0.." + std::to_string(limit - 1));
        require(i == 0 || list[i - 1] < list[i],
                name + "s must ascend and not repeat (entry " + std::to_string(i) + ")");
    }
}

void checkPointers(const std::vector<std::int32_t>& pointers, std::size_t rows, std::size_t entries,
                   const std::string& name) {
    require(pointers.size() == rows + 1 && pointers.front() == 0 &&
                std::size_t(pointers.back()) == entries,
            name + " must hold " + std::to_string(rows + 1) + " row pointers from 0 to " +
                std::to_string(entries));
    require(std::is_sorted(pointers.begin(), pointers.end()), name + ": row pointers must ascend");
}

/// Every row of the list ascends from 0 or more to below the limit.
bool rowsAscend(const BlockList& list, Index limit) {
    std::uint32_t between = 0;  // descents from one row to the next
    for (std::size_t r = 0; r + 1 < list.rowPtr.size(); ++r) {
        const auto begin = std::size_t(list.rowPtr[r]), end = std::size_t(list.rowPtr[r + 1]);
        if (begin == end) continue;
        if (list.col[begin] < 0 || list.col[end - 1] >= limit) return false;
        between += begin > 0 && list.col[begin - 1] >= list.col[begin] ? 1u : 0u;
    }
    return descents(list.col) == between;
}

struct Check {
    const Problem& problem;

    void operator()(const Dense&) const {}
    void operator()(const Streaming& s) const {
        require(s.sink >= 0 && s.window >= 0, "sink and window must not be negative");
    }
    void operator()(const BlockList& list) const {
        require(list.block == 64 || list.block == 128, "blocks must have an edge of 64 or 128");
        checkPointers(list.rowPtr, std::size_t((problem.Nq + list.block - 1) / list.block),
                      list.col.size(), "block list");
        const Index columns = (problem.Nk + list.block - 1) / list.block;
        if (rowsAscend(list, columns)) return;
        for (std::size_t r = 0; r + 1 < list.rowPtr.size(); ++r)
            for (auto i = list.rowPtr[r]; i < list.rowPtr[r + 1]; ++i) {
                const auto c = list.col[std::size_t(i)];
                require(c >= 0 && c < columns, "block column " + std::to_string(c) + " is outside 0.." +
                                                   std::to_string(columns - 1));
                require(i == list.rowPtr[r] || list.col[std::size_t(i - 1)] < c,
                        "block columns of a row must ascend and not repeat");
            }
    }
    void operator()(const VerticalSlash& vs) const {
        checkSorted(vs.cols, problem.Nk, "column");
        checkSorted(vs.diags, problem.Nk, "diagonal");
    }
    void operator()(const RowRanges& groups) const {
        checkPointers(groups.rangePtr, groups.rowEnd.size(), groups.ranges.size(), "row groups");
        require(groups.rowEnd.empty() ? problem.Nq == 0 : Index(groups.rowEnd.back()) == problem.Nq,
                "row groups must end at the last row");
        for (std::size_t g = 0; g < groups.rowEnd.size(); ++g) {
            require(groups.rowEnd[g] > (g ? groups.rowEnd[g - 1] : 0), "row groups must ascend");
            for (auto i = groups.rangePtr[g]; i < groups.rangePtr[g + 1]; ++i) {
                const Range& r = groups.ranges[std::size_t(i)];
                require(r.begin >= 0 && r.begin <= r.end && r.end <= problem.Nk,
                        "a key range is outside the keys");
                require(i == groups.rangePtr[g] || groups.ranges[std::size_t(i - 1)].end <= r.begin,
                        "the key ranges of a row group must ascend and not overlap");
            }
        }
    }
};

}  // namespace

void keptRanges(const Policy& policy, const Problem& problem, Index row, std::vector<Range>& out) {
    out.clear();
    std::visit(Row{problem, row, problem.visibleBegin(row), problem.visibleEnd(row), out}, policy);
}

Index keptPairs(const Policy& policy, const Problem& problem) {
    if (std::holds_alternative<Dense>(policy)) return validPairs(problem);
    std::vector<Range> ranges;
    Index pairs = 0;
    for (Index row = 0; row < problem.Nq; ++row) {
        keptRanges(policy, problem, row, ranges);
        for (const Range& r : ranges) pairs += r.end - r.begin;
    }
    return pairs;
}

Index validPairs(const Problem& problem) {
    Index pairs = 0;
    for (Index row = 0; row < problem.Nq; ++row)
        pairs += problem.visibleEnd(row) - problem.visibleBegin(row);
    return pairs;
}

void validate(const Policy& policy, const Problem& problem) { std::visit(Check{problem}, policy); }

}  // namespace sparsight::kernels
