#include "splat.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

namespace dragnoise {
namespace {

constexpr std::int64_t nobody = std::numeric_limits<std::int64_t>::min();

// Larger for the larger weight, and of equals for the larger index.
std::int64_t key(float weight, std::int64_t cell) {
    const float firm = weight == 0.0f ? 0.0f : weight;  // -0 equals 0
    std::int32_t bits;
    std::memcpy(&bits, &firm, sizeof bits);
    const std::int32_t ordered = bits < 0 ? bits ^ 0x7fffffff : bits;
    return static_cast<std::int64_t>(ordered) * (std::int64_t{1} << 32) + cell;
}

// The nearest of `count` cells, or -1. Compared as floats, since not every float is a whole number.
std::int64_t nearest(std::int64_t from, float shift, std::int64_t count) {
    const float to = std::floor(static_cast<float>(from) + shift + 0.5f);
    return to >= 0.0f && to < static_cast<float>(count) ? static_cast<std::int64_t>(to) : -1;
}

// The largest key that comes to each cell.
std::vector<std::int64_t> keys(const MapSize& size, const Ways& ways) {
    const std::int64_t cells = size.rows * size.columns;
    std::vector<std::int64_t> best(static_cast<std::size_t>(cells), nobody);
    for (std::int64_t cell = 0; cell < cells; ++cell) {
        if (!ways.editable[cell]) continue;
        const std::int64_t row = nearest(cell / size.columns, ways.shift[cell], size.rows);
        const std::int64_t column = nearest(cell % size.columns, ways.shift[cells + cell], size.columns);
        if (row < 0 || column < 0) continue;
        const std::int64_t there = row * size.columns + column;
        if (!ways.editable[there]) continue;
        std::int64_t& held = best[static_cast<std::size_t>(there)];
        held = std::max(held, key(ways.weight[cell], cell));
    }
    return best;
}

}  // namespace

void splat(const MapSize& size, const Map<const float>& values, const Ways& ways, const Map<const float>& behind, const Map<float>& splatted,
           bool* holes) {
    const std::vector<std::int64_t> best = keys(size, ways);
    const auto within = [&](const auto& map, std::int64_t cell) {
        return cell / size.columns * map.row_stride + cell % size.columns * map.column_stride;
    };
    std::vector<std::int64_t> from(best.size());  // in a channel of behind for a hole, else of values
    for (std::size_t cell = 0; cell < best.size(); ++cell) {
        const std::int64_t here = static_cast<std::int64_t>(cell), held = best[cell];
        holes[cell] = ways.editable[cell] && held == nobody;
        from[cell] = holes[cell] ? within(behind, here) : within(values, held == nobody ? here : held & 0xffffffff);
    }
    for (std::int64_t entry = 0; entry < size.entries; ++entry) {
        for (std::int64_t channel = 0; channel < size.channels; ++channel) {
            const auto plane = [&](const auto& map) { return map.data + entry * map.entry_stride + channel * map.channel_stride; };
            const float *moved = plane(values), *under = plane(behind);
            float* const into = plane(splatted);
            std::size_t cell = 0;
            for (std::int64_t row = 0; row < size.rows; ++row) {
                for (std::int64_t column = 0; column < size.columns; ++column, ++cell) {
                    into[row * splatted.row_stride + column * splatted.column_stride] = (holes[cell] ? under : moved)[from[cell]];
                }
            }
        }
    }
}

}  // namespace dragnoise
