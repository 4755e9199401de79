// adam_step as Python sees it: arrays are checked here. Types: kernels/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "adam.h"

namespace nb = nanobind;

namespace {

using Read = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Written = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Done = nb::ndarray<const bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void adam_step(const Written& variable, const Read& gradient, const Written& first, const Written& second, const Done& done,
               std::int64_t step, double lr, double beta_first, double beta_second, double epsilon) {
    const std::size_t entries = variable.shape(0), count = variable.shape(1);
    const auto same = [&](const auto& array) { return array.shape(0) == entries && array.shape(1) == count; };
    if (!same(gradient)) throw nb::value_error("gradient: must have the shape of variable");
    if (!same(first)) throw nb::value_error("first: must have the shape of variable");
    if (!same(second)) throw nb::value_error("second: must have the shape of variable");
    if (done.shape(0) != entries) throw nb::value_error("done: must have one value for each entry of variable");
    const auto correction = [&](double beta) { return static_cast<float>(1.0 - std::pow(beta, static_cast<double>(step))); };
    const dragnoise::Adam adam = {static_cast<float>(1.0 - beta_first),
                                  static_cast<float>(beta_second),
                                  static_cast<float>(1.0 - beta_second),
                                  correction(beta_first),
                                  correction(beta_second),
                                  static_cast<float>(epsilon),
                                  static_cast<float>(lr)};
    const nb::gil_scoped_release released;
    for (std::size_t entry = 0; entry < entries; ++entry) {
        if (done.data()[entry]) continue;
        const std::size_t from = entry * count;
        dragnoise::adam_step(adam, static_cast<std::int64_t>(count), variable.data() + from, gradient.data() + from, first.data() + from,
                             second.data() + from);
    }
}

}  // namespace

void bind_adam(nb::module_& module) {
    module.def("adam_step", &adam_step, nb::arg("variable").noconvert(), nb::arg("gradient").noconvert(), nb::arg("first").noconvert(),
               nb::arg("second").noconvert(), nb::arg("done").noconvert(), nb::arg("step"), nb::arg("lr"), nb::arg("beta_first"),
               nb::arg("beta_second"), nb::arg("epsilon"), "One Adam update in place; see kernels/adam.py.");
}
