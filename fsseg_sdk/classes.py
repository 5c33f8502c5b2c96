"""The outer shape of a support: which classes, and which (picture, annotation) pairs each has."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import InputError

__all__ = ["MAX_CLASSES", "pair_up", "read_classes"]

MAX_CLASSES = 254  # labels are uint8, 0 is background and 255 stays free for "ignore"
Pair = tuple[object, object]  # a picture and its annotation, neither looked at yet


def pair_up(images: object, annotations: object, name: str = "object") -> dict[str, object]:
    """A picture and its annotation, or two lists of equal length, as input of `read_support`."""
    many = [isinstance(value, (list, tuple)) for value in (images, annotations)]
    if not any(many):
        return {name: (images, annotations)}
    left = list(images) if isinstance(images, (list, tuple)) else [images]
    right = list(annotations) if isinstance(annotations, (list, tuple)) else [annotations]
    if len(left) != len(right) or not all(many):
        raise InputError(
            "support",
            expected="as many annotations as pictures",
            got=f"{len(left)} pictures and {len(right)} annotations",
            remedy="Pass two lists of the same length.",
        )
    return {name: list(zip(left, right, strict=True))}


def read_classes(support: object) -> dict[str, list[Pair]]:
    """{class name: [(picture, annotation), ...]} of whatever `read_support` takes."""
    if isinstance(support, tuple) and len(support) == 2 and not _is_pair(support[0]):
        support = pair_up(*support)
    elif isinstance(support, (list, tuple)):
        support = {"object": support}
    if not isinstance(support, Mapping):
        raise InputError(
            "support",
            expected="a mapping {class name: shots} or a pair (picture, annotation)",
            got=type(support).__name__,
            remedy='Pass {"bolt": [(image, mask), ...]}.',
        )
    if not 1 <= len(support) <= MAX_CLASSES:
        raise InputError(
            "support",
            expected=f"1 to {MAX_CLASSES} classes",
            got=f"{len(support)}",
            remedy="Use several tasks for more classes." if support else "Give at least one class.",
        )
    return {_class_name(name): _shots(name, given) for name, given in support.items()}


def _class_name(name: object) -> str:
    if isinstance(name, str) and 1 <= len(name) <= 100 and name.isprintable():
        stripped = name.strip().lower()
        if stripped != "background" and len(stripped) == len(name):
            return name
    raise InputError(
        f"class {name!r}"[:120],
        expected="a printable name of 1 to 100 characters, without spaces around it",
        got="a reserved name" if str(name).lower() == "background" else repr(name)[:60],
        remedy="Rename the class.",
    )


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _shots(name: object, given: object) -> list[Pair]:
    items = list(given) if isinstance(given, (list, tuple)) else None
    if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], (tuple, list)):
        items = [given]
    if not items:
        raise InputError(
            f"class {name!r}",
            expected="one shot (picture, annotation) or a list of shots",
            got="an empty list" if items == [] else type(given).__name__,
            remedy="Give every class at least one labelled picture.",
        )
    for number, item in enumerate(items, 1):
        if not (isinstance(item, (tuple, list)) and len(item) == 2):
            raise InputError(
                f"class {name!r}, shot {number}",
                expected="a pair (picture, annotation)",
                got=f"a {type(item).__name__}"
                + (f" of {len(item)}" if isinstance(item, (tuple, list)) else ""),
                remedy="Pass (image, mask), (image, Box(...)) or (image, Scribble(...)).",
            )
    return [(item[0], item[1]) for item in items]
