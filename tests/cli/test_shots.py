"""Labelled pictures on the command line."""

from __future__ import annotations

import pytest

from fsseg_sdk import Box, InputError, Scribble
from fsseg_sdk.cli.shots import parse_box, parse_strokes, read_shots


def test_pairs_boxes_and_scribbles_mix_in_the_order_given() -> None:
    shots = read_shots(
        [
            ("class", ["bolt", "a.png", "a_mask.png", "b.png", "b_mask.png"]),
            ("box", ["nut", "c.png", "1,2,30,40"]),
            ("scribble", ["bolt", "d.png", "5,6 7,8"]),
        ]
    )
    assert list(shots) == ["bolt", "nut"]
    assert shots["bolt"][:2] == [("a.png", "a_mask.png"), ("b.png", "b_mask.png")]
    assert shots["bolt"][2] == ("d.png", Scribble((((5.0, 6.0), (7.0, 8.0)),)))
    assert shots["nut"] == [("c.png", Box(1, 2, 30, 40))]


def test_supports_pair_with_what_follows() -> None:
    given = [
        ("support", ["a.png"]),
        ("mask", ["m.png"]),
        ("support", ["b.png"]),
        ("box", ["0,0,5,5"]),
    ]
    assert read_shots(given, "leaf") == {"leaf": [("a.png", "m.png"), ("b.png", Box(0, 0, 5, 5))]}


def test_strokes_of_object_and_of_what_it_is_not() -> None:
    scribble = parse_strokes("1,2 3,4; 5.5,6; not 7,8 9,10")
    assert scribble.strokes == (((1.0, 2.0), (3.0, 4.0)), ((5.5, 6.0),))
    assert scribble.background == (((7.0, 8.0), (9.0, 10.0)),)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "labelled pictures"),
        ([("class", ["bolt"])], "--class bolt"),
        ([("class", ["bolt", "a.png", "m.png", "b.png"])], "--class bolt"),
        ([("support", ["a.png"])], "--support a.png"),
        ([("support", ["a.png"]), ("support", ["b.png"])], "--support a.png"),
        ([("support", ["a.png"]), ("class", ["n", "b.png", "m.png"])], "--support a.png"),
        ([("mask", ["m.png"])], "--mask"),
        ([("support", ["a.png"]), ("mask", ["m.png"]), ("box", ["1,2,3,4"])], "--box"),
    ],
)
def test_what_does_not_pair_up_is_named(given: list[tuple[str, list[str]]], named: str) -> None:
    with pytest.raises(InputError) as caught:
        read_shots(given)
    assert caught.value.argument == named


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,x,4", "1;2;3;4", "1,2,nan,4"])
def test_boxes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--box"):
        parse_box(text)


@pytest.mark.parametrize("text", ["1", "1,2 3", "1,2,3", "a,b", "1,2 inf,3"])
def test_strokes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--scribble"):
        parse_strokes(text)


@pytest.mark.parametrize("text", ["", " ; ", "not 1,2 3,4"])
def test_a_scribble_needs_the_object(text: str) -> None:
    with pytest.raises(InputError, match="at least one stroke"):
        parse_strokes(text)
