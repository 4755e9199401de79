#include "adam.h"

#include <cmath>

#include "clones.h"

namespace dragnoise {

// The pointers never overlap: said, so that the compiler may use vectors without asking at run time.
DRAGNOISE_CLONES void adam_step(const Adam& adam, std::int64_t count, float* __restrict variable, const float* __restrict gradient,
                                float* __restrict first, float* __restrict second) {
    const Adam fixed = adam;
    const float rate = fixed.lr / fixed.first_correction;
    for (std::int64_t i = 0; i < count; ++i) {
        first[i] += fixed.first_weight * (gradient[i] - first[i]);
        second[i] = fixed.second_decay * second[i] + fixed.second_weight * (gradient[i] * gradient[i]);
        variable[i] -= rate * first[i] / (std::sqrt(second[i] / fixed.second_correction) + fixed.epsilon);
    }
}

}  // namespace dragnoise
