"""Support sets: names, shots, shared pictures, and errors that name class and shot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsseg_sdk import Box, Scribble
from fsseg_sdk.errors import InputError
from fsseg_sdk.image import read_image
from fsseg_sdk.support import pair_up, read_support
from tests.pictures import encode, scene, stored, turned

ONE, TWO = scene(40, 56, seed=1), scene(48, 64, seed=2)
OTHER = scene(40, 56, seed=3)
DISC, SQUARE, BAR = ONE.masks.values()
MASK = DISC.astype(np.uint8)


def test_annotations_mix(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(encode((DISC * 255).astype(np.uint8)))
    support = read_support(
        {
            "bolt": [
                (ONE.pixels, path),
                (TWO.pixels, Box(5, 5, 20, 20)),
                (TWO.pixels[:30], Scribble([(3, 4), (9, 9)])),
            ],
            "nut": (TWO.pixels, TWO.masks["green bar"]),
        }
    )
    assert support.classes == ("bolt", "nut")
    assert [shot.kind for shot in support] == ["mask", "box", "scribble", "mask"]
    assert [shot.way for shot in support] == [0, 0, 0, 1]
    assert [shot.name for shot in support][1:] == [
        "class 'bolt', shot 2",
        "class 'bolt', shot 3",
        "class 'nut', shot 1",
    ]
    assert len(support) == 4
    for shot in support:
        for plane in (shot.foreground, shot.background, shot.unclaimed, shot.possible):
            assert plane.dtype == np.uint8
            assert plane.shape == shot.picture.size
            assert set(np.unique(plane)) <= {0, 1}
            assert plane.flags.c_contiguous
        assert shot.foreground.any()
        assert not (shot.foreground & shot.background).any()
        assert not (shot.unclaimed & ~shot.background & 1).any()
        assert shot.possible[shot.foreground > 0].all()


def test_ignored_pixels_are_neither() -> None:
    mask = MASK.copy()
    mask[:4] = 255
    shot = read_support({"a": (ONE.pixels, mask)}).shots[0]
    np.testing.assert_array_equal(shot.foreground, mask == 1)
    np.testing.assert_array_equal(shot.background, mask == 0)
    np.testing.assert_array_equal(shot.unclaimed, mask == 0)


def test_full_masks_and_single_pixels() -> None:
    full = read_support({"a": (ONE.pixels, np.ones((40, 56), bool))}).shots[0]
    assert full.foreground.all()
    assert not full.background.any()
    point = np.zeros((40, 56), bool)
    point[7, 9] = True
    shot = read_support({"a": (ONE.pixels, point)}).shots[0]
    assert (int(shot.foreground.sum()), int(shot.background.sum())) == (1, 40 * 56 - 1)


# --- forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "support, shots",
    [
        ((ONE.pixels, MASK), 1),
        ([(ONE.pixels, MASK)], 1),
        (([ONE.pixels, TWO.pixels], [MASK, Box(1, 1, 9, 9)]), 2),
        (((ONE.pixels, MASK), (TWO.pixels, Box(1, 1, 9, 9))), 2),
        ([(ONE.pixels, MASK), [TWO.pixels, Box(1, 1, 9, 9)]], 2),
        ({"object": ((ONE.pixels, MASK), (TWO.pixels, Box(1, 1, 9, 9)))}, 2),
        (pair_up(ONE.pixels, MASK), 1),
        (pair_up([ONE.pixels], [MASK]), 1),
    ],
)
def test_one_class_in_many_forms(support: object, shots: int) -> None:
    read = read_support(support)
    assert read.classes == ("object",)
    assert len(read) == shots
    np.testing.assert_array_equal(read.shots[0].foreground, MASK)


@pytest.mark.parametrize(
    "images, annotations", [([1, 2], [3]), ([1], [2, 3]), ([1], 2), (1, [2]), ([], [1])]
)
def test_lists_of_unequal_length(images: object, annotations: object) -> None:
    with pytest.raises(InputError, match=r"pictures and .* annotations"):
        pair_up(images, annotations)
    with pytest.raises(InputError):
        read_support((images, annotations))


SHOT = (ONE.pixels, MASK)


@pytest.mark.parametrize(
    "support, word",
    [
        ({}, "1 to 254 classes, got 0"),
        ({f"class {i}": SHOT for i in range(255)}, "got 255"),
        (None, "NoneType"),
        (ONE.pixels, "ndarray"),
        ("support", "str"),
        ({"a": []}, "class 'a'.*empty list"),
        ({"a": ()}, "class 'a'.*empty list"),
        ({"a": None}, "class 'a'.*NoneType"),
        ({"a": ONE.pixels}, "class 'a'.*ndarray"),
        ({"a": [SHOT, ONE.pixels]}, "class 'a', shot 2.*ndarray"),
        ({"a": [SHOT, (ONE.pixels,)]}, "class 'a', shot 2.*tuple of 1"),
        ({"a": [SHOT, (ONE.pixels, MASK, MASK)]}, "class 'a', shot 2.*tuple of 3"),
        ({"": SHOT}, "printable name"),
        ({" a": SHOT}, "spaces"),
        ({"a\nb": SHOT}, "printable"),
        ({"x" * 101: SHOT}, "100 characters"),
        ({3: SHOT}, "class 3"),
        ({"Background": SHOT}, "reserved"),
    ],
)
def test_supports_that_are_refused(support: object, word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_support(support)


@pytest.mark.parametrize(
    "shot, word",
    [
        ((ONE.pixels, np.zeros((40, 56), bool)), "class 'bolt', shot 2, mask: .*an empty mask"),
        ((ONE.pixels, MASK[:20]), "class 'bolt', shot 2, mask: expected the size"),
        ((ONE.pixels, MASK.T), "class 'bolt', shot 2, mask: .*swapped"),
        ((ONE.pixels, MASK * 3), "class 'bolt', shot 2, mask: .*values 0, 3"),
        ((ONE.pixels, MASK * np.nan), "class 'bolt', shot 2, mask: .*not finite"),
        ((ONE.pixels, None), "class 'bolt', shot 2, mask"),
        ((ONE.pixels, (1, 2, 3, 4)), "class 'bolt', shot 2, mask"),
        ((ONE.pixels, Box(0, 0, 57, 4)), "class 'bolt', shot 2, box"),
        ((ONE.pixels, Scribble([(60, 5)])), "class 'bolt', shot 2, scribble"),
        ((b"text", MASK), "class 'bolt', shot 2, image"),
        ((ONE.pixels.astype(float), MASK), "class 'bolt', shot 2, image: .*float64"),
    ],
)
def test_errors_name_class_and_shot(shot: tuple[Any, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_support({"nut": SHOT, "bolt": [SHOT, shot]})


# --- shared pictures ----------------------------------------------------------------------------


def test_equal_pixels_are_one_picture() -> None:
    support = read_support(
        {
            "a": [(ONE.pixels, DISC), (encode(ONE.pixels), SQUARE)],
            "b": [(TWO.pixels, Box(0, 0, 9, 9))],
        }
    )
    assert support.shots[0].picture is support.shots[1].picture
    assert len({id(shot.picture) for shot in support}) == 2
    changed = ONE.pixels.copy()
    changed[-1, -1, -1] ^= 1
    support = read_support({"a": [(ONE.pixels, DISC), (changed, SQUARE)]})
    assert len({id(shot.picture) for shot in support}) == 2


def test_other_classes_are_not_unclaimed() -> None:
    support = read_support(
        {
            "disc": (ONE.pixels, DISC),
            "square": (ONE.pixels, SQUARE),
            "bar": (TWO.pixels, Box(0, 0, 9, 9)),
        }
    )
    disc, square, bar = support
    np.testing.assert_array_equal(disc.background, ~DISC)
    np.testing.assert_array_equal(disc.unclaimed, ~(DISC | SQUARE))
    np.testing.assert_array_equal(square.background, ~SQUARE)
    np.testing.assert_array_equal(square.unclaimed, disc.unclaimed)
    np.testing.assert_array_equal(bar.unclaimed, bar.background)


def test_instances_of_one_class_are_no_background_of_each_other() -> None:
    first, second = read_support({"a": [(ONE.pixels, DISC), (ONE.pixels, SQUARE)]})
    for shot, own in ((first, DISC), (second, SQUARE)):
        np.testing.assert_array_equal(shot.foreground, own)
        np.testing.assert_array_equal(shot.background, ~(DISC | SQUARE))
        np.testing.assert_array_equal(shot.unclaimed, shot.background)


def test_ignored_pixels_of_others_are_not_unclaimed() -> None:
    mask = SQUARE.astype(np.uint8)
    mask[:3] = 255
    disc, _ = read_support({"disc": (ONE.pixels, DISC), "square": (ONE.pixels, mask)})
    np.testing.assert_array_equal(disc.unclaimed, ~DISC & (mask == 0))
    np.testing.assert_array_equal(disc.background, ~DISC)


def test_claims_of_boxes_and_scribbles() -> None:
    scribble = Scribble([(30, 30), (34, 30)], width=2)
    disc, box, scribbled = read_support(
        {
            "disc": (ONE.pixels, DISC),
            "box": (ONE.pixels, Box(40, 0, 56, 10)),
            "scribble": (ONE.pixels, scribble),
        }
    )
    claimed = (box.foreground | scribbled.possible) > 0
    assert claimed.sum() > scribbled.foreground.sum() + box.foreground.sum()
    np.testing.assert_array_equal(disc.unclaimed > 0, ~DISC & ~claimed)


def test_when_claims_leave_nothing_only_marks_are_taken_out() -> None:
    """A scribble whose surroundings and a box cover all that the other leaves as background."""
    box = Box(0, 0, 56, 38)
    bottom = Box(0, 37, 56, 40)
    first, second = read_support({"a": (ONE.pixels, box), "b": (ONE.pixels, bottom)})
    assert not first.unclaimed.any()  # both mark all of it: nothing is left
    stroke = Scribble([(5, 39), (50, 39)], background=[(5, 30)], width=1)
    first, second = read_support({"a": (ONE.pixels, box), "b": (ONE.pixels, stroke)})
    assert first.unclaimed.any()
    assert not (first.unclaimed & second.foreground).any()


def test_overlapping_masks_count_for_both() -> None:
    both = DISC | BAR
    disc, bar = read_support({"disc": (ONE.pixels, both), "bar": (ONE.pixels, BAR)})
    assert (disc.foreground & bar.foreground).sum() == BAR.sum()
    np.testing.assert_array_equal(bar.unclaimed > 0, ~both)


def test_a_turned_copy_does_not_lend_its_orientation() -> None:
    """The same square picture, once upright and once turned: each mask follows its own file."""
    square = scene(48, 48, seed=5, noise=0)
    disc = square.masks["red disc"]
    support = read_support(
        {"a": [(square.pixels, disc), (turned(square.pixels, 6, "PNG"), stored(disc, 6))]}
    )
    for shot in support:
        np.testing.assert_array_equal(shot.foreground, disc)
    assert len(support.warnings) == 1
    assert support.warnings[0].startswith("class 'a', shot 2, mask: ")
    assert support.shots[0].warnings == ()


# --- auxiliary ----------------------------------------------------------------------------------


def test_auxiliary_pictures() -> None:
    support = read_support(
        {"a": SHOT, "b": (TWO.pixels, Box(0, 0, 9, 9))},
        {"b": [encode(ONE.pixels), OTHER.pixels], "a": OTHER.pixels},
    )
    assert [way for way, _ in support.auxiliary] == [1, 1, 0]
    np.testing.assert_array_equal(support.auxiliary[0][1].pixels, ONE.pixels)
    assert support.auxiliary[1][1] is support.auxiliary[2][1]  # equal pictures are encoded once
    assert len(support) == 2
    assert support.warnings == ()


def test_equal_auxiliary_pictures_count_once() -> None:
    """Labelled pictures of the class, too; that a picture shows two classes is no mistake."""
    support = read_support(
        {"a": SHOT, "b": (TWO.pixels, Box(0, 0, 9, 9))},
        {"b": [OTHER.pixels, TWO.pixels, ONE.pixels, encode(OTHER.pixels)], "a": [OTHER.pixels]},
    )
    assert [way for way, _ in support.auxiliary] == [1, 1, 0]
    assert support.warnings == (
        "auxiliary, class 'b', image 2: left out, the same as a labelled one",
        "auxiliary, class 'b', image 4: left out, the same as image 1",
    )
    almost = OTHER.pixels.copy()
    almost[20, 17] ^= 1
    assert len(read_support({"a": SHOT}, {"a": [OTHER.pixels, almost]}).auxiliary) == 2


@pytest.mark.parametrize(
    "auxiliary, word",
    [
        ([ONE.pixels], "auxiliary: .*mapping"),
        ({"c": [ONE.pixels]}, "auxiliary, class 'c': .*'a'"),
        ({"a": [ONE.pixels, b"text"]}, "auxiliary, class 'a', image 2"),
        ({"a": [ONE.pixels.astype(float)]}, "auxiliary, class 'a', image 1"),
    ],
)
def test_auxiliary_pictures_that_are_refused(auxiliary: object, word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_support({"a": SHOT}, auxiliary)


def test_a_picture_that_was_read_is_taken_as_it_is() -> None:
    picture = read_image(ONE.pixels)
    assert read_support({"a": (picture, MASK)}).shots[0].picture is picture
