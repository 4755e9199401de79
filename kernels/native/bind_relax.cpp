// relax as Python sees it: arrays are checked here. Types: kernels/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

#include "relax.h"

namespace nb = nanobind;

namespace {

using Fixed = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Speeds = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Maps = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void relax(const Fixed& fixed, const Speeds& speeds, const Maps& found, const Maps& before) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
        if (before.shape(axis) != found.shape(axis)) throw nb::value_error("before: must have the shape of found");
    }
    if (fixed.shape(0) != found.shape(1) || fixed.shape(1) != found.shape(2)) throw nb::value_error("fixed: must be a map of found's cells");
    const auto size = [&](std::size_t axis) { return static_cast<std::int64_t>(found.shape(axis)); };
    const dragnoise::Relaxed given = {size(0), size(1), size(2), fixed.data(), speeds.data(), static_cast<std::int64_t>(speeds.shape(0))};
    const nb::gil_scoped_release released;
    dragnoise::relax(given, found.data(), before.data());
}

}  // namespace

void bind_relax(nb::module_& module) {
    module.def("relax", &relax, nb::arg("fixed").noconvert(), nb::arg("speeds").noconvert(), nb::arg("found").noconvert(),
               nb::arg("before").noconvert(), "Sweeps towards a harmonic map; see kernels/relax.py.");
}
