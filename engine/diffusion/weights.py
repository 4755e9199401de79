"""The weights of a model, known by their content."""

import concurrent.futures
import copy
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypeVar

from torch import nn

from ..cache.digest import digest

__all__ = ["M", "Weights", "frozen_view"]


M = TypeVar("M", bound=nn.Module)


class Weights:
    """What networks compute with, known by content: read once, when first asked for. Weights that are changed afterwards are another model's.

    merged: the adapter that is in them now and how much of it, by content (`Used.key`); None where they are as they were loaded. merged_from: the
    adapter's file, where it came from one.
    """

    def __init__(self, networks: Mapping[str, Any], tokenizer: Any = None) -> None:
        self._networks, self._tokenizer = networks, tokenizer
        self.merged: tuple[str, float] | None = None
        self.merged_from = ""

    @cached_property
    def digest(self) -> str:
        """Of every weight, buffer and configuration, and of the tokenizer's vocabulary."""
        named = {
            f"{part} {name}": value
            for part, network in self._networks.items()
            for name, value in (*network.named_parameters(), *network.named_buffers())
        }
        configs = {part: _config(network) for part, network in self._networks.items()}
        with concurrent.futures.ThreadPoolExecutor(
            2
        ) as pool:  # hashing leaves the interpreter to others
            found = dict(zip(named, pool.map(digest, named.values()), strict=True))
        return digest(found, configs, _vocabulary(self._tokenizer))


def _config(network: Any) -> str:
    config = getattr(network, "config", {})
    said = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return repr(
        sorted((name, repr(value)) for name, value in said.items() if not name.startswith("_"))
    )


def _vocabulary(tokenizer: Any) -> str:
    """Without what it remembers of the last call: padding and truncation."""
    if hasattr(tokenizer, "backend_tokenizer"):
        said = json.loads(tokenizer.backend_tokenizer.to_str())
        return json.dumps(
            {name: said[name] for name in sorted(said) if name not in ("padding", "truncation")}
        )
    return (
        repr(sorted(tokenizer.get_vocab().items()))
        if hasattr(tokenizer, "get_vocab")
        else type(tokenizer).__name__
    )


def frozen_view(module: M) -> M:
    """The same module with the same weights in the same memory, but frozen and in evaluation mode; the original keeps its own state."""
    shared: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False)
        for weight in module.parameters()
    }
    shared |= {id(buffer): buffer for buffer in module.buffers()}
    return copy.deepcopy(module, shared).eval()
