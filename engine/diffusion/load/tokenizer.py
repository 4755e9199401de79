"""Read a tokenizer, and see to it that it belongs to its text encoder.

The library is shown cleaned copies of the files, not the folder: it opens whatever a configuration
names, and stops at a byte order mark.
"""

import copy
import json
import string
import tempfile
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from ...errors import ModelError
from ...system.incoming import read_bounded, read_json, told_as
from .files import names_in
from .schema import TOKENIZER, Schema, read_settings

__all__ = ["belonging", "read_tokenizer"]

_JSON: dict[str, Schema | None] = {
    "tokenizer.json": None,
    "vocab.json": None,
    "added_tokens.json": None,
    "tokenizer_config.json": TOKENIZER,
    "special_tokens_map.json": TOKENIZER,
}
"""The files of a tokenizer, and what they may say; None: what the library makes of it."""

_MERGES = "merges.txt"
_BYTES = 2**26


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in a folder.

    Raises:
        ModelError: For a folder without a vocabulary, or with one that cannot be read.
    """
    names = set(names_in(folder))
    if "tokenizer.json" not in names and not {"vocab.json", _MERGES} <= names:
        raise ModelError(
            f"{str(folder)!r} has no vocabulary (tokenizer.json, or vocab.json and {_MERGES}); "
            "fetch the folder again, whole"
        )
    with tempfile.TemporaryDirectory(prefix="dragnoise-") as clean:
        for name in names & _JSON.keys():
            Path(clean, name).write_text(json.dumps(_said(folder / name, _JSON[name])), "utf-8")
        if _MERGES in names:
            Path(clean, _MERGES).write_bytes(_text(folder / _MERGES))
        with told_as(ModelError, f"{str(folder)!r} could not be loaded"):
            return CLIPTokenizer.from_pretrained(clean, local_files_only=True)


def _said(file: Path, schema: Schema | None) -> Any:
    if schema is not None:
        return read_settings(file, schema)
    said = read_json(file, ModelError)
    if not isinstance(said, dict):
        raise ModelError(f"{str(file)!r} holds no JSON object; is the folder whole?")
    return said


def _text(file: Path) -> bytes:
    content = read_bounded(file, ModelError, _BYTES)
    with told_as(ModelError, f"{str(file)!r} is no text in UTF-8"):
        return content.decode("utf-8-sig").encode()


def belonging(tokenizer: Any, text_encoder: Any, where: str) -> Any:
    """Return the tokenizer of a text encoder; a copy if its length is not the encoder's.

    A tokenizer that knows no length, or a longer one than the encoder reads, gets the encoder's.

    Args:
        tokenizer: As it was read.
        text_encoder: The network; its weights are not needed.
        where: Both come from, for messages.

    Raises:
        ModelError: If it makes tokens that the encoder has no row for, or does not know letters.
    """
    config = text_encoder.config
    with told_as(ModelError, f"the tokenizer of {where!r} cannot be used"):
        length = int(min(tokenizer.model_max_length, config.max_position_embeddings))
        if length != tokenizer.model_max_length:
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.model_max_length = length
        highest = max(tokenizer.get_vocab().values(), default=0)
        letters = " ".join(string.ascii_lowercase)
        unknown = tokenizer.unk_token_id in tokenizer(letters, add_special_tokens=False).input_ids
        row = tokenizer("", padding="max_length", max_length=length, truncation=True).input_ids
    rows = text_encoder.get_input_embeddings().num_embeddings
    if highest >= rows:
        raise ModelError(
            f"the tokenizer of {where!r} has tokens up to number {highest}, its text encoder knows "
            f"{rows}; give the two that belong together"
        )
    if unknown or len(row) != length:
        raise ModelError(
            f"the tokenizer of {where!r} does not know the letters a to z, or does not fill a row "
            f"of {length} tokens; is the folder whole?"
        )
    return tokenizer
