#include "group_norm_silu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "clones.h"

namespace dragnoise {
namespace {

// Places that are summed together: whatever the number of threads, so that the sums are the same.
constexpr std::int64_t block_places = 64;
// Less work than this a thread is done sooner by one.
constexpr std::int64_t thread_elements = 1 << 15;

inline float bits_to_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline std::uint32_t float_to_bits(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float load(float value) { return value; }
inline float load(std::uint16_t bits) { return bits_to_float(static_cast<std::uint32_t>(bits) << 16); }

inline void store(float value, float& to) { to = value; }
// To the nearest bfloat16, ties to even; what is not a number stays one.
inline void store(float value, std::uint16_t& to) {
    const std::uint32_t bits = float_to_bits(value);
    const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    to = static_cast<std::uint16_t>(value == value ? rounded : 0x7fc0u);
}

// exp with at most 2 units of rounding of error: 2^n times a polynomial on half an octave; zero below -87.7, infinity above 88.4. Written so that
// compilers make vectors of it without leave to change arithmetic. Both ends are such that sigmoid is exactly 0 or 1 there: compilers compute what a
// clamped value gives beside what the others give, for all, and products with numbers below the smallest normal one are slow.
inline float fast_exp(float x) {
    x = x < -88.0f ? -88.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest whole number
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;    // ln 2 in two parts
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * bits_to_float(static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23);
}

inline float sigmoid(float z) { return 1.0f / (1.0f + fast_exp(-z)); }

struct Block {
    std::int64_t entry, first, count;
};

Block block_of(const Rows& rows, std::int64_t index) {
    const std::int64_t per_entry = (rows.places + block_places - 1) / block_places;
    const std::int64_t first = index % per_entry * block_places;
    return {index / per_entry, first, std::min(block_places, rows.places - first)};
}

std::int64_t block_count(const Rows& rows) { return rows.entries * ((rows.places + block_places - 1) / block_places); }

int useful_threads(const Rows& rows, int threads) {
    const std::int64_t elements = rows.entries * rows.places * rows.channels;
    return static_cast<int>(std::clamp<std::int64_t>(elements / thread_elements, 1, threads));
}

// Per channel: sums of x - centre and of its square.
template <typename T>
inline void sum_block(const T* __restrict x, const float* __restrict centre, std::int64_t places, std::int64_t channels, float* __restrict sums, float* __restrict squares) {
    for (std::int64_t c = 0; c < channels; ++c) sums[c] = squares[c] = 0.0f;
    for (std::int64_t place = 0; place < places; ++place, x += channels) {
        for (std::int64_t c = 0; c < channels; ++c) {
            const float apart = load(x[c]) - centre[c];
            sums[c] += apart;
            squares[c] += apart * apart;
        }
    }
}

// Per channel of its group: mean, rstd, weight and bias, [channels] each.
template <bool Silu, typename T>
inline void normalise_block(const T* __restrict x, const float* __restrict mean, const float* __restrict scale, const float* __restrict bias, std::int64_t places,
                            std::int64_t channels, T* __restrict y) {
    for (std::int64_t place = 0; place < places; ++place, x += channels, y += channels) {
        for (std::int64_t c = 0; c < channels; ++c) {
            const float z = (load(x[c]) - mean[c]) * scale[c] + bias[c];
            store(Silu ? z * sigmoid(z) : z, y[c]);
        }
    }
}

struct Channel {
    const float *mean, *rstd, *weight, *bias;
};

template <bool Silu>
inline float slope(float gradient, float n, float weight, float bias) {
    const float u = gradient * weight;
    if (!Silu) return u;
    const float z = n * weight + bias, s = sigmoid(z);
    return u * s * (1.0f + z * (1.0f - s));
}

// Per channel: sums of u and of u n.
template <bool Silu, typename T>
inline void sum_gradient_block(const T* __restrict gradient, const T* __restrict x, const Channel& of, std::int64_t places, std::int64_t channels, float* __restrict sums,
                               float* __restrict products) {
    for (std::int64_t c = 0; c < channels; ++c) sums[c] = products[c] = 0.0f;
    for (std::int64_t place = 0; place < places; ++place, x += channels, gradient += channels) {
        for (std::int64_t c = 0; c < channels; ++c) {
            const float n = (load(x[c]) - of.mean[c]) * of.rstd[c];
            const float u = slope<Silu>(load(gradient[c]), n, of.weight[c], of.bias[c]);
            sums[c] += u;
            products[c] += u * n;
        }
    }
}

template <bool Silu, typename T>
inline void gradient_block(const T* __restrict gradient, const T* __restrict x, const Channel& of, const float* __restrict mean_u, const float* __restrict mean_un, std::int64_t places,
                           std::int64_t channels, T* __restrict found) {
    for (std::int64_t place = 0; place < places; ++place, x += channels, gradient += channels, found += channels) {
        for (std::int64_t c = 0; c < channels; ++c) {
            const float n = (load(x[c]) - of.mean[c]) * of.rstd[c];
            const float u = slope<Silu>(load(gradient[c]), n, of.weight[c], of.bias[c]);
            store((u - mean_u[c] - n * mean_un[c]) * of.rstd[c], found[c]);
        }
    }
}

// The loops above for every kind of map, each compiled for several widths of vectors. target_clones knows no templates: hence these names.
#define DRAGNOISE_LOOPS(T, NAME)                                                                                                          \
    DRAGNOISE_CLONES void sum_##NAME(const T* __restrict x, const float* __restrict centre, std::int64_t places, std::int64_t channels, float* __restrict sums,            \
                                     float* __restrict squares) {                                                                                   \
        sum_block(x, centre, places, channels, sums, squares);                                                                           \
    }                                                                                                                                     \
    DRAGNOISE_CLONES void normalise_##NAME(const T* __restrict x, const float* __restrict mean, const float* __restrict scale, const float* __restrict bias, std::int64_t places,     \
                                           std::int64_t channels, T* __restrict y, bool silu) {                                                     \
        silu ? normalise_block<true>(x, mean, scale, bias, places, channels, y)                                                           \
             : normalise_block<false>(x, mean, scale, bias, places, channels, y);                                                         \
    }                                                                                                                                     \
    DRAGNOISE_CLONES void sum_gradient_##NAME(const T* __restrict gradient, const T* __restrict x, const Channel& of, std::int64_t places,                      \
                                              std::int64_t channels, float* __restrict sums, float* __restrict products, bool silu) {                           \
        silu ? sum_gradient_block<true>(gradient, x, of, places, channels, sums, products)                                                \
             : sum_gradient_block<false>(gradient, x, of, places, channels, sums, products);                                              \
    }                                                                                                                                     \
    DRAGNOISE_CLONES void gradient_##NAME(const T* __restrict gradient, const T* __restrict x, const Channel& of, const float* __restrict mean_u, const float* __restrict mean_un,    \
                                          std::int64_t places, std::int64_t channels, T* __restrict found, bool silu) {                              \
        silu ? gradient_block<true>(gradient, x, of, mean_u, mean_un, places, channels, found)                                            \
             : gradient_block<false>(gradient, x, of, mean_u, mean_un, places, channels, found);                                          \
    }

