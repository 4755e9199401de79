#include "latent_term.h"

#include <cmath>

#include "clones.h"

namespace dragnoise {
namespace {

// One run of elements with a stride each.
template <typename T>
struct Run {
    T* data;
    std::int64_t stride;
};

constexpr std::int64_t lanes = 16;

// A run's part of the sum without lam; lanes side by side, as the order of additions is fixed and the compiler may still use vectors.
// With every stride known to be 1 it does: `unit` says so.
template <bool unit>
inline float run_term(std::int64_t count, Run<const float> noise, Run<const float> reference, Run<const float> keep, float slope, float lam,
                      Run<float> gradient) {
    const auto at = [](std::int64_t index, std::int64_t stride) { return unit ? index : index * stride; };
    float sums[lanes] = {};
    const auto add = [&](std::int64_t index, std::int64_t lane) {
        const float kept = slope * keep.data[at(index, keep.stride)];
        const float moved = kept * (noise.data[at(index, noise.stride)] - reference.data[at(index, reference.stride)]);
        sums[lane] += std::fabs(moved);
        gradient.data[at(index, gradient.stride)] = lam * kept * static_cast<float>((moved > 0.0f) - (moved < 0.0f));
    };
    std::int64_t index = 0;
    for (; index + lanes <= count; index += lanes) {
        for (std::int64_t lane = 0; lane < lanes; ++lane) add(index + lane, lane);
    }
    for (; index < count; ++index) add(index, index % lanes);
    float sum = 0.0f;
    for (const float lane : sums) sum += lane;
    return sum;
}

DRAGNOISE_CLONES float unit_run(std::int64_t count, const float* noise, const float* reference, const float* keep, float slope, float lam,
                                float* gradient) {
    return run_term<true>(count, {noise, 1}, {reference, 1}, {keep, 1}, slope, lam, {gradient, 1});
}

}  // namespace

double latent_term(const MapSize& size, const Map<const float>& noise, const Map<const float>& reference, const Map<const float>& keep,
                   float slope, float lam, const Map<float>& gradient) {
    const bool unit = noise.column_stride == 1 && reference.column_stride == 1 && keep.column_stride == 1 && gradient.column_stride == 1;
    double sum = 0.0;
    for (std::int64_t entry = 0; entry < size.entries; ++entry) {
        for (std::int64_t channel = 0; channel < size.channels; ++channel) {
            for (std::int64_t row = 0; row < size.rows; ++row) {
                const auto at = [&](const auto& map) {
                    return map.data + entry * map.entry_stride + channel * map.channel_stride + row * map.row_stride;
                };
                sum += unit ? unit_run(size.columns, at(noise), at(reference), at(keep), slope, lam, at(gradient))
                            : run_term<false>(size.columns, {at(noise), noise.column_stride}, {at(reference), reference.column_stride},
                                              {at(keep), keep.column_stride}, slope, lam, {at(gradient), gradient.column_stride});
            }
        }
    }
    return lam * sum;
}

}  // namespace dragnoise
