"""Settings as JSON: every kind of field, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from fsseg_sdk import InputError
from fsseg_sdk.methods.settings import (
    check_range,
    merged,
    settings_from_json,
    settings_to_json,
)


@dataclass(frozen=True)
class Inner:
    rate: float
    steps: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    count: int = 3
    share: float = 0.5
    flag: bool = False
    name: str = "x"
    rule: Literal["a", "b"] = "a"
    inner: Inner | None = None
    names: tuple[str, ...] = field(default=())


def test_round_trip() -> None:
    values = {
        "count": 7,
        "share": 1.0,
        "flag": True,
        "name": "y",
        "rule": "b",
        "inner": {"rate": 0.1, "steps": [3]},
        "names": ["p", "q"],
    }
    settings = settings_from_json(Outer, values, "s")
    assert settings == Outer(7, 1.0, True, "y", "b", Inner(0.1, (3,)), ("p", "q"))
    assert settings_to_json(settings) == values
    assert settings_from_json(Outer, {}, "s") == Outer()
    assert settings_to_json(Outer())["inner"] is None
    assert isinstance(settings_from_json(Outer, {"share": 2}, "s").share, float)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"count": 1.0}, "s.count"),
        ({"count": True}, "s.count"),
        ({"count": None}, "s.count"),
        ({"share": "1"}, "s.share"),
        ({"share": float("inf")}, "s.share"),
        ({"flag": 1}, "s.flag"),
        ({"name": 3}, "s.name"),
        ({"rule": "c"}, "s.rule"),
        ({"inner": 3}, "s.inner"),
        ({"inner": {}}, "s.inner.rate"),
        ({"inner": {"rate": 1, "more": 2}}, "s.inner.more"),
        ({"inner": {"rate": 1, "steps": [1, "2"]}}, r"s.inner.steps\[1\]"),
        ({"inner": {"rate": 1, "steps": 1}}, "s.inner.steps"),
        ({"names": "pq"}, "s.names"),
        ({"other": 1}, "s.other"),
    ],
)
def test_refused_by_name(values: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected"):
        settings_from_json(Outer, values, "s")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_ranges(value: float) -> None:
    check_range("x", 0.0, 0.0, 1.0)
    check_range("x", 1.0, 0.0, 1.0)
    with pytest.raises(InputError, match="x: expected a number from 0 to 1"):
        check_range("x", value, 0.0, 1.0)


def test_none_takes_an_optional_table_away() -> None:
    own = {"threshold": {"output_bias": 1.0}, "steps": 2}
    assert merged(own, {"threshold": None}, "settings") == {"threshold": None, "steps": 2}
    with pytest.raises(InputError, match=r"settings\.threshold: expected an object"):
        merged(own, {"threshold": 3}, "settings")
