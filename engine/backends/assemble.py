"""A model whose parts are run by several: PyTorch where a gradient is asked for, exported parts where none is."""

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import UNet
from ..diffusion.vae import Autoencoder
from ..system.cuda_graphs import Captured, Graph, graph_on
from .exported_parts import ExportedParts, wants_gradient
from .placement import Placement

__all__ = ["CapturedWhile", "assemble"]

Part = Callable[..., Any]


def assemble(
    model: Model,
    placement: Placement,
    networks: Mapping[str, UNet],
    servers: Mapping[str, ExportedParts[Any]],
    tags: tuple[str, ...],
) -> Model:
    """The model, its parts run as the placement says. networks: the U-Net as each of PyTorch's backends runs it. servers: who runs exported parts."""
    unet = networks[placement.drag]
    if any(name != "vae" for name in placement.frozen):
        unet = unet.placed(_Placing(model, placement, networks, servers))
    halves = None
    if (server := servers.get(placement.vae or "")) is not None:
        halves = Autoencoder(
            model.vae, lambda half, run: _unless_gradient(getattr(server, half), run)
        )
    return dataclasses.replace(model, unet=unet, halves=halves, how=(*model.how, *tags))


@dataclasses.dataclass(frozen=True)
class _Placing:
    model: Model
    placement: Placement
    networks: Mapping[str, UNet]
    servers: Mapping[str, ExportedParts[Any]]

    def __call__(self, unet: UNet, part: str, run: Part) -> Part:
        """What runs `part` of `unet`; run: the drag's backend, as it does."""
        if part == "folded":
            return run
        frozen = (
            self._whole(unet, part, run) if part in ("whole", "replaced") else self._half(part, run)
        )
        return run if frozen is run else _unless_gradient(frozen, run)

    def _half(self, part: str, run: Part) -> Part:
        """down, middle or up."""
        who = getattr(self.placement, part) or self.placement.drag
        if who not in self.servers:
            return run if who == self.placement.drag else self.networks[who].run(part)
        found: Part = getattr(self.servers[who], part)
        return _with_features(found, run) if part == "up" else found

    def _whole(self, unet: UNet, part: str, run: Part) -> Part:
        """A whole pass: with a middle block of its own, or with the bottleneck that is given. On CUDA as a graph."""
        replaced = part == "replaced"
        if self.placement.unet is not None:
            server = self.servers[self.placement.unet]
            return self._captured(server.unet_replaced if replaced else server.unet)
        if not any(
            (self.placement.down, self.placement.up, self.placement.middle and not replaced)
        ):
            return run

        def composed(latent: Tensor, times: Tensor, text: Tensor, *bottleneck: Tensor) -> Tensor:
            *skips, bottom = unet.run("down")(latent, times, text)
            between = bottleneck[0] if replaced else unet.run("middle")(bottom, times, text)
            output: Tensor = unet.run("up")(between, tuple(skips), times, text, None, True)[1]
            return output

        return self._captured(composed)

    def _captured(self, run: Part) -> Part:
        if self.model.device.type != "cuda":
            return run
        return CapturedWhile(run, graph_on(self.model.device), self._valid)

    def _valid(self) -> tuple[object, ...]:
        """What a captured pass holds for: it has plans' addresses in it."""
        return self.model.read().merged, *(server.closed for server in self.servers.values())


class CapturedWhile:
    """`Captured` for each thread, and only as long as `valid()` stays what it was: exported parts are other files for another adapter, are closed
    when too many are open, and have their room to work in for a thread."""

    def __init__(
        self, run: Part, capture: Callable[[Callable[[], None]], Graph], valid: Callable[[], object]
    ) -> None:
        self._run, self._capture, self._valid = run, capture, valid
        self._mine = threading.local()

    def __call__(self, *given: Tensor) -> Tensor:
        valid = self._valid()
        if getattr(self._mine, "valid", None) != valid or not hasattr(self._mine, "captured"):
            self._mine.valid, self._mine.captured = valid, Captured(self._run, self._capture)
        found: Tensor = self._mine.captured(*given)
        return found


def _with_features(exported: Part, run: Part) -> Part:
    """up, as the U-Net calls it: who wants a feature map, which is not exported for edits, is given it by PyTorch."""

    def up(
        bottleneck: Tensor,
        skips: tuple[Tensor, ...],
        times: Tensor,
        text: Tensor,
        feature_block: int | None = None,
        output: bool = True,
    ) -> Any:
        if feature_block is not None:
            return run(bottleneck, skips, times, text, feature_block, output)
        return None, exported(bottleneck, skips, times, text)

    return up


def _unless_gradient(frozen: Part, differentiable: Part) -> Part:
    """An exported part has no gradient."""
    return lambda *given: (differentiable if wants_gradient(given) else frozen)(*given)
