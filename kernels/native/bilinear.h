// The rows of bilinear upsampling as taps of the small map: kernels/bilinear.py in C++.
#pragma once

#include <algorithm>
#include <cstdint>

namespace dragnoise {

// One row (or column) of the upsampled map: (1 - fraction) * small[lower] + fraction * small[upper].
struct Tap {
    std::int64_t lower, upper;
    float fraction;
};

// The taps of a whole position in [0, size_large). Whole numbers up to the last division, as in kernels/bilinear.py, so both have the same weights.
inline Tap tap(std::int64_t position, std::int64_t size_small, std::int64_t size_large) {
    const std::int64_t denominator = 2 * size_large;
    const std::int64_t numerator =
        std::clamp<std::int64_t>((2 * position + 1) * size_small - size_large, 0, denominator * (size_small - 1));
    const std::int64_t lower = numerator / denominator;
    return {lower, std::min(lower + 1, size_small - 1),
            static_cast<float>(numerator % denominator) / static_cast<float>(denominator)};
}

}  // namespace dragnoise
