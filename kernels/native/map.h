// Maps of any strides, as the kernels see them.
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

}  // namespace dragnoise
