#include "relax.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "clones.h"

namespace dragnoise {
namespace {

// One row of a sweep: `last` becomes the next iterate where it is free.
DRAGNOISE_CLONES void sweep_row(const float* up, const float* here, const float* down, const float* free, float speed, std::int64_t columns,
                                float* last) {
    const auto relaxed = [&](std::int64_t column, float left, float right) {
        const float around = (((up[column] + down[column]) + left) + right) * 0.25f;
        const float next = last[column] + speed * (around - last[column]);
        last[column] = free[column] != 0.0f ? next : last[column];
    };
    if (columns == 1) {
        relaxed(0, here[0], here[0]);
        return;
    }
    relaxed(0, here[0], here[1]);
    for (std::int64_t column = 1; column < columns - 1; ++column) relaxed(column, here[column - 1], here[column + 1]);
    relaxed(columns - 1, here[columns - 2], here[columns - 1]);
}

}  // namespace

void relax(const Relaxed& given, float* found, float* before) {
    const std::int64_t columns = given.columns, cells = given.rows * columns;
    std::vector<float> free(static_cast<std::size_t>(cells));
    for (std::int64_t cell = 0; cell < cells; ++cell) free[static_cast<std::size_t>(cell)] = given.fixed[cell] ? 0.0f : 1.0f;
    for (std::int64_t channel = 0; channel < given.channels; ++channel) {
        float *now = found + channel * cells, *last = before + channel * cells;
        for (std::int64_t sweep = 0; sweep < given.sweeps; ++sweep) {
            for (std::int64_t row = 0; row < given.rows; ++row) {
                const float* const here = now + row * columns;
                const float* const up = row > 0 ? here - columns : here;
                const float* const down = row + 1 < given.rows ? here + columns : here;
                sweep_row(up, here, down, free.data() + row * columns, given.speeds[sweep], columns, last + row * columns);
            }
            std::swap(now, last);
        }
        if (now != found + channel * cells) std::copy(now, now + cells, found + channel * cells);
    }
}

}  // namespace dragnoise
