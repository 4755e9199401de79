// Nearest-feature search around points of a bilinearly upsampled map that is never built. Formula: kernels/point_tracking.py.
#pragma once

#include <cstdint>

namespace dragnoise {

// A feature map [channels, rows, columns] of any strides, counted in elements.
struct FeatureMap {
    const float* data;
    std::int64_t channels, rows, columns;
    std::int64_t channel_stride, row_stride, column_stride;
};

// The upsampled map's size: the grid in which handles live.
struct Resolution {
    std::int64_t rows, columns;
};

// For each of `count` handles ([count, 2], row then column) the position of the clamped (2 radius + 1)^2 window around it whose feature vector has
// the least L1 distance to its reference ([count, map.channels]); the first in row-major order on ties, and where no
// distance is finite. Written to `moved` ([count, 2]). Sizes are at least 1 and radius is not negative: the caller checks. One thread, the same result every time.
void track_points(const FeatureMap& map, const Resolution& resolution, const std::int64_t* handles, const float* references,
                  std::int64_t count, std::int64_t radius, std::int64_t* moved);

}  // namespace dragnoise
