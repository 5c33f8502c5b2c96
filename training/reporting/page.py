"""A page of episodes: support, query, truth, prediction; chosen by rank, not by eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk import Box, Scribble
from fsseg_sdk.overlay import draw_overlay
from training.datasets import IGNORE, Dataset
from training.evaluation.auxiliary import given_of
from training.evaluation.engine import Broken, auxiliary_rows
from training.evaluation.lists import FewShot, file_name, folder_of, load
from training.evaluation.metrics import confusion, intersections_and_unions
from training.evaluation.pictures import mark, way_labels
from training.evaluation.pool import Pool
from training.evaluation.predictor import How, Predictor, digest_of, of_bundle
from training.evaluation.protocols import Protocol, protocol_of
from training.reporting.chosen import RANKS, chosen
from training.reporting.measured import Method, Row, Section, Setting
from training.reporting.plots import WIDTH, pyplot

KEPT = 1 << 28  # bytes of features, in float16 as in an evaluation
HUE = 1  # the palette begins with an orange, which is lost on animals
COLUMNS = ("support", "query", "truth", "prediction")


@dataclass(frozen=True)
class Shown:
    """One line of the page. stored, redrawn: IoU in % as in the result, and of this prediction."""

    label: str
    stored: float
    redrawn: float
    pictures: tuple[NDArray[np.uint8], ...]


def page(
    section: Section,
    method: Method,
    data: Dataset,
    model: str,
    path: Path,
    *,
    lists: Path | None = None,
    each: int = 2,
) -> list[Shown]:
    """Run a method again on ``each`` good, median and bad episodes of every fold, and draw them.

    Args:
        model: the file that was measured: bundle, checkpoint or weights; ``{fold}`` stands for
            the fold.
        lists: folder of the lists of episodes, where it was named for the evaluation.

    Raises:
        FileNotFoundError, ValueError: the model, the pictures or the lists are not those of the
            result.
    """
    if (data.name, len(data.samples)) != (section.data["name"], section.data["pictures"]):
        raise ValueError(
            f"data: expected {section.data['name']} with {section.data['pictures']} pictures, as "
            f"in the result, got {data.name} with {len(data.samples)}"
        )
    protocol = protocol_of(section.protocol)
    setting = _setting(method)
    rows = sorted((r for (s, _), r in method.rows.items() if s == setting), key=lambda r: r.fold)
    lines = []
    for row in rows:
        of = section.data
        pool = Pool.of(data, protocol, row.fold, of.get("fewest"), of.get("pool", "all"))
        episodes = _episodes(row, pool, lists)
        predictor = _predictor(row, protocol, model.replace("{fold}", str(row.fold)))
        for name, index, iou in chosen(row, each):
            lines.append(_shown(predictor, pool, data, row, name, episodes[index], iou))
    _draw(lines, f"{method.name}: {section.title}, {setting}", each, path)
    return lines


def _setting(method: Method) -> Setting:
    """The fewest ways and shots, dense if there is such a row, at the pictures' own size."""
    native = {s for s, _ in method.rows if s.resolution == "native" and s.false_positives == "all"}
    if not native:
        raise ValueError(f"{method.name}: expected rows at the resolution native, got none")
    return min(native, key=lambda s: (s.ways, s.shots, s.annotation != "dense", s.annotation))


def _episodes(row: Row, pool: Pool, lists: Path | None) -> list[FewShot]:
    """Those of the result, with their supports."""
    folder = lists or folder_of(pool)
    shots, ways = row.setting.shots, row.setting.ways
    runs = row.entries["run"][::ways]
    episodes = []
    for seed in sorted(set(runs)):
        path = folder / file_name(pool.protocol, row.fold, shots, ways, seed)
        episodes += load(path, pool, shots, ways, seed)[: runs.count(seed)]
    listed = [(e.query, identity) for e in episodes for identity, _ in e.support]
    if listed != list(zip(row.entries["query"], row.entries["class"], strict=True)):
        raise ValueError(
            f"{folder}: expected the episodes of {row.file} in fold {row.fold}, got others. Name "
            "the folder that was evaluated with --lists."
        )
    return episodes


def _predictor(row: Row, protocol: Protocol, model: str) -> Predictor:
    """The model of a row, opened as it was for the evaluation."""
    kind, known = row.model.get("kind"), row.model.get("digest")
    how = How(
        bfloat16=row.model.get("precision") == "bf16",
        most_bytes=KEPT,
        method=row.model.get("method"),
        changes=row.model.get("settings") or {},
    )
    predictor: Predictor
    if kind == "bundle":
        predictor = of_bundle(model, how)
        digest = predictor.facts["digest"]
    elif not Path(model).is_file():
        raise FileNotFoundError(f"{model}: expected the model of {row.file}, fold {row.fold}")
    elif (digest := digest_of(Path(model))) == known:
        from training.evaluation.models import of_checkpoint, of_weights

        if kind == "raw":
            predictor = of_weights(row.model["encoder"], model, protocol, how)
        else:
            predictor = of_checkpoint(model, protocol, how)
    if digest != known:
        raise ValueError(
            f"{model}: expected the model that {row.file} was measured with in fold {row.fold} "
            f"({kind}, SHA-256 {str(known)[:12]}...), got {digest[:12]}..."
        )
    return predictor


