"""Strict JSON: parse once, read field by field, leave nothing unread.

Used for the manifests of bundles and task files. What JSON parsers usually let pass is refused
here: duplicate keys, NaN and Infinity (also as 1e999), deep nesting, control characters (they would
reach a terminal), lone surrogates and integers beyond 64 bits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn, TypeGuard, cast

from .errors import FssegError

__all__ = ["Fields", "Refusal", "freeze", "parse_object", "thaw"]

MAX_DEPTH = 12
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Refusal:
    """Makes the errors about one file: `raise refuse("member 'x'", expected=..., got=...)`."""

    error_type: type[FssegError]
    source: str  # how messages call the file, such as "bundle 'parts.fsseg'"
    remedy: str  # what helps where a check names nothing better

    def __call__(
        self, part: str, *, expected: str, got: str, remedy: str | None = None
    ) -> FssegError:
        return self.error_type(
            f"{self.source}, {part}", expected=expected, got=got, remedy=remedy or self.remedy
        )


def parse_object(data: bytes, part: str, refuse: Refusal) -> dict[str, object]:
    """The JSON object in `data` (UTF-8). `part` names it in errors, which `refuse` makes."""
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", data)):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise refuse(part, expected=f"at most {MAX_DEPTH} levels of nesting", got=f"{deepest}")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise refuse(part, expected="each key once", got=f"{twice!r} twice")
        return result

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise refuse(part, expected="finite numbers", got=text[:40])
        return value

    def integer(text: str) -> int:
        if len(text) > 19:
            raise refuse(part, expected="integers of 64 bits", got=f"{len(text)} digits")
        return int(text)

    def constant(text: str) -> NoReturn:
        raise refuse(part, expected="finite numbers", got=text)

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_float=number,
            parse_int=integer,
            parse_constant=constant,
        )
    except (ValueError, RecursionError) as error:
        raise refuse(part, expected="valid JSON in UTF-8", got=str(error)[:120]) from None
    if not isinstance(value, dict):
        raise refuse(part, expected="a JSON object", got=type(value).__name__)
    _check_text(value, part, refuse)
    return value


def _check_text(value: object, part: str, refuse: Refusal) -> None:
    if isinstance(value, str):
        bad = _CONTROL.search(value)
        if bad:
            raise refuse(part, expected="text without control characters", got=ascii(bad[0]))
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, part, refuse)
            _check_text(item, part, refuse)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, part, refuse)


def freeze(value: object) -> object:
    """A read-only copy of a JSON value: objects become mapping proxies, arrays tuples."""
    if isinstance(value, Mapping):
        return MappingProxyType({str(key): freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: object) -> object:
    """The opposite of `freeze`: plain dicts and lists, ready for `json.dumps`."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thaw(item) for item in value]
    return value


class Fields:
    """One JSON object, read key by key; `end()` refuses keys that nobody asked for.

    `lenient` leaves unknown keys alone: the file comes from a newer minor version of its format,
    which may only have added what a reader can do without.
    """

    def __init__(self, value: object, where: str, refuse: Refusal, *, lenient: bool) -> None:
        if not isinstance(value, Mapping):
            raise refuse(where, expected="an object", got=_show(value))
        self._value: Mapping[str, object] = value
        self._where = where
        self._refuse = refuse
        self._lenient = lenient
        self._read: set[str] = set()

    def fail(self, key: str, expected: str, got: object) -> FssegError:
        """The error for `key`; `got` is shown shortened."""
        return self._refuse(f"{self._where}.{key}", expected=expected, got=_show(got))

    def names(self) -> list[str]:
        return list(self._value)

    def has(self, key: str) -> bool:
        return key in self._value

    def whole(self) -> Mapping[str, object]:
        """The object itself, read-only; its keys do not count as read."""
        return cast(Mapping[str, object], freeze(self._value))

    def any(self, key: str) -> object:
        """The value as it is; missing is an error."""
        self._read.add(key)
        if key not in self._value:
            raise self._refuse(f"{self._where}.{key}", expected="a value", got="nothing")
        return self._value[key]

    def text(self, key: str, pattern: str = r".{1,200}", what: str = "1 to 200 characters") -> str:
        value = self.any(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.fail(key, what, value)
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        value = self.any(key)
        if not isinstance(value, str) or value not in choices:
            raise self.fail(key, " or ".join(choices), value)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.any(key)
        if not _is_integer(value) or not low <= value <= high:
            raise self.fail(key, f"an integer from {low} to {high}", value)
        return value

    def integers(self, key: str, counts: range, low: int, high: int) -> tuple[int, ...]:
        """An array of integers in [low, high]; its length must be in `counts`."""
        value = self.any(key)
        if not isinstance(value, (list, tuple)) or len(value) not in counts:
            raise self.fail(key, f"an array of {_lengths(counts)} integers", value)
        if not all(_is_integer(item) and low <= item <= high for item in value):
            raise self.fail(key, f"integers from {low} to {high}", value)
        return tuple(value)

    def number(self, key: str, low: float, high: float) -> float:
        value = self.any(key)
        if not _is_number(value) or not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        value = self.any(key)
        if not isinstance(value, (list, tuple)) or len(value) != count:
            raise self.fail(key, f"an array of {count} numbers", value)
        if not all(_is_number(item) and low <= item <= high for item in value):
            raise self.fail(key, f"numbers from {low:g} to {high:g}", value)
        return tuple(float(item) for item in value)

    def items(self, key: str, most: int) -> tuple[Fields, ...]:
        """An array of 1 to `most` objects."""
        value = self.any(key)
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= most:
            raise self.fail(key, f"an array of 1 to {most} objects", value)
        return tuple(
            Fields(item, f"{self._where}.{key}[{index}]", self._refuse, lenient=self._lenient)
            for index, item in enumerate(value)
        )

    def nested(self, key: str) -> Fields:
        """The object under `key`, to be read in the same way."""
        return Fields(self.any(key), f"{self._where}.{key}", self._refuse, lenient=self._lenient)

    def free(self, key: str) -> Mapping[str, object]:
        """An object whose content is the caller's business, read-only."""
        value = self.any(key)
        if not isinstance(value, Mapping):
            raise self.fail(key, "an object", value)
        return cast(Mapping[str, object], freeze(value))

    def end(self) -> None:
        """Refuses keys that were not read."""
        unknown = [key for key in self._value if key not in self._read]
        if unknown and not self._lenient:
            raise self._refuse(
                f"{self._where}.{unknown[0]}",
                expected="only fields that this format has",
                got=f"an unknown field ({len(unknown)} in all)",
            )


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _lengths(counts: range) -> str:
    first, last = counts[0], counts[-1]
    return str(first) if first == last else f"{first} to {last}"


def _show(value: object) -> str:
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
