"""The published checkpoints of SMCP under this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# of the published encoder's list of layers: pool4 is taken out of it, and fc6 and fc7 end it
_AFTER_POOL4, _FC = 23, {29: "fc6.0", 31: "fc7.0"}
_HEAD = {
    r"feat_rd\.0": "fuse",
    r"pyramid_m\.p1\.0": "levels.0",
    r"pyramid_m\.p2\.0": "levels.1",
    r"pyramid_m\.p3\.0": "levels.2",
    r"pyramid_m\.feat_fuse\.0": "deepen.0",
    r"pyramid_m\.feat_fuse\.2": "deepen.1",
    r"pyramid_m\.residule1\.(\d)": r"blocks.0.\1",
    r"pyramid_m\.residule2\.(\d)": r"blocks.1.\1",
    r"classifier_2\.conv2d_list\.(\d)": r"classifier.parts.\1",
}


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors ``encoder.*`` of ``vgg16_smcp`` and ``head.*`` of the head's form "official".

    The classifier of 21 classes is left out.

    Raises:
        ValueError: a tensor is none of that network's.
    """
    found = {}
    for name, tensor in state.items():
        plain = name.removeprefix("module.")
        if not plain.startswith("classifier."):
            found[_renamed(plain)] = tensor
    return found


def _renamed(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    if match := re.fullmatch(r"features\.(\d+)", layer):
        number = int(match[1])
        own = _FC.get(number, f"features.{number + (number >= _AFTER_POOL4)}")
        return f"encoder.{own}.{kind}"
    for pattern, own in _HEAD.items():
        if match := re.fullmatch(pattern, layer):
            return f"head.{match.expand(own)}.{kind}"
    raise ValueError(
        f"{name}: expected the name of a tensor of SMCP's published network. Hand in the state "
        "dict of one of its checkpoints, with `module.` before the names or without."
    )
