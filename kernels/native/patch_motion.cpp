#include "patch_motion.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "bilinear.h"

namespace dragnoise {
namespace {

// So many channels are worked on side by side: the order of additions is fixed, and the compiler may still use vectors.
constexpr std::int64_t lanes = 16;

struct alignas(64) Lanes {
    float of[lanes];
};

// A row (or column) of the small map and how much of it there is in something.
struct Part {
    std::int64_t at;
    float weight;
};

// What a row between the whole rows a and b is made of: each small row once, at most four.
std::vector<Part> parts_between(const Tap& a, const Tap& b, float fraction) {
    std::vector<Part> parts;
    const auto add = [&](std::int64_t at, float weight) {
        const auto same = std::find_if(parts.begin(), parts.end(), [at](const Part& part) { return part.at == at; });
        if (same == parts.end()) parts.push_back({at, weight});
        else same->weight += weight;
    };
    for (const auto& [whole, share] : {std::pair(a, 1.0f - fraction), std::pair(b, fraction)}) {
        add(whole.lower, (1.0f - whole.fraction) * share);
        add(whole.upper, whole.fraction * share);
    }
    return parts;
}

// `count` rows (or columns), one apart, from a fractional position of the upsampled map on: row k lies between the whole rows k and k + 1.
struct Span {
    std::vector<Tap> taps;
    float fraction;
    std::vector<std::vector<Part>> parts;

    Span(float first, std::int64_t count, const Axis& axis) {
        const float floor = std::floor(first), last = static_cast<float>(axis.large);
        fraction = first - floor;
        // Further out every row is the border: the same, and it cannot overflow.
        const auto whole = static_cast<std::int64_t>(std::clamp(floor, static_cast<float>(-count - 1), last));
        for (std::int64_t k = 0; k <= count; ++k) {
            taps.push_back(tap(std::clamp<std::int64_t>(whole + k, 0, axis.large - 1), axis.small, axis.large));
            if (k > 0) parts.push_back(parts_between(taps[k - 1], taps[k], fraction));
        }
    }
};

struct Patch {
    Span rows, columns;
};

// Where a handle's patch is and where it should come from one unit step further on.
struct Step {
    Patch source, shifted;
};

// The unit step towards the target, in the formula's own arithmetic: float32 positions, each operation rounded.
Step step(const std::int64_t* handle, const std::int64_t* target, float distance, std::int64_t radius, const MotionMap& map) {
    const auto first = [&](int axis, bool moved) {
        const float direction = static_cast<float>(target[axis] - handle[axis]) / distance;
        return static_cast<float>(handle[axis]) + (moved ? direction : 0.0f) - static_cast<float>(radius);
    };
    const std::int64_t count = 2 * radius + 1;
    const auto patch = [&](bool moved) -> Patch {
        return {Span(first(0, moved), count, map.rows), Span(first(1, moved), count, map.columns)};
    };
    return {patch(false), patch(true)};
}

// The block of the small map under both patches, for one group of channels: values, and what is added to their gradient.
struct Block {
    std::int64_t row, rows, column, columns;
    std::vector<Lanes> values, gradient;

    explicit Block(const Step& step) {
        const auto first = [](const Span& a, const Span& b) { return std::min(a.taps.front().lower, b.taps.front().lower); };
        const auto end = [](const Span& a, const Span& b) { return std::max(a.taps.back().upper, b.taps.back().upper) + 1; };
        row = first(step.source.rows, step.shifted.rows);
        rows = end(step.source.rows, step.shifted.rows) - row;
        column = first(step.source.columns, step.shifted.columns);
        columns = end(step.source.columns, step.shifted.columns) - column;
        values.resize(static_cast<std::size_t>(rows * columns));
        gradient.resize(values.size());
    }

    std::size_t at(std::int64_t small_row, std::int64_t small_column) const {
        return static_cast<std::size_t>((small_row - row) * columns + small_column - column);
    }

    // Channels past the last are zero: tied, they neither count nor move anything.
    void load(const MotionMap& map, std::int64_t channel, std::int64_t count) {
        const MapStrides& strides = map.feature_strides;
        for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < columns; ++j) {
                const float* from = map.features + channel * strides.channel + (row + i) * strides.row + (column + j) * strides.column;
                Lanes& into = values[i * columns + j];
                into = {};
                for (std::int64_t lane = 0; lane < count; ++lane) into.of[lane] = from[lane * strides.channel];
                gradient[i * columns + j] = {};
            }
        }
    }

