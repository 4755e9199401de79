"""A tally of what an attack tried and how it went."""

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dragnoise.engine.errors import DragnoiseError

__all__ = ["WHOLE", "Tally"]

WHOLE = os.environ.get("ATTACK") == "whole"
"""Whether everything is tried, not a small lot."""


@dataclass
class Tally:
    """Counts what an attack tried and how it went.

    Attributes:
        right: how often the engine did what it ought to: the same result as without the attack, or
            a refusal in one line.
        wrongs: what else happened, in words.
        remark: stands in the row's last column.
    """

    right: int = 0
    wrongs: list[str] = field(default_factory=list)
    remark: str = ""

    def lot(self, small: int, whole: int) -> Iterator[random.Random]:
        """Yield a generator of random numbers for each try, the same ones in every run."""
        for seed in range(whole if WHOLE else small):
            yield random.Random(seed)

    def judge(self, well: bool, otherwise: str) -> None:
        """Count a try as right, or as wrong for the reason named."""
        if well:
            self.right += 1
        else:
            self.wrongs.append(otherwise)

    def refused(self, name: str, call: Callable[[], Any], *errors: type[DragnoiseError]) -> None:
        """Count a call as right if it is refused in one line by an error of ours.

        Args:
            name: Of the try.
            call: What is tried.
            errors: The kinds that are right; none: any of ours.
        """
        self.refused_or(name, call, lambda result: False, *errors)

    def refused_or(
        self,
        name: str,
        call: Callable[[], Any],
        accepted: Callable[[Any], bool],
        *errors: type[DragnoiseError],
    ) -> None:
        """Count a call as right if it is refused in one line, or its result is accepted."""
        kinds = errors or (DragnoiseError,)
        try:
            result = call()
        except kinds as error:
            self.judge("\n" not in str(error), f"{name}: more than one line: {str(error)!r}")
        except Exception as raw:  # noqa: BLE001 that is what is looked for
            self.judge(False, f"{name}: {type(raw).__name__}: {str(raw)[:100]}")
        else:
            self.judge(accepted(result), f"{name}: taken")
