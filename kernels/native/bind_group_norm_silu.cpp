// group_norm_silu as Python sees it: arrays are checked here. Types: kernels/_native.pyi. bfloat16 comes as its bits, int16.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <type_traits>

#include "group_norm_silu.h"

namespace nb = nanobind;

namespace {

template <typename T, int Rank>
using Array = nb::ndarray<T, nb::ndim<Rank>, nb::c_contig, nb::device::cpu>;

// The kernel reads bfloat16 as std::uint16_t.
template <typename T>
using Bits = std::conditional_t<std::is_same_v<T, float>, float, std::uint16_t>;

template <typename T>
const Bits<T>* read(const T* data) {
    return reinterpret_cast<const Bits<T>*>(data);
}

template <typename Map>
dragnoise::Rows rows_of(const Map& x, std::size_t groups) {
    return {static_cast<std::int64_t>(x.shape(0)), static_cast<std::int64_t>(x.shape(1)), static_cast<std::int64_t>(x.shape(2)),
            static_cast<std::int64_t>(groups)};
}

template <typename T>
void check(const Array<const T, 3>& x, const Array<T, 3>& y, const Array<const T, 1>& weight, const Array<const T, 1>& bias,
           std::size_t entries, std::size_t groups) {
    if (x.size() == 0 || groups == 0 || x.shape(2) % groups != 0) throw nb::value_error("x: must be [B, places, C], C a multiple of the groups");
    for (int axis = 0; axis < 3; ++axis)
        if (x.shape(axis) != y.shape(axis)) throw nb::value_error("the map that is written must have the shape of x");
    if (weight.shape(0) != x.shape(2) || bias.shape(0) != x.shape(2)) throw nb::value_error("weight and bias: must have one value a channel");
    if (entries != x.shape(0)) throw nb::value_error("statistics: must be [2, B, groups]");
}

template <typename T>
void forward(const Array<const T, 3>& x, const Array<const T, 1>& weight, const Array<const T, 1>& bias, const Array<T, 3>& y,
             const Array<float, 3>& statistics, float eps, bool silu, int threads) {
    check<T>(x, y, weight, bias, statistics.shape(0) == 2 ? statistics.shape(1) : 0, statistics.shape(2));
    const dragnoise::Rows rows = rows_of(x, statistics.shape(2));
    float* mean = statistics.data();
    const nb::gil_scoped_release released;
    dragnoise::group_norm_silu(rows, read(x.data()), read(weight.data()), read(bias.data()), reinterpret_cast<Bits<T>*>(y.data()), mean,
                               mean + rows.entries * rows.groups, eps, silu, threads);
}

template <typename T>
void gradient(const Array<const T, 3>& given, const Array<const T, 3>& x, const Array<const T, 1>& weight, const Array<const T, 1>& bias,
              const Array<const float, 3>& statistics, const Array<T, 3>& found, bool silu, int threads) {
    check<T>(x, found, weight, bias, statistics.shape(0) == 2 ? statistics.shape(1) : 0, statistics.shape(2));
    check<T>(given, found, weight, bias, statistics.shape(1), statistics.shape(2));
    const dragnoise::Rows rows = rows_of(x, statistics.shape(2));
    const float* mean = statistics.data();
    const nb::gil_scoped_release released;
    dragnoise::group_norm_silu_gradient(rows, read(given.data()), read(x.data()), read(weight.data()), read(bias.data()), mean,
                                        mean + rows.entries * rows.groups, reinterpret_cast<Bits<T>*>(found.data()), silu, threads);
}

template <typename T>
void bind(nb::module_& module) {
    module.def("group_norm_silu", &forward<T>, nb::arg("x").noconvert(), nb::arg("weight").noconvert(), nb::arg("bias").noconvert(),
               nb::arg("y").noconvert(), nb::arg("statistics").noconvert(), nb::arg("eps"), nb::arg("silu"), nb::arg("threads"),
               "Normalise into y; see kernels/group_norm_silu.py.");
    module.def("group_norm_silu_gradient", &gradient<T>, nb::arg("gradient").noconvert(), nb::arg("x").noconvert(),
               nb::arg("weight").noconvert(), nb::arg("bias").noconvert(), nb::arg("statistics").noconvert(), nb::arg("found").noconvert(),
               nb::arg("silu"), nb::arg("threads"), "The gradient of x into found; see kernels/group_norm_silu.py.");
}

}  // namespace

void bind_group_norm_silu(nb::module_& module) {
    bind<float>(module);
    bind<std::int16_t>(module);
}