    void add_gradient(const MotionMap& map, std::int64_t channel, std::int64_t count) const {
        const MapStrides& strides = map.gradient_strides;
        const float scale = 1.0f / static_cast<float>(map.channels);
        for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < columns; ++j) {
                float* into = map.gradient + channel * strides.channel + (row + i) * strides.row + (column + j) * strides.column;
                const Lanes& from = gradient[i * columns + j];
                for (std::int64_t lane = 0; lane < count; ++lane) into[lane * strides.channel] += scale * from.of[lane];
            }
        }
    }
};

// Equal ends give their own value exactly, so that clamped patches that are the same differ by nothing.
Lanes mix(const Lanes& from, const Lanes& to, float fraction) {
    Lanes mixed;
    for (std::int64_t lane = 0; lane < lanes; ++lane) mixed.of[lane] = from.of[lane] + fraction * (to.of[lane] - from.of[lane]);
    return mixed;
}

// The upsampled map at a whole position.
Lanes upsampled(const Block& block, const Tap& row, const Tap& column) {
    const auto along = [&](std::int64_t at) {
        return mix(block.values[block.at(at, column.lower)], block.values[block.at(at, column.upper)], column.fraction);
    };
    return mix(along(row.lower), along(row.upper), row.fraction);
}

// The upsampled map at the whole positions that a patch lies between, [rows, columns].
void fill(const Block& block, const Patch& patch, std::vector<Lanes>& whole) {
    whole.clear();
    for (const Tap& row : patch.rows.taps) {
        for (const Tap& column : patch.columns.taps) whole.push_back(upsampled(block, row, column));
    }
}

// Row k, column l of the patch: the second bilinear.
Lanes between(const std::vector<Lanes>& whole, const Patch& patch, std::int64_t k, std::int64_t l) {
    const auto along = [&](std::int64_t row) {
        const Lanes* left = &whole[row * patch.columns.taps.size() + l];
        return mix(left[0], left[1], patch.columns.fraction);
    };
    return mix(along(k), along(k + 1), patch.rows.fraction);
}

// Adds |shifted - source| to `loss` and returns its sign, zero within the dead zone.
Lanes compare(const Lanes& shifted, const Lanes& source, float tie, Lanes& loss) {
    constexpr float epsilon = std::numeric_limits<float>::epsilon();
    Lanes sign;
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const float difference = shifted.of[lane] - source.of[lane];
        const float rounding = epsilon * (std::fabs(shifted.of[lane]) + std::fabs(source.of[lane]));
        const bool tied = std::fabs(difference) <= tie * rounding;
        loss.of[lane] += tied ? 0.0f : std::fabs(difference);
        sign.of[lane] = tied ? 0.0f : std::copysign(1.0f, difference);
    }
    return sign;
}

// The transpose of sampling: the sign at row k, column l goes to every small position, by its weight.
void spread(const Lanes& sign, const Patch& patch, std::int64_t k, std::int64_t l, Block& block) {
    for (const Part& row : patch.rows.parts[k]) {
        for (const Part& column : patch.columns.parts[l]) {
            const float weight = row.weight * column.weight;
            Lanes& into = block.gradient[block.at(row.at, column.at)];
            for (std::int64_t lane = 0; lane < lanes; ++lane) into.of[lane] += weight * sign.of[lane];
        }
    }
}

double move_point(const MotionMap& map, const Step& step, std::int64_t radius, float tie) {
    Block block(step);
    std::vector<Lanes> whole;
    double loss = 0.0;
    for (std::int64_t channel = 0; channel < map.channels; channel += lanes) {
        const std::int64_t count = std::min(lanes, map.channels - channel);
        block.load(map, channel, count);
        fill(block, step.shifted, whole);
        Lanes differences = {};
        for (std::int64_t k = 0; k <= 2 * radius; ++k) {
            for (std::int64_t l = 0; l <= 2 * radius; ++l) {
                const Lanes source = upsampled(block, step.source.rows.taps[k], step.source.columns.taps[l]);
                spread(compare(between(whole, step.shifted, k, l), source, tie, differences), step.shifted, k, l, block);
            }
        }
        block.add_gradient(map, channel, count);
        for (const float difference : differences.of) loss += difference;
    }
    return loss;
}

}  // namespace

float patch_motion(const MotionMap& map, const MotionPoints& points, std::int64_t radius, float tie) {
    double loss = 0.0;
    for (std::int64_t point = 0; point < points.count; ++point) {
        const std::int64_t *handle = points.handles + 2 * point, *target = points.targets + 2 * point;
        const float down = static_cast<float>(target[0] - handle[0]), right = static_cast<float>(target[1] - handle[1]);
        const float distance = std::sqrt(down * down + right * right);
        if (distance >= points.reached) loss += move_point(map, step(handle, target, distance, radius, map), radius, tie);
    }
    return static_cast<float>(loss / static_cast<double>(map.channels));
}

}  // namespace dragnoise
