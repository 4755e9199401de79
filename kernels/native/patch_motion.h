// Motion supervision on a bilinearly upsampled map that is never built: loss and gradient together. Formula: kernels/patch_motion.py.
#pragma once

#include <cstdint>

namespace dragnoise {

// An axis of the small map, and how long it is once upsampled.
struct Axis {
    std::int64_t small, large;
};

struct MapStrides {
    std::int64_t channel, row, column;
};

// The small map and its gradient, both [channels, rows.small, columns.small], of any strides, counted in elements.
struct MotionMap {
    std::int64_t channels;
    Axis rows, columns;
    const float* features;
    MapStrides feature_strides;
    float* gradient;
    MapStrides gradient_strides;
};

// `count` handles and targets, [count, 2] (row, column) at the upsampled resolution. Those nearer than `reached` to their target do not count.
struct MotionPoints {
    const std::int64_t *handles, *targets;
    std::int64_t count;
    float reached;
};

// The loss; its gradient is added to `map.gradient`. Differences of at most `tie` units of rounding count as zero. Sizes are at least 1 and radius
// is not negative: the caller checks. One thread, the same result every time.
float patch_motion(const MotionMap& map, const MotionPoints& points, std::int64_t radius, float tie);

}  // namespace dragnoise
