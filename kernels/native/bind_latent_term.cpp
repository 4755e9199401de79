// latent_term as Python sees it: arrays are checked here. Types: kernels/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

#include "latent_term.h"

namespace nb = nanobind;

namespace {

using Read = nb::ndarray<const float, nb::ndim<4>, nb::device::cpu>;
using Written = nb::ndarray<float, nb::ndim<4>, nb::device::cpu>;

template <typename T, typename Array>
dragnoise::Map<T> map(const Array& array) {
    return {array.data(), array.stride(0), array.stride(1), array.stride(2), array.stride(3)};
}

// Every side is `size`'s, or 1 where it may be broadcast.
template <typename Array>
bool fits(const Array& array, const Read& size, bool broadcast) {
    for (int axis = 0; axis < 4; ++axis) {
        if (array.shape(axis) != size.shape(axis) && !(broadcast && axis < 2 && array.shape(axis) == 1)) return false;
    }
    return true;
}

double latent_term(const Read& noise, const Read& reference, const Read& keep, float slope, float lam, const Written& gradient) {
    if (!fits(reference, noise, false)) throw nb::value_error("reference: must have the shape of noise");
    if (!fits(gradient, noise, false)) throw nb::value_error("gradient: must have the shape of noise");
    if (!fits(keep, noise, true)) throw nb::value_error("keep: must have the shape of noise, or 1 entry or 1 channel");
    const auto side = [&](int axis) { return static_cast<std::int64_t>(noise.shape(axis)); };
    dragnoise::Map<const float> kept = map<const float>(keep);
    if (keep.shape(0) == 1) kept.entry_stride = 0;
    if (keep.shape(1) == 1) kept.channel_stride = 0;
    const nb::gil_scoped_release released;
    return dragnoise::latent_term({side(0), side(1), side(2), side(3)}, map<const float>(noise), map<const float>(reference), kept, slope,
                                  lam, map<float>(gradient));
}

}  // namespace

void bind_latent_term(nb::module_& module) {
    module.def("latent_term", &latent_term, nb::arg("noise").noconvert(), nb::arg("reference").noconvert(), nb::arg("keep").noconvert(),
               nb::arg("slope"), nb::arg("lam"), nb::arg("gradient").noconvert(),
               "What the prediction may not change, and its gradient; see kernels/latent_term.py.");
}
