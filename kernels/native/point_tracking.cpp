#include "point_tracking.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "bilinear.h"
#include "clones.h"
#include "half.h"

namespace dragnoise {
namespace {

// The part of an axis that a window covers: its positions, and the small map's rows that they are made of.
struct Span {
    std::int64_t first;
    std::vector<Tap> taps;

    Span(std::int64_t handle, std::int64_t radius, std::int64_t size_small, std::int64_t size_large) {
        const std::int64_t last = size_large - 1;
        // Further out than the radius, every position of the window is the border: the same, and it cannot overflow.
        const std::int64_t centre = std::clamp(handle, -radius, last + radius);
        first = std::clamp<std::int64_t>(centre - radius, 0, last);
        const std::int64_t end = std::clamp<std::int64_t>(centre + radius, 0, last) + 1;
        taps.reserve(static_cast<std::size_t>(end - first));
        for (std::int64_t position = first; position < end; ++position) taps.push_back(tap(position, size_small, size_large));
    }

    std::int64_t small_first() const { return taps.front().lower; }
    std::int64_t small_count() const { return taps.back().upper - taps.front().lower + 1; }
};

// The covered block of the small map, [rows, columns, channels], so that whatever the map's strides and dtype the search reads floats in order.
template <typename T>
std::vector<float> gather(const FeatureMap& map, const Span& rows, const Span& columns) {
    std::vector<float> block(static_cast<std::size_t>(rows.small_count() * columns.small_count() * map.channels));
    float* into = block.data();
    for (std::int64_t row = 0; row < rows.small_count(); ++row) {
        for (std::int64_t column = 0; column < columns.small_count(); ++column) {
            const T* feature = static_cast<const T*>(map.data) + (rows.small_first() + row) * map.row_stride +
                               (columns.small_first() + column) * map.column_stride;
            for (std::int64_t channel = 0; channel < map.channels; ++channel) *into++ = to_float(feature[channel * map.channel_stride]);
        }
    }
    return block;
}

std::vector<float> gather(const FeatureMap& map, const Span& rows, const Span& columns) {
    switch (map.element) {
        case Element::float16: return gather<Float16>(map, rows, columns);
        case Element::bfloat16: return gather<BFloat16>(map, rows, columns);
        default: return gather<float>(map, rows, columns);
    }
}

// Feature vectors of the four neighbours of a position and the two fractions between them.
struct Corners {
    const float *upper_left, *upper_right, *lower_left, *lower_right;
    float down, right;

    // Equal neighbours give their own value exactly: on a plateau all positions are equally near, and the first wins.
    float operator[](std::int64_t channel) const {
        const float above = upper_left[channel] + right * (upper_right[channel] - upper_left[channel]);
        const float below = lower_left[channel] + right * (lower_right[channel] - lower_left[channel]);
        return above + down * (below - above);
    }
};

// Eight sums side by side: the order of additions is fixed, and the compiler may still use vectors.
DRAGNOISE_CLONES float distance(const Corners& corners, const float* reference, std::int64_t channels) {
    constexpr std::int64_t lanes = 8;
    float sums[lanes] = {};
    std::int64_t channel = 0;
    for (; channel + lanes <= channels; channel += lanes) {
        for (std::int64_t lane = 0; lane < lanes; ++lane) {
            sums[lane] += std::fabs(corners[channel + lane] - reference[channel + lane]);
        }
    }
    for (; channel < channels; ++channel) sums[channel % lanes] += std::fabs(corners[channel] - reference[channel]);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

void track_point(const FeatureMap& map, const Span& rows, const Span& columns, const float* reference, std::int64_t* moved) {
    const std::vector<float> block = gather(map, rows, columns);
    const auto feature = [&](std::int64_t row, std::int64_t column) {
        return block.data() + ((row - rows.small_first()) * columns.small_count() + column - columns.small_first()) * map.channels;
    };
    float least = std::numeric_limits<float>::infinity();
    moved[0] = rows.first;
    moved[1] = columns.first;
    for (std::size_t i = 0; i < rows.taps.size(); ++i) {
        for (std::size_t j = 0; j < columns.taps.size(); ++j) {
            const Tap &row = rows.taps[i], &column = columns.taps[j];
            const Corners corners = {feature(row.lower, column.lower), feature(row.lower, column.upper),
                                     feature(row.upper, column.lower), feature(row.upper, column.upper),
                                     row.fraction, column.fraction};
            const float found = distance(corners, reference, map.channels);
            if (found < least) {
                least = found;
                moved[0] = rows.first + static_cast<std::int64_t>(i);
                moved[1] = columns.first + static_cast<std::int64_t>(j);
            }
        }
    }
}

// In floats, which no far target overflows.
bool is_near(const std::int64_t* from, const std::int64_t* to, float near) {
    const float down = static_cast<float>(to[0] - from[0]), right = static_cast<float>(to[1] - from[1]);
    return down * down + right * right < near * near;
}

}  // namespace

void track_points(const FeatureMap& map, const Resolution& resolution, const Points& points, std::int64_t radius, float near,
                  std::int64_t* moved, bool* reached) {
    for (std::int64_t point = 0; point < points.count; ++point) {
        const Span rows(points.handles[2 * point], radius, map.rows, resolution.rows);
        const Span columns(points.handles[2 * point + 1], radius, map.columns, resolution.columns);
        track_point(map, rows, columns, points.references + point * map.channels, moved + 2 * point);
        reached[point] = is_near(moved + 2 * point, points.targets + 2 * point, near);
    }
}

}  // namespace dragnoise
