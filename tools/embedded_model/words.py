"""Make the embedded model's tokenizer: CLIP's, with one token for every word of its captions."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from transformers import CLIPTokenizer

from dragnoise.bench.world import scenes as world

LENGTH = 32
START = "<|startoftext|>"
END = "<|endoftext|>"
_THINGS = (
    "balloon",
    "hills",
    "boat",
    "sail",
    "sea",
    "mountain",
    "house",
    "roof",
    "hill",
    "sun",
    "moon",
    "sky",
)
_JOINTS = ("a", "and", "over", "with", "at", "on", ",")
WORDS = tuple(sorted({*_THINGS, *_JOINTS, *world.SKIES, *world.PAINTS, *world.GROUNDS}))


def byte_symbols() -> list[str]:
    """Return the printable character that stands for each byte in byte-level merges.

    A byte that can be seen stands for itself; the others are numbered from 256 on.
    """
    seen = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    unseen = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + unseen.index(byte)) for byte in range(256)]


def _split(word: str, merges: Sequence[tuple[str, str]]) -> list[str]:
    """Split a word by byte-pair encoding: apply the earliest merge that fits, until none does."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        pairs = list(itertools.pairwise(pieces))
        applicable = [merge for merge in merges if merge in pairs]
        if not applicable:
            return pieces
        at = pairs.index(applicable[0])
        pieces[at : at + 2] = ["".join(applicable[0])]


def merges_for(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return merges under which each word becomes one piece.

    A later merge never splits a word that an earlier one completes.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        while len(pieces := _split(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
    return merges


def _ended(pieces: Sequence[str]) -> list[str]:
    return [piece + "</w>" for piece in pieces]


def tokenizer() -> CLIPTokenizer:
    """Return the tokenizer.

    Its vocabulary is, in this order: start and end, the words, the bytes, the bytes that end a
    word, and the pieces in between.
    """
    merges = merges_for(WORDS)
    symbols = byte_symbols()
    entries = [
        START,
        END,
        *_ended(WORDS),
        *symbols,
        *_ended(symbols),
        *("".join(merge) for merge in merges),
    ]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer's folder, with the two files that transformers before 5 reads too."""
    clip = tokenizer()
    clip.save_pretrained(str(folder))
    (folder / "vocab.json").write_text(json.dumps(clip.get_vocab()), encoding="utf-8")
    lines = [" ".join(merge) for merge in merges_for(WORDS)]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