DRAGNOISE_LOOPS(float, float32)
DRAGNOISE_LOOPS(std::uint16_t, bfloat16)

inline void sum(const float* __restrict x, const float* k, std::int64_t p, std::int64_t c, float* s, float* q) { sum_float32(x, k, p, c, s, q); }
inline void sum(const std::uint16_t* x, const float* k, std::int64_t p, std::int64_t c, float* s, float* q) { sum_bfloat16(x, k, p, c, s, q); }
template <typename... Rest>
inline void normalise(const float* __restrict x, Rest... rest) { normalise_float32(x, rest...); }
template <typename... Rest>
inline void normalise(const std::uint16_t* x, Rest... rest) { normalise_bfloat16(x, rest...); }
template <typename... Rest>
inline void sum_gradient(const float* g, const float* __restrict x, const Channel& of, Rest... rest) { sum_gradient_float32(g, x, of, rest...); }
template <typename... Rest>
inline void sum_gradient(const std::uint16_t* g, const std::uint16_t* x, const Channel& of, Rest... rest) { sum_gradient_bfloat16(g, x, of, rest...); }
template <typename... Rest>
inline void find_gradient(const float* g, const float* __restrict x, const Channel& of, Rest... rest) { gradient_float32(g, x, of, rest...); }
template <typename... Rest>
inline void find_gradient(const std::uint16_t* g, const std::uint16_t* x, const Channel& of, Rest... rest) { gradient_bfloat16(g, x, of, rest...); }