def _shown(
    predictor: Predictor,
    pool: Pool,
    data: Dataset,
    row: Row,
    name: str,
    episode: FewShot,
    stored: float,
) -> Shown:
    protocol = pool.protocol
    identities = tuple(identity for identity, _ in episode.support)
    pixels, labels = pool.samples[episode.query].read()
    truth = way_labels(labels, identities, protocol.query_ignore)
    ways, first = [], None
    for way, (identity, keys) in enumerate(episode.support, 1):
        rows = []
        for key in keys:
            sample = pool.samples[key]
            seen, of_support = sample.read()
            marked = mark(row.setting.annotation, sample, of_support, identity, protocol)
            rows += predictor.summarise(seen, [marked])
            if first is None:
                first = _tinted(seen, marked_labels(marked, seen.shape[:2], way))
        ways.append(rows)
    given = given_of(row.figures)
    drawn = auxiliary_rows(predictor, pool, episode, given, Broken(False))
    unmarked = [each.first(given) for each in drawn]
    found = predictor.segment(pixels, ways, [truth.shape], unmarked)[0]
    right, either = intersections_and_unions(confusion(found, truth, len(ways) + 1))
    names = ", ".join(data.class_names[identity] for identity in identities)
    pictures = (
        np.zeros((1, 1, 3), np.uint8) if first is None else first,
        pixels,
        _tinted(_greyed(pixels, truth == IGNORE), np.where(truth == IGNORE, np.uint8(0), truth)),
        _tinted(pixels, found),
    )
    redrawn = 100 * float(right[1:].sum() / max(1, either[1:].sum()))
    return Shown(f"fold {row.fold}, {name}\n{names}", stored, redrawn, pictures)


def marked_labels(marked: object, size: tuple[int, ...], way: int) -> NDArray[np.uint8]:
    """``[H, W]``: ``way`` where the support is marked, else 0."""
    if isinstance(marked, (Box, Scribble)):
        shown = marked.mark((size[0], size[1]), "support").foreground
    else:
        shown = np.asarray(marked) == 1
    return np.where(shown, np.uint8(way), np.uint8(0))


def _tinted(pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return draw_overlay(pixels, np.where(labels > 0, labels + HUE, 0).astype(np.uint8), ())


def _greyed(pixels: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels that count nowhere, washed out."""
    drawn = pixels.copy()
    drawn[where] = drawn[where] // 3 + 150
    return drawn


def _draw(lines: Sequence[Shown], title: str, each: int, path: Path) -> None:
    plot: Any = pyplot()
    margin = 1.0
    across = (WIDTH - margin) / len(COLUMNS)
    heights = [
        across * min(1.0, max(p.shape[0] / p.shape[1] for p in line.pictures)) + 0.06
        for line in lines
    ]
    top = 0.85
    total = sum(heights) + top
    figure = plot.figure(figsize=(WIDTH, total))
    figure.text(0.01, 1 - 0.12 / total, title, fontsize=9, va="top", weight="bold")
    shares = ", ".join(f"{name}: {100 * share:.0f} %" for name, share in RANKS.items())
    how = (
        f"Chosen by rank: episodes sorted by IoU, {each} from each rank on, a query only once.\n"
        f"Ranks are the share that is worse ({shares}). What is washed out in the truth counts "
        "nowhere."
    )
    figure.text(0.01, 1 - 0.30 / total, how, fontsize=7, va="top")
    below = total - top
    for number, name in enumerate(COLUMNS):
        x = (margin + (number + 0.5) * across) / WIDTH
        figure.text(x, (below + 0.06) / total, name, fontsize=9, ha="center")
    for line, height in zip(lines, heights, strict=True):
        below -= height
        label = f"{line.label}\nIoU {line.redrawn:.0f} %"
        figure.text(0.01, (below + height / 2) / total, label, fontsize=8, va="center")
        for number, picture in enumerate(line.pictures):
            place = (
                (margin + number * across + 0.03) / WIDTH,
                (below + 0.03) / total,
                (across - 0.06) / WIDTH,
                (height - 0.06) / total,
            )
            axes = figure.add_axes(place)
            axes.imshow(picture)
            axes.set_axis_off()
    figure.savefig(path, dpi=150)
    plot.close(figure)
