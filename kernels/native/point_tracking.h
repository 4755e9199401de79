// Nearest-feature search around points of a bilinearly upsampled map that is never built. Formula: kernels/point_tracking.py.
#pragma once

#include <cstdint>

namespace dragnoise {

enum class Element { float32, float16, bfloat16 };

// A feature map [channels, rows, columns] of any strides, counted in elements.
struct FeatureMap {
    const void* data;
    Element element;
    std::int64_t channels, rows, columns;
    std::int64_t channel_stride, row_stride, column_stride;
};

// The upsampled map's size: the grid in which handles live.
struct Resolution {
    std::int64_t rows, columns;
};

// The points, `count` of each: handles and targets [count, 2] (row, column), references [count, map.channels].
struct Points {
    const std::int64_t *handles, *targets;
    const float* references;
    std::int64_t count;
};

// For each handle the position of the clamped (2 radius + 1)^2 window around it whose feature vector has the least L1 distance to its reference; the
// first in row-major order on ties, and where no distance is finite. Written to `moved` [count, 2]; `reached` [count]: strictly nearer to the target
// than `near`. Sizes are at least 1 and radius is not negative: the caller checks. One thread, the same result every time.
void track_points(const FeatureMap& map, const Resolution& resolution, const Points& points, std::int64_t radius, float near,
                  std::int64_t* moved, bool* reached);

}  // namespace dragnoise
