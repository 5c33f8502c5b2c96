"""The labelled pictures of a task: classes, shots, and which pixels stand for what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .annotation import Box, Marked, Scribble
from .auxiliary import read_auxiliary
from .classes import MAX_CLASSES, pair_up, read_classes
from .errors import InputError
from .image import Picture, load_mask, read_image
from .seen import Seen

__all__ = ["MAX_CLASSES", "Box", "Scribble", "Shot", "Support", "pair_up", "read_support"]

_Plane = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Shot:
    """One labelled picture of one class. All planes are uint8 [H, W] of 0 and 1.

    way: 0..N-1; name: "class 'bolt', shot 2"; kind: how it was annotated.
    foreground: pixels of the class. background: pixels that are not of the class; ignored pixels
    are in neither. unclaimed: the part of background that no shot of the same picture, of
    whatever class, claims. possible: where the class may be: the mask, the inside of the box, or
    the surroundings of the strokes. warnings: what the user should know about this shot.
    """

    way: int
    name: str
    picture: Picture
    foreground: _Plane
    background: _Plane
    unclaimed: _Plane
    possible: _Plane
    kind: Literal["mask", "box", "scribble"]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Support:
    """classes in the order of their labels 1..N; shots by class, then in the order given;
    auxiliary: (way, picture) of image-level labels; notes: what to know about these. Iterates
    over, and counts, its shots.

    Shots of pictures with equal pixels share one `Picture` object, so each is encoded once.
    """

    classes: tuple[str, ...]
    shots: tuple[Shot, ...]
    auxiliary: tuple[tuple[int, Picture], ...] = ()
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Shot]:
        return iter(self.shots)

    def __len__(self) -> int:
        return len(self.shots)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(text for shot in self.shots for text in shot.warnings) + self.notes


def read_support(support: object, auxiliary: object = None) -> Support:
    """Read and check labelled pictures.

    support: {class name: shot or list of shots}, in the order of the labels 1..N (254 classes at
    most); a shot is (picture, annotation), an annotation a mask, a `Box` or a `Scribble`, mixed as
    you like. A pair (picture, annotation), or a pair of equally long lists, is one class "object".
    A `Support` is taken as it is. auxiliary: as `read_auxiliary` takes them, of these classes.

    Rules. A full mask is allowed: its shot has no background. Masks of different classes may
    overlap: such a pixel counts for each of them. When one picture (equal pixels) is given several
    times, what other shots claim is taken out of a shot's `unclaimed` (shots of the same class:
    also out of its `background`): masks claim their pixels and the ignored ones, boxes their
    inside, scribbles the surroundings that they leave open; if nothing would remain, only
    marked pixels are taken out.

    Raises InputError naming class and shot ("class 'bolt', shot 2, mask").
    """
    if isinstance(support, Support) and auxiliary is None:
        return support
    classes = read_classes(support)
    shots: list[Shot] = []
    claims: list[NDArray[np.bool_]] = []
    known = Seen(oriented=True)
    for way, (class_name, given) in enumerate(classes.items()):
        for number, (image, annotation) in enumerate(given, 1):
            name = f"class {class_name!r}, shot {number}"
            picture = read_image(image, f"{name}, image")
            picture = known.find(picture)[0]
            shot, claim = _shot(way, name, picture, annotation)
            shots.append(shot)
            claims.append(claim)
    names, labelled = tuple(classes), [(shot.way, shot.picture) for shot in shots]
    more = read_auxiliary(auxiliary, names, labelled)
    return Support(names, _share(shots, claims), *more)


def _shot(
    way: int, name: str, picture: Picture, annotation: object
) -> tuple[Shot, NDArray[np.bool_]]:
    """The shot as if it were alone, and the pixels that it claims from other shots."""
    warnings: tuple[str, ...] = ()
    kind: Literal["mask", "box", "scribble"]
    if isinstance(annotation, (Box, Scribble)):
        kind = "box" if isinstance(annotation, Box) else "scribble"
        marked = annotation.mark(picture.size, name)
        claim = marked.possible
    else:
        kind, argument = "mask", f"{name}, mask"
        mask = load_mask(annotation, picture, argument)
        if not mask.foreground.any():
            raise InputError(
                argument,
                expected="at least one pixel of the class",
                got="an empty mask",
                remedy="Leave this shot out, or mark the object in it.",
            )
        claim = mask.foreground if mask.ignore is None else mask.foreground | mask.ignore
        marked, warnings = Marked(mask.foreground, ~claim, mask.foreground), mask.warnings
    foreground, background = marked.foreground.view(np.uint8), marked.background.view(np.uint8)
    possible = marked.possible.view(np.uint8)
    shot = Shot(way, name, picture, foreground, background, background, possible, kind, warnings)
    return shot, claim


def _share(shots: Sequence[Shot], claims: Sequence[NDArray[np.bool_]]) -> tuple[Shot, ...]:
    """Take what other shots of the same picture claim out of each shot's background."""
    by_picture: dict[int, list[int]] = {}
    for index, shot in enumerate(shots):
        by_picture.setdefault(id(shot.picture), []).append(index)
    shared: list[Shot] = []
    for index, shot in enumerate(shots):
        others = [other for other in by_picture[id(shot.picture)] if other != index]
        kin = [other for other in others if shots[other].way == shot.way]
        if others:
            unclaimed = _without(shot.background, others, shots, claims)
            shot = replace(shot, unclaimed=unclaimed)
        if kin:
            shot = replace(shot, background=_without(shot.background, kin, shots, claims))
        shared.append(shot)
    return tuple(shared)


def _without(
    background: _Plane,
    others: Sequence[int],
    shots: Sequence[Shot],
    claims: Sequence[NDArray[np.bool_]],
) -> _Plane:
    """Background without what others claim, or, if that is nothing, without what they mark."""
    rest = background.copy()
    for index in others:
        rest[claims[index]] = 0
    if not rest.any():
        rest = background.copy()
        for index in others:
            rest[shots[index].foreground.view(np.bool_)] = 0
    return rest
