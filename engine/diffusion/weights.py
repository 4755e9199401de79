"""Know the weights of a model by their content."""

import concurrent.futures
import copy
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from ..cache.digest import digest
from ..system.numerics import ordinary
from ..system.worker import check_current
from .unet import plain

__all__ = ["M", "Weights", "frozen_view"]

M = TypeVar("M", bound=nn.Module)


class Weights:
    """A set of weights that is known by a digest of its content.

    They are read once, when the digest is first wanted (a job that is to end ends meanwhile). Later
    changes are not seen, except merged adapters, which are told by `merged`.

    Args:
        networks: By name.
        tokenizer: Its vocabulary counts too.

    Attributes:
        merged: Key of the adapter that is in the weights now (`AdapterUse.key`); None where they
            are as they were loaded.
        merged_from: The adapter's file; "" where it came from none.
    """

    def __init__(self, networks: Mapping[str, Any], tokenizer: Any = None) -> None:
        self._networks = networks
        self._tokenizer = tokenizer
        self._digest = ""
        self.merged: tuple[str, float] | None = None
        self.merged_from = ""

    @property
    def digest(self) -> str:
        """Digest of every weight, buffer and configuration, and of the tokenizer's vocabulary."""
        self.freeze_digest()
        return self._digest

    def freeze_digest(self) -> None:
        """Read all weights, unless they were read before: from here on they may be changed."""
        if not self._digest:
            self._digest = self._read()

    def _read(self) -> str:
        tensors = {
            f"{name} {key}": value
            for name, network in self._networks.items()
            for key, value in (*network.named_parameters(), *network.named_buffers())
        }
        configs = {name: _config(network) for name, network in self._networks.items()}
        return digest(_digests(tensors), configs, _vocabulary(self._tokenizer))


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Digest weights: in threads, because hashing leaves the interpreter to others."""
    digests = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        read = pool.map(lambda weight: digest(plain(weight)), tensors.values())
        try:
            for name, found in zip(tensors, read, strict=True):
                digests[name] = found
                check_current()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return digests


def _config(network: Any) -> str:
    config = getattr(network, "config", {})
    settings = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return repr(
        sorted((name, repr(value)) for name, value in settings.items() if not name.startswith("_"))
    )


def _vocabulary(tokenizer: Any) -> str:
    """Return a tokenizer's vocabulary as text.

    Padding and truncation, which it remembers from its last call, are left out.
    """
    if hasattr(tokenizer, "backend_tokenizer"):
        settings = json.loads(tokenizer.backend_tokenizer.to_str())
        names = sorted(settings.keys() - {"padding", "truncation"})
        return json.dumps({name: settings[name] for name in names})
    if hasattr(tokenizer, "get_vocab"):
        return repr(sorted(tokenizer.get_vocab().items()))
    return type(tokenizer).__name__


def frozen_view(module: M) -> M:
    """Return a module on the same memory, frozen and in evaluation mode.

    The original keeps its own state. Weights that were made in inference mode become ordinary ones.
    """
    shared: dict[int, Any] = {
        id(weight): nn.Parameter(ordinary(weight.detach()), requires_grad=False)
        for weight in module.parameters()
    }
    shared |= {id(buffer): ordinary(buffer) for buffer in module.buffers()}
    return copy.deepcopy(module, shared).eval()
