// patch_motion as Python sees it: arrays are checked here. Types: kernels/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>

#include <cstdint>
#include <string>
#include <utility>

#include "patch_motion.h"

namespace nb = nanobind;

namespace {

using Features = nb::ndarray<const float, nb::ndim<3>, nb::device::cpu>;
using Gradient = nb::ndarray<float, nb::ndim<3>, nb::device::cpu>;
using Points = nb::ndarray<const std::int64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;

void require(bool holds, const std::string& otherwise) {
    if (!holds) throw nb::value_error(otherwise.c_str());
}

float patch_motion(const Features& features, const Points& handles, const Points& targets, std::pair<int, int> resolution, int radius,
                   float reached, float tie, const Gradient& gradient) {
    const auto text = [](auto number) { return std::to_string(number); };
    const auto shape = [&](const auto& map) { return "[" + text(map.shape(0)) + ", " + text(map.shape(1)) + ", " + text(map.shape(2)) + "]"; };
    require(features.size() > 0, "features: no side may be 0, got " + shape(features));
    require(shape(gradient) == shape(features), "gradient: expected " + shape(features) + " as the features, got " + shape(gradient));
    require(targets.shape(0) == handles.shape(0),
            "targets: expected as many as handles, " + text(handles.shape(0)) + ", got " + text(targets.shape(0)));
    require(resolution.first >= 1 && resolution.second >= 1,
            "resolution: must be at least (1, 1), got (" + text(resolution.first) + ", " + text(resolution.second) + ")");
    require(radius >= 0, "radius: must not be negative, got " + text(radius));

    const nb::gil_scoped_release released;
    const auto size = [&](int axis) { return static_cast<std::int64_t>(features.shape(axis)); };
    const auto strides = [](const auto& map) { return dragnoise::MapStrides{map.stride(0), map.stride(1), map.stride(2)}; };
    const dragnoise::MotionMap map = {size(0),           {size(1), resolution.first}, {size(2), resolution.second}, features.data(),
                                      strides(features), gradient.data(),             strides(gradient)};
    return dragnoise::patch_motion(map, {handles.data(), targets.data(), static_cast<std::int64_t>(handles.shape(0)), reached}, radius, tie);
}

}  // namespace

void bind_patch_motion(nb::module_& module) {
    module.def("patch_motion", &patch_motion, nb::arg("features").noconvert(), nb::arg("handles").noconvert(),
               nb::arg("targets").noconvert(), nb::arg("resolution"), nb::arg("radius"), nb::arg("reached"), nb::arg("tie"),
               nb::arg("gradient").noconvert(), "The motion loss; its gradient is added to `gradient`; see kernels/patch_motion.py.");
}
