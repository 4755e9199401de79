"""Find the code blocks of a page by the comment before them, and run them.

<!-- run: NAME -->           the block is run by a test that names it
<!-- not run: REASON -->     the block is not run
"""

import importlib.util
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dragnoise.engine.cli import main as dragnoise
from dragnoise.export.__main__ import main as export

__all__ = [
    "PAGES",
    "ROOT",
    "Block",
    "blocks",
    "example",
    "named",
    "run_python",
    "run_shell",
    "shell_lines",
]

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING"))]
)

_BLOCK = re.compile(r"(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.S)

COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "dragnoise ": dragnoise,
    "python -m dragnoise.export ": export,
}


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: Path relative to the repository.
        note: The comment on the line before it, "" without one.
        language: As it is marked.
        text: Its lines.
    """

    page: str
    note: str
    language: str
    text: str

    @property
    def name(self) -> str | None:
        """Its name, if it is to be run."""
        return self.note.removeprefix("run: ") if self.note.startswith("run: ") else None


def blocks(page: Path) -> list[Block]:
    """Return every marked code block of a page."""
    text = page.read_text(encoding="utf-8")
    where = str(page.relative_to(ROOT))
    return [
        Block(where, match["note"] or "", match["language"], match["text"])
        for match in _BLOCK.finditer(text)
    ]


def named() -> dict[str, Block]:
    """Return every block that is to be run, by its name."""
    found = [block for page in PAGES for block in blocks(page) if block.name is not None]
    names = [block.name for block in found]
    assert len(set(names)) == len(names), f"two blocks have one name: {sorted(map(str, names))}"
    return {str(block.name): block for block in found}


def run_python(block: Block) -> None:
    """Run a block as it stands."""
    exec(compile(block.text, block.page, "exec"), {"__name__": "__main__"})  # noqa: S102


def shell_lines(block: Block) -> list[list[str]]:
    """Return the words of every command of a block, without comments."""
    joined = block.text.replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [line for line in lines if line]


def run_shell(block: Block, *more: str) -> None:
    """Run every command of a block in this process; `more` is added to edits and the like."""
    for words in shell_lines(block):
        line = shlex.join(words)
        prefix = next((prefix for prefix in COMMANDS if line.startswith(prefix)), None)
        assert prefix is not None, f"{block.page}: no command of ours: {line}"
        arguments = words[len(prefix.split()) :]
        makes = prefix == "dragnoise " and arguments[0] in ("edit", "generate")
        assert COMMANDS[prefix]([*arguments, *(more if makes else ())]) == 0, line


def example(name: str) -> ModuleType:
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(
        f"example_{name}", ROOT / "examples" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
