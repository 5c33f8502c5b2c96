"""Named evaluation protocols: what is drawn, at what size it is seen, and what is counted.

Each follows a published code base, as far as it can be followed with one method and one runtime:

- Pool: the papers take VOC's val pictures (PANet: the training ones). Sets with fewer pictures
  than VOC have too few of either, so here the pool of a fold is every picture, train and val,
  that shows one of its novel classes; nothing of it may be trained on. On the whole of VOC or
  COCO, `--pool val` leaves the pictures of split "train" out.
- Runs: the papers average 1 to 5 runs of 1,000 to 5,000 episodes; here every protocol has five
  lists of 1,000 (COCO: as many as are asked for), so that figures have a spread.
- K shots are joined by the method's own rule (PANet: mean of prototypes), whatever the protocol.
- The support's mask is pooled at the picture's own size. A support picture of one class may show
  another class of the episode, unmarked: that is background, as it would be for a user.
- Labels are resized by nearest neighbour between centres of pixels, as Pillow does it. Where a
  code base names no rule, or one that differs by half a pixel, that is our reading.
- "native" is the size of the pictures on disk. Sets that were scaled down are not VOC's native.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.datasets import Dataset, Fold, classes_of, fold_by_split, fold_of

VOC_AREA = 500 * 375
"""Pixels of a typical VOC picture; limits in pixels are fractions of it, whatever the size here."""

Sampling = Literal["class", "pairs", "pictures", "picture"]
SAMPLING: dict[Sampling, str] = {
    "class": "a class by lot, then a query and supports of it",
    "pairs": "the list of (picture, class) in order, going on where the last run stopped",
    "pictures": "the list of pictures in order, each with one of its classes by lot",
    "picture": "a picture by lot, then one of its classes by lot",
}


@dataclass(frozen=True)
class Protocol:
    """side: of the encoder's input; None: the picture's own size.

    geometry: "squash" to side x side, or "fit": keep the aspect, pad right and below.
    count_at: IoU is counted at the input's size (truth by nearest neighbour) or at the picture's.
    query_ignore: 255 in the query counts nowhere ("leave out") or as "background".
    support_ignore: 255 in the support is in no prototype ("leave out") or is "background".
    least_query, least_support: fractions of the picture that the class covers at least.
    coco: the COCO split that belongs to it.
    published: how many episodes the paper's code runs, and with which seeds.
    """

    name: str
    sampling: Sampling
    side: int | None
    geometry: Literal["squash", "fit"]
    count_at: Literal["input", "picture"]
    query_ignore: Literal["leave out", "background"] = "leave out"
    support_ignore: Literal["leave out", "background"] = "leave out"
    least_query: float = 0.0
    least_support: float = 0.0
    coco: Literal["coco-20i-contiguous", "coco-20i-interleaved"] = "coco-20i-contiguous"
    published: str = ""

    def input_size(self, picture: tuple[int, int], multiple: int = 1) -> tuple[int, int]:
        """(H, W) of the encoder's input; sides rounded to the nearest ``multiple`` (of a ViT's
        patch)."""
        wanted = picture if self.side is None else (self.side, self.side)
        height, width = (max(1, round(n / multiple)) * multiple for n in wanted)
        return height, width

    def counted(self, picture: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """Where IoU is counted: name -> (H, W). The protocol's own comes first, native is always
        there."""
        sizes = {}
        if self.count_at == "input" and self.side is not None:
            sizes[f"{self.side}x{self.side}"] = (self.side, self.side)
        return {**sizes, "native": picture}

    def lines(self, pool: str = "all pictures, train and val,") -> list[str]:
        """What it says, in words."""
        side = "the picture's own size" if self.side is None else f"{self.side} pixels"
        how = "" if self.side is None else f", {self.geometry}"
        least = [
            f"{what} of {100 * value:.1f} % of the picture or more"
            for what, value in (("queries", self.least_query), ("supports", self.least_support))
            if value
        ]
        return [
            f"{self.name}: {SAMPLING[self.sampling]}; input {side}{how}; IoU counted at the "
            f"{self.count_at}'s size; 255 in a query: {self.query_ignore}, in a support: "
            f"{self.support_ignore}" + (f"; {' and '.join(least)}" if least else "") + ".",
            f"Published runs: {self.published}. Test pool here: {pool} that show a novel class.",
        ]


PANET_417 = Protocol(
    name="panet-417",
    sampling="class",
    side=417,
    geometry="squash",
    count_at="input",
    support_ignore="background",
    published="5 x 1,000, seeds 1234 to 1238, pictures of trainaug",
)
"""PANet and SMCP. In episodes of several classes, PANet counts a class's false positives only where
the query shows the class: the row "present"."""

HSNET_400 = Protocol(
    name="hsnet-400",
    sampling="pairs",
    side=400,
    geometry="squash",
    count_at="input",
    support_ignore="background",
    coco="coco-20i-interleaved",
    published="1 x 1,000, seed 0, pictures of val",
)
"""HSNet. Its VOC code leaves 255 out of queries; its COCO masks have none. K shots there are K
votes of a 1-shot model."""

PFENET_473 = Protocol(
    name="pfenet-473",
    sampling="pictures",
    side=473,
    geometry="fit",
    count_at="picture",
    least_query=2 * 32 * 32 / VOC_AREA,
    least_support=2 * 32 * 32 / VOC_AREA,
    coco="coco-20i-interleaved",
    published="5,000 (COCO 20,000 at 641 pixels), seed 321, pictures of val",
)
"""PFENet's own size and padding. Objects under 2,048 pixels are left out; its sides are rounded to
multiples of 8, here they are exact. Its COCO runs see 641 pixels; here all sets
are seen at 473."""

MLC_NATIVE = Protocol(
    name="mlc-native",
    sampling="picture",
    side=None,
    geometry="squash",
    count_at="picture",
    least_support=2048 / VOC_AREA,
    published="5 x 1,000 (COCO 5 x 4,000), seeds 0 to 4, pictures of val",
)
"""MLC, SSP and SPFL: pictures go through the encoder as they are. A bundle has one input size, and
uses that."""

OSLSM_1000 = Protocol(
    name="oslsm-1000",
    sampling="picture",
    side=500,
    geometry="squash",
    count_at="input",
    query_ignore="background",
    support_ignore="background",
    published="1 x 1,000, pictures of val",
)
"""OSLSM. Its support branch sees 224 pixels; here support and query go through one encoder. Its
labels are binary; that 255 counts as not of the class, and that the query is squashed to 500, are
our reading."""

PROTOCOLS = {p.name: p for p in (PANET_417, HSNET_400, PFENET_473, MLC_NATIVE, OSLSM_1000)}


def protocol_of(name: str) -> Protocol:
    """
    Raises:
        ValueError: no protocol has that name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


def fold_for(data: Dataset, protocol: Protocol, number: int) -> Fold:
    """The fold of this number: PASCAL-5i or the protocol's COCO-20i by the names of the classes.

    Any other set has fold 0 alone: the classes of its pictures split "test" where it is split by
    class (FSS-1000), else all its classes, as of a set that nothing was trained on.

    Raises:
        ValueError: no such fold.
    """
    names = data.class_names
    if known := classes_of(names):
        return fold_of(protocol.coco if known == "coco-20i" else known, number)
    if number != 0:
        raise ValueError(
            f"fold: {data.name} has neither VOC's nor COCO's classes, so it has one fold: "
            f"expected 0, got {number}. Add --folds 0."
        )
    if any(sample.split == "test" for sample in data.samples):
        try:
            return fold_by_split(data.samples)
        except ValueError:  # a class in both: not split by class
            pass
    return Fold("all", 0, (), tuple(range(1, len(names))))
