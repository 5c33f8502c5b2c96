"""Settings of methods: frozen dataclasses that travel as JSON, checked field by field."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import InputError

__all__ = ["check_range", "merged", "settings_from_json", "settings_to_json"]

T = TypeVar("T")


def settings_from_json(settings_type: type[T], values: Mapping[str, Any], argument: str) -> T:
    """Build `settings_type` from parsed JSON; absent fields keep their defaults. Of a nested
    dataclass they keep what the outer field's default says of them.

    Knows bool, int, float, str, Literal, Optional, nested dataclasses, tuples of these, and dicts,
    whose contents it leaves unchecked.
    InputError names the field (as in ``method settings.scale``) when it is unknown, of the
    wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise _wrong(argument, "an object", values)
    hints = get_type_hints(settings_type)
    described = fields(settings_type)  # type: ignore[arg-type]
    known = [f.name for f in described]
    for name in values:
        if name not in known:
            raise InputError(
                f"{argument}.{name}",
                expected=f"one of the settings {', '.join(known)}",
                got="another name",
                remedy="Remove it, or use the version of fsseg_sdk that it was written for.",
            )
    given = dict(values)
    for field in described:
        default = field.default_factory() if callable(field.default_factory) else field.default
        if default is MISSING and field.name not in values:
            raise _wrong(f"{argument}.{field.name}", "a value", None)
        own = values.get(field.name)
        if isinstance(own, Mapping) and is_dataclass(default):
            given[field.name] = {**settings_to_json(default), **own}
    return settings_type(
        **{name: _value(hints[name], item, f"{argument}.{name}") for name, item in given.items()}
    )


def merged(
    settings: Mapping[str, Any], changes: Mapping[str, Any], argument: str
) -> dict[str, Any]:
    """Parsed JSON settings with others in place of some, table by table. InputError where the
    changes are no mapping."""
    if not isinstance(changes, Mapping):
        raise _wrong(argument, "an object", changes)
    result = dict(settings)
    for name, value in changes.items():
        own = result.get(name)
        if isinstance(own, Mapping) and value is not None:  # None takes an optional table away
            value = merged(own, value, f"{argument}.{name}")
        result[name] = value
    return result


def settings_to_json(settings: Any) -> dict[str, Any]:
    """The opposite: plain JSON types, every field written out."""
    return {f.name: _plain(getattr(settings, f.name)) for f in fields(settings)}


def check_range(argument: str, value: float, low: float, high: float) -> None:
    """InputError unless low <= value <= high (NaN is not)."""
    if not (low <= value <= high):
        raise InputError(
            argument,
            expected=f"a number from {low:g} to {high:g}",
            got=f"{value:g}",
            remedy="Choose a value in that range.",
        )


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return settings_to_json(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _value(hint: Any, value: Any, argument: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (item for item in arguments if item is not type(None))
        return _value(hint, value, argument)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise _wrong(argument, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(argument, "a list", value)
        return tuple(_value(arguments[0], item, f"{argument}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(argument, "an object", value)
        return dict(value)
    if is_dataclass(hint):
        return settings_from_json(hint, value, argument)  # type: ignore[arg-type]
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong(argument, "a number", value)
        if not abs(value) <= sys.float_info.max:  # NaN, infinity, or an integer beyond a float
            raise _wrong(argument, "a finite number", value)
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _wrong(argument, hint.__name__, value)
    return value


def _wrong(argument: str, expected: str, value: object) -> InputError:
    return InputError(
        argument,
        expected=expected,
        got=f"{value!r:.80}",
        remedy="Correct the setting.",
    )
