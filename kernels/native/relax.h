// Sweeps towards a harmonic map; see kernels/relax.py.
#pragma once

#include <cstdint>

namespace dragnoise {

struct Relaxed {
    std::int64_t channels, rows, columns;
    const bool* fixed;    // [rows, columns]
    const float* speeds;  // [sweeps]
    std::int64_t sweeps;
};

// Both maps [channels, rows, columns] hold the first iterate; found holds the last one then.
void relax(const Relaxed& given, float* found, float* before);

}  // namespace dragnoise
