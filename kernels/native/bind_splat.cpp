// splat as Python sees it: arrays are checked here. Types: kernels/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

#include "splat.h"

namespace nb = nanobind;

namespace {

using Read = nb::ndarray<const float, nb::ndim<4>, nb::device::cpu>;
using Written = nb::ndarray<float, nb::ndim<4>, nb::device::cpu>;
using Shift = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Weight = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Editable = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Holes = nb::ndarray<bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T, typename Array>
dragnoise::Map<T> map(const Array& array) {
    return {array.data(), array.stride(0), array.stride(1), array.stride(2), array.stride(3)};
}

void splat(const Read& values, const Shift& shift, const Weight& weight, const Editable& editable, const Read& behind,
           const Written& splatted, const Holes& holes) {
    const auto same = [&](const auto& array) {
        for (int axis = 0; axis < 4; ++axis) {
            if (array.shape(axis) != values.shape(axis)) return false;
        }
        return true;
    };
    const auto of_cells = [&](const auto& array, int first) {
        return array.shape(first) == values.shape(2) && array.shape(first + 1) == values.shape(3);
    };
    if (!same(behind)) throw nb::value_error("behind: must have the shape of values");
    if (!same(splatted)) throw nb::value_error("splatted: must have the shape of values");
    if (shift.shape(0) != 2 || !of_cells(shift, 1)) throw nb::value_error("shift: must be two maps of values' cells");
    if (!of_cells(weight, 0)) throw nb::value_error("weight: must be a map of values' cells");
    if (!of_cells(editable, 0)) throw nb::value_error("editable: must be a map of values' cells");
    if (!of_cells(holes, 0)) throw nb::value_error("holes: must be a map of values' cells");
    const auto side = [&](int axis) { return static_cast<std::int64_t>(values.shape(axis)); };
    const nb::gil_scoped_release released;
    dragnoise::splat({side(0), side(1), side(2), side(3)}, map<const float>(values), {shift.data(), weight.data(), editable.data()},
                     map<const float>(behind), map<float>(splatted), holes.data());
}

}  // namespace

void bind_splat(nb::module_& module) {
    module.def("splat", &splat, nb::arg("values").noconvert(), nb::arg("shift").noconvert(), nb::arg("weight").noconvert(),
               nb::arg("editable").noconvert(), nb::arg("behind").noconvert(), nb::arg("splatted").noconvert(), nb::arg("holes").noconvert(),
               "A map whose cells go their own ways; see kernels/splat.py.");
}
