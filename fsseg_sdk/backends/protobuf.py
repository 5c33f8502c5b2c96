"""A bounds-checked walk over protobuf bytes: every field is known and allowed, or it is an error.

Parsers merge a message that occurs twice, skip what they do not know and let the last of two values
win. Each of these lets a file say one thing to a checker and another to the runtime, so here a
field that is unknown, of the wrong wire type, or repeated where it must be single is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Field", "MalformedError", "Message", "Schema", "Span", "parse"]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class MalformedError(Exception):
    """The bytes are not the message that the schema describes. Text: what is wrong, and where."""


@dataclass(frozen=True)
class Field:
    """One field of a message. `wire`: how it is encoded; `refused`: why it may not occur at all."""

    name: str
    wire: int = LENGTH
    repeated: bool = False
    refused: str = ""


Span = tuple[int, int]  # of text, bytes, a message or packed numbers: [begin, end)
Value = int | Span
Schema = Mapping[int, Field]


class Message:
    """One message whose fields are known; values are read from the file's bytes when asked for."""

    def __init__(self, data: bytes, name: str, found: Mapping[str, list[Value]]) -> None:
        self._data = data
        self._name = name
        self._found = found

    def has(self, field: str) -> bool:
        return field in self._found

    def require(self, *fields: str) -> None:
        """Fields without which the message means nothing: where a cut-off file shows."""
        for field in fields:
            if field not in self._found:
                raise MalformedError(f"a {self._name} without {field}: truncated")

    def spans(self, field: str) -> list[Span]:
        return [value for value in self._found.get(field, ()) if isinstance(value, tuple)]

    def span(self, field: str) -> Span:
        """Of a field that occurs, once."""
        self.require(field)
        return self.spans(field)[0]

    def number(self, field: str) -> int:
        """A single number; 0 where it is left out."""
        value = self._found.get(field, [0])[0]
        return value if isinstance(value, int) else 0

    def bytes(self, field: str) -> bytes:
        spans = self.spans(field)
        return self._data[spans[0][0] : spans[0][1]] if spans else b""

    def text(self, field: str) -> str:
        return decoded(self.bytes(field), field)

    def count(self, field: str, width: int) -> int:
        """How many numbers a repeated field holds. width: bytes of one, 0 for variable length."""
        count = 0
        for value in self._found.get(field, ()):
            if isinstance(value, int):
                count += 1
                continue
            begin, end = value
            if width:
                whole, rest = divmod(end - begin, width)
            else:
                last = np.frombuffer(self._data, np.uint8, end - begin, begin) < 0x80
                whole, rest = int(np.count_nonzero(last)), int(last.size > 0 and not last[-1])
            if rest:
                raise MalformedError(f"{field} with half a number")
            count += whole
        return count

    def numbers(self, field: str, most: int) -> Sequence[int]:
        """The numbers of a repeated field of variable length, at most `most`."""
        if self.count(field, 0) > most:
            raise MalformedError(f"more than {most} {field}")
        numbers: list[int] = []
        for value in self._found.get(field, ()):
            if isinstance(value, int):
                numbers.append(value)
                continue
            at, end = value
            while at < end:
                number, at = _varint(self._data, at, end, self._name)
                numbers.append(number)
        return numbers


def decoded(value: bytes, what: str) -> str:
    """Names must be text: ONNX Runtime hands them to Python, which fails on others."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"a {what} that is not UTF-8") from None


def parse(data: bytes, span: Span, schema: Schema, name: str) -> Message:
    """The message in data[begin:end]; `name` is what errors call it.

    Reads nothing outside `span`, and no message inside; time is linear in the number of fields.
    """
    at, end = span
    found: dict[str, list[Value]] = {}
    while at < end:
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(data, at - 1, end, name)
        number, wire = tag >> 3, tag & 7
        field = schema.get(number)
        if field is None:
            raise MalformedError(f"unknown field {number} in {name}")
        if field.refused:
            raise MalformedError(f"{field.refused} ({name}.{field.name})")
        if wire != field.wire and not (wire == LENGTH and field.repeated):
            raise MalformedError(f"{name}.{field.name} has wire type {wire}")
        value: Value
        if wire == LENGTH:
            if at < end and data[at] < 0x80:  # nearly always: this is what the time is spent on
                size, at = data[at], at + 1
            else:
                size, at = _varint(data, at, end, name)
            value = (at, at + size)
            at += size
        elif wire == VARINT:
            value, at = _varint(data, at, end, name)
        else:
            width = 8 if wire == FIXED64 else 4
            value = int.from_bytes(data[at : at + width], "little")
            at += width
        if at > end:
            raise MalformedError(f"{name}.{field.name} ends behind its message: truncated")
        values = found.setdefault(field.name, [])
        if values and not field.repeated:
            raise MalformedError(f"{name}.{field.name} occurs twice")
        values.append(value)
    return Message(data, name, found)


def _varint(data: bytes, at: int, end: int, name: str) -> tuple[int, int]:
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for index in range(min(10, end - at)):
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at + index + 1
    raise MalformedError(f"a number in {name} is truncated or too long")
