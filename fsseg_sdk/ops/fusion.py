"""Pictures that carry only a class's name sharpen its prototype: soft_pool, prototype_fusion.

PAIA, equations 2 to 5; csrc/soft_pool and csrc/prototype_fusion define every symbol. N classes, P
parts of the background, B pictures.
"""

from __future__ import annotations

from typing import NamedTuple

from . import checks
from .checks import FloatArray
from .places import HOST, Place, place_of
from .runtime import choose_threads

__all__ = ["Fusion", "SoftPool", "ThresholdMlp", "prototype_fusion", "soft_pool"]

LARGEST_SCALE = 1e30
MOST_HIDDEN = 4096
MOST_STEPS = 1000
STATISTICS = 5
SMALLEST_MEAN = 1e-6
"""A mean distance below this is rounding: every cell equals the prototype."""


class SoftPool(NamedTuple):
    """What each picture says about each class."""

    vectors: FloatArray
    """``[B, N, C]``; zero where mass is 0."""
    mass: FloatArray
    """``[B, N]``: in cells, the sum of what the cells counted."""


class ThresholdMlp(NamedTuple):
    """The network that finds a class's threshold from five statistics of its distances.

    ``output_weight . tanh(hidden_weight . five + hidden_bias) + output_bias``; arrays float32.
    """

    hidden_weight: FloatArray
    """``[H, 5]``: min, max, variance, skewness, kurtosis of distances divided by their mean."""
    hidden_bias: FloatArray
    """``[H]``"""
    output_weight: FloatArray
    """``[H]``"""
    output_bias: float


class Fusion(NamedTuple):
    """What ``prototype_fusion`` found."""

    prototypes: FloatArray
    """``[P + N, C]``: the background's as they were given, then the classes'."""
    sums: FloatArray
    """``[N, C]``: those given and the vectors that the last step added."""
    counts: FloatArray
    """``[N]``: likewise, how many vectors that are."""
    mass: FloatArray
    """``[steps, B, N]``: in cells, what each picture gave to each class."""
    thresholds: FloatArray
    """``[steps, N]``: gamma, in mean distances; infinite where not distilled."""


def soft_pool(
    features: object,
    prototypes: object,
    ways: object,
    *,
    parts: int = 1,
    scale: float = 20.0,
    radius: object = None,
    weights: object = None,
    threads: int | None = None,
) -> SoftPool:
    """The mean of the features of those cells of a picture that a class wins, by how likely it is.

    A cell counts ``y * weight`` for class c if c has the largest score, ``scale * cosine`` (of the
    background's parts the largest; ties go to the background, then to the lowest class), and if
    ``1 - cosine < radius[c]``; y is the softmax over background and classes (PAIA eq. 2 and 4). One
    pass over the features; no map of probabilities is made.

    features: ``[B, C, h, w]`` float32. prototypes: ``[parts + N, C]`` float32, the background's
    first. ways: ``[B]`` int64, the one class that the picture speaks for; -1: all. radius:
    ``[N]`` float32, or None: every cell is near enough. weights: ``[B, h, w]`` float32 of 0 or
    more, e.g. how much of a cell is picture, or None. Raises InputError.
    """
    place = place_of(features, "features")
    f = checks.planes(features, "features", place=place, halves=True)
    p = checks.rows(prototypes, "prototypes", (2,), "[parts + N, C]", place)
    if p.shape[1] != f.shape[1]:
        checks.agree(p.shape[1:], f.shape[1:2], "prototypes", "channels of features:")
    count = checks.whole(parts, "parts", 1, p.shape[0] - 1)
    classes = p.shape[0] - count
    w = checks.cell_weights(weights, "weights", f, place)
    r = None if radius is None else checks.matrix(radius, "radius", 1, "[N]", place)
    if r is not None and r.shape[0] != classes:
        checks.agree(r.shape, (classes,), "radius", "number of classes:")
    vectors = place.empty((f.shape[0], classes, f.shape[1]))
    mass = place.empty(vectors.shape[:2])
    of = checks.ways(ways, "ways", f, classes, place)
    factor = checks.within(scale, "scale", 0.0, LARGEST_SCALE)
    out = (vectors, mass, choose_threads(threads))
    if not place.kernels.soft_pool(f, p, of, count, factor, r, w, *out):
        checks.no_negative(w, "weights")
        given = checks.given(features=f, prototypes=p, radius=r, weights=w)
        checks.blame(given, "Scale the features down.")
    return SoftPool(vectors, mass)


