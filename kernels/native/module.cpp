// What Python sees of the native kernels: arrays are checked here, once, and the functions behind see plain memory. Types: kernels/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include "point_tracking.h"

namespace nb = nanobind;

void bind_group_norm_silu(nb::module_& module);
void bind_patch_motion(nb::module_& module);
void bind_latent_term(nb::module_& module);
void bind_adam(nb::module_& module);
void bind_splat(nb::module_& module);
void bind_relax(nb::module_& module);

namespace {

using Features = nb::ndarray<nb::ro, nb::ndim<3>, nb::device::cpu>;
using References = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Positions = nb::ndarray<const std::int64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Moved = nb::ndarray<nb::numpy, std::int64_t, nb::shape<-1, 2>, nb::c_contig>;
using Reached = nb::ndarray<nb::numpy, bool, nb::ndim<1>, nb::c_contig>;

void require(bool holds, const std::string& otherwise) {
    if (!holds) throw nb::value_error(otherwise.c_str());
}

dragnoise::Element element(nb::dlpack::dtype dtype) {
    if (dtype == nb::dtype<float>()) return dragnoise::Element::float32;
    if (dtype == nb::dlpack::dtype{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float), 16, 1}) return dragnoise::Element::float16;
    if (dtype == nb::dlpack::dtype{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, 1}) return dragnoise::Element::bfloat16;
    throw nb::type_error("features: must be float32, float16 or bfloat16");
}

// The array takes over the memory.
template <typename Array, typename T>
Array owned(std::unique_ptr<T[]> memory, std::initializer_list<std::size_t> shape) {
    T* data = memory.get();
    const nb::capsule owner(data, [](void* owned) noexcept { delete[] static_cast<T*>(owned); });
    memory.release();
    return Array(data, shape, owner);
}

std::pair<Moved, Reached> track_points(const Features& features, const References& references, const Positions& handles,
                                       const Positions& targets, std::pair<int, int> resolution, int radius, float near) {
    const auto text = [](auto number) { return std::to_string(number); };
    require(features.size() > 0, "features: no side may be 0, got [" + text(features.shape(0)) + ", " + text(features.shape(1)) + ", " +
                                     text(features.shape(2)) + "]");
    require(references.shape(0) == handles.shape(0) && references.shape(1) == features.shape(0),
            "references: expected [" + text(handles.shape(0)) + ", " + text(features.shape(0)) + "] (handles, channels), got [" +
                text(references.shape(0)) + ", " + text(references.shape(1)) + "]");
    require(targets.shape(0) == handles.shape(0),
            "targets: expected [" + text(handles.shape(0)) + ", 2], got [" + text(targets.shape(0)) + ", 2]");
    require(resolution.first >= 1 && resolution.second >= 1,
            "resolution: must be at least (1, 1), got (" + text(resolution.first) + ", " + text(resolution.second) + ")");
    require(radius >= 0, "radius: must not be negative, got " + text(radius));

    const std::size_t count = handles.shape(0);
    auto moved = std::make_unique<std::int64_t[]>(2 * count);
    auto reached = std::make_unique<bool[]>(count);
    const auto size = [&](int axis) { return static_cast<std::int64_t>(features.shape(axis)); };
    const dragnoise::FeatureMap map = {features.data(),    element(features.dtype()), size(0), size(1), size(2),
                                       features.stride(0), features.stride(1),        features.stride(2)};
    const dragnoise::Points points = {handles.data(), targets.data(), references.data(), static_cast<std::int64_t>(count)};
    {
        const nb::gil_scoped_release released;
        dragnoise::track_points(map, {resolution.first, resolution.second}, points, radius, near, moved.get(), reached.get());
    }
    return {owned<Moved>(std::move(moved), {count, 2}), owned<Reached>(std::move(reached), {count})};
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "CPU twins of the kernels, in C++.";
    bind_group_norm_silu(module);
    module.def("track_points", &track_points, nb::arg("features").noconvert(), nb::arg("references").noconvert(),
               nb::arg("handles").noconvert(), nb::arg("targets").noconvert(), nb::arg("resolution"), nb::arg("radius"), nb::arg("near"),
               "The nearest feature in a window around every handle; see kernels/point_tracking.py.");
    bind_patch_motion(module);
    bind_latent_term(module);
    bind_adam(module);
    bind_splat(module);
    bind_relax(module);
}
