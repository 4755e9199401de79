// What the prediction may not change, and its gradient. Formula: kernels/latent_term.py.
#pragma once

#include "map.h"

namespace dragnoise {

// Returns lam * sum |slope * (noise - reference) * keep| and writes its gradient to every element of `gradient`. keep has stride 0 where it is the
// same for several channels or entries. One thread, the same result every time.
double latent_term(const MapSize& size, const Map<const float>& noise, const Map<const float>& reference, const Map<const float>& keep,
                   float slope, float lam, const Map<float>& gradient);

}  // namespace dragnoise