template <typename T>
std::vector<float> as_float(const T* values, std::int64_t count) {
    std::vector<float> found(static_cast<std::size_t>(count));
    std::transform(values, values + count, found.begin(), [](T value) { return load(value); });
    return found;
}

// [entries, groups] to [entries, channels].
std::vector<float> per_channel(const Rows& rows, const float* values) {
    const std::int64_t size = rows.channels / rows.groups;
    std::vector<float> found(static_cast<std::size_t>(rows.entries * rows.channels));
    for (std::size_t c = 0; c < found.size(); ++c) found[c] = values[static_cast<std::int64_t>(c) / size];
    return found;
}

// Adds up the blocks of every entry, [blocks, 2, channels] to [entries, 2, channels], in their order.
std::vector<double> add_blocks(const Rows& rows, const std::vector<float>& parts) {
    const std::int64_t width = 2 * rows.channels;
    std::vector<double> found(static_cast<std::size_t>(rows.entries * width), 0.0);
    for (std::int64_t index = 0; index < block_count(rows); ++index) {
        double* to = found.data() + block_of(rows, index).entry * width;
        for (std::int64_t c = 0; c < width; ++c) to[c] += parts[static_cast<std::size_t>(index * width + c)];
    }
    return found;
}

template <typename Work>
void each_block(const Rows& rows, int threads, const Work& work) {
    const std::int64_t blocks = block_count(rows);
    const int used = useful_threads(rows, threads);
    (void)used;
#pragma omp parallel for num_threads(used) schedule(static) if (used > 1)
    for (std::int64_t index = 0; index < blocks; ++index) work(index, block_of(rows, index));
}

// mean and rstd of every group, from the sums about `centre` (of each entry's first place).
void group_statistics(const Rows& rows, const std::vector<double>& sums, const std::vector<float>& centre, float eps, float* __restrict mean, float* rstd) {
    const std::int64_t size = rows.channels / rows.groups;
    const double places = static_cast<double>(rows.places);
    for (std::int64_t group = 0; group < rows.entries * rows.groups; ++group) {
        const std::int64_t entry = group / rows.groups, first = group % rows.groups * size;
        const double* of = sums.data() + entry * 2 * rows.channels + first;
        const float* about = centre.data() + entry * rows.channels + first;
        double average = 0.0, squares = 0.0;
        for (std::int64_t c = 0; c < size; ++c) average += (about[c] + of[c] / places) / static_cast<double>(size);
        for (std::int64_t c = 0; c < size; ++c) {
            const double apart = about[c] + of[c] / places - average;
            squares += of[rows.channels + c] - of[c] * of[c] / places + places * apart * apart;
        }
        mean[group] = static_cast<float>(average);
        rstd[group] = static_cast<float>(1.0 / std::sqrt(std::max(squares, 0.0) / (places * static_cast<double>(size)) + eps));
    }
}

}  // namespace

