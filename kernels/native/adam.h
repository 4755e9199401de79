// One Adam update in place. Formula: kernels/adam.py.
#pragma once

#include <cstdint>

namespace dragnoise {

struct Adam {
    float first_weight;                         // 1 - beta 1
    float second_decay, second_weight;          // beta 2, 1 - beta 2: floats of both, since 1 - 0.999f has lost digits
    float first_correction, second_correction;  // 1 - beta^step
    float epsilon, lr;
};

// `count` elements of each; one thread, the same result every time.
void adam_step(const Adam& adam, std::int64_t count, float* variable, const float* gradient, float* first, float* second);

}  // namespace dragnoise
