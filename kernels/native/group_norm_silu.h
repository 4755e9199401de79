// Group normalisation followed by SiLU, of maps that lie as rows of channels. Formula: kernels/group_norm_silu.py.
#pragma once

#include <cstdint>

namespace dragnoise {

// entries maps of [places, channels], one behind the other; channels in `groups` equal groups.
struct Rows {
    std::int64_t entries, places, channels, groups;
};

// T: float, or std::uint16_t for the bits of bfloat16. mean and rstd: [entries, groups]. Sums are float, in double across channels; the same bits for any
// number of threads.
template <typename T>
void group_norm_silu(const Rows& rows, const T* x, const T* weight, const T* bias, T* y, float* mean, float* rstd, float eps, bool silu,
                     int threads);

template <typename T>
void group_norm_silu_gradient(const Rows& rows, const T* gradient, const T* x, const T* weight, const T* bias, const float* mean,
                              const float* rstd, T* found, bool silu, int threads);

}  // namespace dragnoise