template <typename T>
void group_norm_silu(const Rows& rows, const T* __restrict x, const T* weight, const T* __restrict bias, T* __restrict y, float* __restrict mean, float* rstd, float eps, bool silu,
                     int threads) {
    const std::int64_t channels = rows.channels, entry_size = rows.places * channels;
    std::vector<float> centre;
    for (std::int64_t entry = 0; entry < rows.entries; ++entry) {
        const std::vector<float> first = as_float(x + entry * entry_size, channels);
        centre.insert(centre.end(), first.begin(), first.end());
    }
    std::vector<float> parts(static_cast<std::size_t>(block_count(rows) * 2 * channels));
    each_block(rows, threads, [&](std::int64_t index, const Block& block) {
        float* to = parts.data() + index * 2 * channels;
        sum(x + block.entry * entry_size + block.first * channels, centre.data() + block.entry * channels, block.count, channels, to, to + channels);
    });
    group_statistics(rows, add_blocks(rows, parts), centre, eps, mean, rstd);

    const std::vector<float> w = as_float(weight, channels), b = as_float(bias, channels), m = per_channel(rows, mean);
    std::vector<float> scale = per_channel(rows, rstd);
    for (std::size_t c = 0; c < scale.size(); ++c) scale[c] *= w[c % static_cast<std::size_t>(channels)];
    each_block(rows, threads, [&](std::int64_t, const Block& block) {
        const std::int64_t from = block.entry * entry_size + block.first * channels, of = block.entry * channels;
        normalise(x + from, m.data() + of, scale.data() + of, b.data(), block.count, channels, y + from, silu);
    });
}

template <typename T>
void group_norm_silu_gradient(const Rows& rows, const T* __restrict gradient, const T* __restrict x, const T* weight, const T* __restrict bias, const float* __restrict mean,
                              const float* rstd, T* __restrict found, bool silu, int threads) {
    const std::int64_t channels = rows.channels, entry_size = rows.places * channels, size = channels / rows.groups;
    const std::vector<float> w = as_float(weight, channels), b = as_float(bias, channels);
    const std::vector<float> m = per_channel(rows, mean), r = per_channel(rows, rstd);
    const auto of = [&](std::int64_t entry) { return Channel{m.data() + entry * channels, r.data() + entry * channels, w.data(), b.data()}; };
    std::vector<float> parts(static_cast<std::size_t>(block_count(rows) * 2 * channels));
    each_block(rows, threads, [&](std::int64_t index, const Block& block) {
        const std::int64_t from = block.entry * entry_size + block.first * channels;
        float* to = parts.data() + index * 2 * channels;
        sum_gradient(gradient + from, x + from, of(block.entry), block.count, channels, to, to + channels, silu);
    });

    const std::vector<double> sums = add_blocks(rows, parts);
    const double count = static_cast<double>(rows.places * size);
    std::vector<float> mean_u(m.size()), mean_un(m.size());
    for (std::int64_t first = 0; first < rows.entries * channels; first += size) {
        const double* from = sums.data() + first / channels * 2 * channels + first % channels;
        double u = 0.0, un = 0.0;
        for (std::int64_t c = 0; c < size; ++c) u += from[c], un += from[channels + c];
        std::fill_n(mean_u.begin() + first, size, static_cast<float>(u / count));
        std::fill_n(mean_un.begin() + first, size, static_cast<float>(un / count));
    }
    each_block(rows, threads, [&](std::int64_t, const Block& block) {
        const std::int64_t from = block.entry * entry_size + block.first * channels, start = block.entry * channels;
        find_gradient(gradient + from, x + from, of(block.entry), mean_u.data() + start, mean_un.data() + start, block.count, channels,
                      found + from, silu);
    });
}

template void group_norm_silu(const Rows&, const float*, const float*, const float*, float*, float*, float*, float, bool, int);
template void group_norm_silu(const Rows&, const std::uint16_t*, const std::uint16_t*, const std::uint16_t*, std::uint16_t*, float*, float*,
                              float, bool, int);
template void group_norm_silu_gradient(const Rows&, const float*, const float*, const float*, const float*, const float*, const float*,
                                       float*, bool, int);
template void group_norm_silu_gradient(const Rows&, const std::uint16_t*, const std::uint16_t*, const std::uint16_t*, const std::uint16_t*,
                                       const float*, const float*, std::uint16_t*, bool, int);

}  // namespace dragnoise
