// A map whose cells go their own ways. Formula: kernels/splat.py.
#pragma once

#include "map.h"

namespace dragnoise {

// Where cells go, [rows, columns] each and contiguous; shift has the rows' part first.
struct Ways {
    const float *shift, *weight;
    const bool* editable;
};

// Writes every element of `splatted` and `holes` [rows, columns]. One thread.
void splat(const MapSize& size, const Map<const float>& values, const Ways& ways, const Map<const float>& behind, const Map<float>& splatted,
           bool* holes);

}  // namespace dragnoise
