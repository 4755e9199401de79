// What the prediction may not change, and its gradient. Formula: kernels/latent_term.py.
#pragma once

#include <cstdint>

namespace dragnoise {

// A map [entries, channels, rows, columns] of any strides, counted in elements.
template <typename T>
struct Map {
    T* data;
    std::int64_t entry_stride, channel_stride, row_stride, column_stride;
};

struct MapSize {
    std::int64_t entries, channels, rows, columns;
};

// Returns lam * sum |slope * (noise - reference) * keep| and writes its gradient to every element of `gradient`. keep has stride 0 where it is the
// same for several channels or entries. One thread, the same result every time.
double latent_term(const MapSize& size, const Map<const float>& noise, const Map<const float>& reference, const Map<const float>& keep,
                   float slope, float lam, const Map<float>& gradient);

}  // namespace dragnoise
