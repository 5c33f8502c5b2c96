"""Auxiliary pictures: they show a class and are not labelled any further."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from .errors import InputError
from .image import Picture, read_image
from .seen import Seen

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
    known = Seen()
    for name, given in auxiliary.items():
        if name not in classes:
            raise InputError(
                f"auxiliary, class {name!r}",
                expected=f"a class of the support ({', '.join(map(repr, classes[:8]))})",
                got="another name",
                remedy="Give the class a labelled picture, too.",
            )
        way, seen = classes.index(name), Seen()
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
