"""Read a method's settings as a command line names them: "iterations=10,lr=0.02"."""

import dataclasses
from typing import Any

from dragnoise.engine.cli.options import METHOD_SETTINGS
from dragnoise.engine.errors import ConfigError

__all__ = ["settings_of"]

_WORDS = {"true": True, "false": False}


def settings_of(method: str, text: str | None) -> dict[str, Any]:
    """Return the settings that a text names, by field, each of its field's kind.

    Args:
        method: Whose settings they are.
        text: "NAME=VALUE,..."; None or empty: none.

    Raises:
        ConfigError: The method has no such setting, or a value is out of its range.
    """
    cls = METHOD_SETTINGS[method]
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    given: dict[str, Any] = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in fields:
            raise ConfigError(
                f"{part!r} is no setting of {method}; write NAME=VALUE,... of {', '.join(fields)}"
            )
        given[name] = _value(name, value, fields[name])
    cls().replace(**given)
    return given


def _value(name: str, text: str, kind: Any) -> Any:
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as wrong:
        words = {int: "a whole number", float: "a number", bool: "true or false"}
        raise ConfigError(f"{name} must be {words[kind]}, got {text!r}") from wrong
