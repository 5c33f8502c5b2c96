"""Auxiliary pictures: they show a class and are not labelled any further."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from .errors import InputError
from .image import Picture, read_image

__all__ = ["read_auxiliary"]


def read_auxiliary(
    auxiliary: object, classes: Sequence[str], labelled: Sequence[tuple[int, Picture]]
) -> tuple[tuple[tuple[int, Picture], ...], tuple[str, ...]]:
    """((way, picture) of each, notes). Read and check {class name: picture or list of pictures};
    None is no pictures.

    classes: those that have labelled pictures; labelled: (way, picture) of these. A picture counts
    once for a class, and not at all where it is one of its labelled ones; a note says which was
    left out. Equal pictures of different classes share one `Picture` object. Raises InputError
    naming class and picture.
    """
    if auxiliary is None:
        return (), ()
    if not isinstance(auxiliary, Mapping):
        raise InputError(
            "auxiliary",
            expected="a mapping {class name: pictures}",
            got=type(auxiliary).__name__,
            remedy='Pass {"bolt": [image, ...]}.',
        )
    read: list[tuple[int, Picture]] = []
    notes: list[str] = []
    known = _Seen()
    for name, given in auxiliary.items():
        if name not in classes:
            raise InputError(
                f"auxiliary, class {name!r}",
                expected=f"a class of the support ({', '.join(map(repr, classes[:8]))})",
                got="another name",
                remedy="Give the class a labelled picture, too.",
            )
        way, seen = classes.index(name), _Seen()
        for picture in (shown for marked, shown in labelled if marked == way):
            seen.find(picture, "a labelled one")
        pictures = list(given) if isinstance(given, (list, tuple)) else [given]
        for number, image in enumerate(pictures, 1):
            picture = read_image(image, f"auxiliary, class {name!r}, image {number}")
            called = f"image {number}"
            if isinstance(image, (str, os.PathLike)):
                called += f" ({os.fspath(image)})"
            other, same = seen.find(picture, called)
            if same != called:
                notes.append(f"auxiliary, class {name!r}, {called}: left out, the same as {same}")
            else:
                read.append((way, known.find(other, called)[0]))
    return tuple(read), tuple(notes)


class _Seen:
    """Finds pictures with equal pixels. Only those are compared whole that agree in every 31st
    pixel of every 31st row: that costs next to nothing beside decoding or encoding one."""

    def __init__(self) -> None:
        self._alike: dict[tuple[tuple[int, int], bytes], list[tuple[Picture, str]]] = {}

    def find(self, picture: Picture, name: str) -> tuple[Picture, str]:
        """The first equal picture and what it was called; this one, if there was none before."""
        alike = self._alike.setdefault((picture.size, picture.pixels[::31, ::31].tobytes()), [])
        for other, called in alike:
            if np.array_equal(other.pixels, picture.pixels):
                return other, called
        alike.append((picture, name))
        return picture, name
