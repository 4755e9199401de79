// What Python sees of the native kernels: arrays are checked here, once, and the functions behind see plain memory. Types: kernels/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "point_tracking.h"

namespace nb = nanobind;

void bind_group_norm_silu(nb::module_& module);
void bind_patch_motion(nb::module_& module);

namespace {

using Features = nb::ndarray<const float, nb::ndim<3>, nb::device::cpu>;
using References = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Handles = nb::ndarray<const std::int64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Moved = nb::ndarray<nb::numpy, std::int64_t, nb::shape<-1, 2>, nb::c_contig>;

void require(bool holds, const std::string& otherwise) {
    if (!holds) throw nb::value_error(otherwise.c_str());
}

Moved track_points(const Features& features, const References& references, const Handles& handles, std::pair<int, int> resolution,
                   int radius) {
    const auto text = [](auto number) { return std::to_string(number); };
    require(features.size() > 0, "features: no side may be 0, got [" + text(features.shape(0)) + ", " + text(features.shape(1)) + ", " +
                                     text(features.shape(2)) + "]");
    require(references.shape(0) == handles.shape(0) && references.shape(1) == features.shape(0),
            "references: expected [" + text(handles.shape(0)) + ", " + text(features.shape(0)) + "] (handles, channels), got [" +
                text(references.shape(0)) + ", " + text(references.shape(1)) + "]");
    require(resolution.first >= 1 && resolution.second >= 1,
            "resolution: must be at least (1, 1), got (" + text(resolution.first) + ", " + text(resolution.second) + ")");
    require(radius >= 0, "radius: must not be negative, got " + text(radius));

    const std::size_t count = handles.shape(0);
    auto moved = std::make_unique<std::int64_t[]>(2 * count);
    {
        const nb::gil_scoped_release released;
        const auto size = [&](int axis) { return static_cast<std::int64_t>(features.shape(axis)); };
        const dragnoise::FeatureMap map = {features.data(),    size(0),            size(1),           size(2),
                                           features.stride(0), features.stride(1), features.stride(2)};
        dragnoise::track_points(map, {resolution.first, resolution.second}, handles.data(), references.data(),
                                static_cast<std::int64_t>(count), radius, moved.get());
    }
    std::int64_t* data = moved.get();
    const nb::capsule owner(data, [](void* memory) noexcept { delete[] static_cast<std::int64_t*>(memory); });
    moved.release();
    return Moved(data, {count, 2}, owner);
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "CPU twins of the kernels, in C++.";
    bind_group_norm_silu(module);
    module.def("track_points", &track_points, nb::arg("features").noconvert(), nb::arg("references").noconvert(),
               nb::arg("handles").noconvert(), nb::arg("resolution"), nb::arg("radius"),
               "The nearest feature in a window around every handle; see kernels/point_tracking.py.");
    bind_patch_motion(module);
}