def prototype_fusion(
    features: object,
    ways: object,
    background: object,
    sums: object,
    counts: object,
    *,
    steps: int,
    scale: float = 20.0,
    distilled: bool = True,
    threshold: ThresholdMlp | None = None,
    radius: float = 1.0,
    weights: object = None,
    threads: int | None = None,
) -> Fusion:
    """Predict, pool, fuse, again (PAIA eq. 3 to 5): all steps in one call.

    A step pools each picture with the prototypes of the step before (``soft_pool``) and makes each
    class's prototype anew: ``(sums + sum of vectors) / (counts + number of vectors)``, where
    vectors of mass 0 are not counted. A cell is near enough if ``d / m < gamma``: d its distance,
    ``1 - cosine``, m the mean of all cells of all pictures (by weights), gamma from ``threshold``,
    or ``radius`` if that is None. Means below 1e-6 make d / m 0; constant distances make it 1.
    distilled False: every cell is near enough.

    features: ``[B, C, h, w]`` float32; B may be 0. ways: ``[B]`` int64, the one class that the
    picture speaks for; -1: all. background: ``[P, C]`` float32, stays as it is. sums: ``[N, C]``
    float32, the sum of the support's vectors; counts: ``[N]`` float32, how many they are. steps: 0
    or more. weights: ``[B, h, w]`` float32 of 0 or more, or None. Raises InputError.
    """
    place = place_of(features, "features")
    none = checks.as_array(ways, "ways").size == 0
    f = checks.planes(features, "features", empty=none, place=place, halves=True)
    b = checks.rows(background, "background", (2,), "[P, C]", place)
    s = checks.matrix(sums, "sums", 2, "[N, C]", place)
    n = checks.matrix(counts, "counts", 1, "[N]", place)
    for array, name in ((b, "background"), (s, "sums")):
        if array.shape[1] != f.shape[1]:
            checks.agree(array.shape[1:], f.shape[1:2], name, "channels of features:")
    if n.shape[0] != s.shape[0]:
        checks.agree(n.shape, s.shape[:1], "counts", "rows of sums:")
    w = checks.cell_weights(weights, "weights", f, place)
    classes, rounds = s.shape[0], checks.whole(steps, "steps", 0, MOST_STEPS)
    found = Fusion(
        place.empty((b.shape[0] + classes, f.shape[1])),
        place.empty(s.shape),
        place.empty(n.shape),
        place.empty((rounds, f.shape[0], classes)),
        place.empty((rounds, classes)),
    )
    net = None if threshold is None else _network(threshold, place)
    factor = checks.within(scale, "scale", 0.0, LARGEST_SCALE)
    constant = checks.number(radius, "radius")
    of = checks.ways(ways, "ways", f, classes, place)
    if place is HOST:  # elsewhere a look would wait for the device
        checks.no_negative(n, "counts")
    numbers = (factor, bool(distilled), net, constant)
    if not place.kernels.prototype_fusion(
        f, of, b, s, n, *numbers, w, tuple(found), choose_threads(threads)
    ):
        checks.no_negative(w, "weights")
        given = checks.given(background=b, sums=s, counts=n, features=f, weights=w)
        if net is not None:
            given["threshold.hidden_weight"] = net.hidden_weight
            given["threshold.hidden_bias"] = net.hidden_bias
            given["threshold.output_weight"] = net.output_weight
        checks.blame(given, "Scale the features and the threshold's weights down.")
    return found


def _network(threshold: ThresholdMlp, place: Place) -> ThresholdMlp:
    if not isinstance(threshold, tuple) or len(threshold) != 4:
        checks.refuse("threshold", "a ThresholdMlp or None", type(threshold).__name__, "Pass one.")
    hidden_weight = checks.matrix(threshold[0], "threshold.hidden_weight", 2, "[H, 5]", place)
    hidden_bias = checks.matrix(threshold[1], "threshold.hidden_bias", 1, "[H]", place)
    output_weight = checks.matrix(threshold[2], "threshold.output_weight", 1, "[H]", place)
    hidden = hidden_bias.shape[0]
    if hidden > MOST_HIDDEN:
        wanted = f"at most {MOST_HIDDEN} hidden units"
        checks.refuse("threshold.hidden_bias", wanted, str(hidden), "Use a smaller network.")
    for array, name, shape in (
        (hidden_weight, "threshold.hidden_weight", (hidden, STATISTICS)),
        (output_weight, "threshold.output_weight", (hidden,)),
    ):
        if array.shape != shape:
            checks.agree(array.shape, shape, name, "units of threshold.hidden_bias:")
    output_bias = checks.number(threshold[3], "threshold.output_bias")
    return ThresholdMlp(hidden_weight, hidden_bias, output_weight, output_bias)
