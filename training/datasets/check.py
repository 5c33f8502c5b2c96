"""What is wrong with a data folder: every file is read, every problem named and counted."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from training.datasets.cache import each
from training.datasets.folds import Fold
from training.datasets.indexed import Dataset
from training.datasets.sample import IGNORE, DataError, Problem, Sample

KINDS = {
    "missing": "files or folders that are not there",
    "unreadable": "files that are cut off or of another format",
    "mode": "masks that hold colours instead of class ids",
    "size": "masks of another size than their picture",
    "ids": "class ids that the set does not have",
    "index": "masks and index that say different things",
    "empty": "masks that show nothing where they should",
    "split": "pictures in two splits",
    "key": "different pictures of the same name",
    "duplicate": "the same picture in two splits, by its bytes",
    "fold": "folds that cannot be trained or tested on",
}
WARNINGS = {
    "no pictures": "classes that no picture shows",
    "few": "classes with too few pictures",
}


@dataclass
class Report:
    """problems keep a set from being used as it is; warnings are worth knowing."""

    dataset: Dataset
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """For JSON: how many pictures by split and by class, and what was found."""
        samples, names = self.dataset.samples, self.dataset.class_names
        by_class = Counter(k for sample in samples for k in sample.classes)
        return {
            "set": self.dataset.name,
            "pictures": len(samples),
            "splits": dict(sorted(Counter(sample.split for sample in samples).items())),
            "classes": {names[k]: n for k, n in sorted(by_class.items()) if k < len(names)},
            "counts": dict(Counter(problem.kind for problem in self.problems)),
            "problems": [vars(problem) for problem in self.problems],
            "warnings": [vars(warning) for warning in self.warnings],
        }

    def lines(self, most: int = 10, about: Sequence[str] = ()) -> list[str]:
        """Problems by kind, ``most`` of each, then a summary with the lines of ``about``."""
        text = []
        for kind, what in (KINDS | WARNINGS).items():
            some = [p for p in (*self.problems, *self.warnings) if p.kind == kind]
            if some:
                text.append(f"{kind}: {what}: {len(some):,}")
                text += [f"  {problem}" for problem in some[:most]]
                if len(some) > most:
                    text.append(f"  and {len(some) - most:,} more; --most 0 or --json lists all")
        facts = self.facts()
        splits = ", ".join(f"{count:,} {name}" for name, count in facts["splits"].items())
        shown, classes = len(facts["classes"]), len(class_ids(self.dataset))
        text.append(
            f"{facts['set']}: {facts['pictures']:,} pictures ({splits}), "
            f"{shown} of {classes} classes shown"
        )
        found = _counted(len(self.problems), "problem") if self.problems else "nothing wrong"
        if self.warnings:
            found += f", {_counted(len(self.warnings), 'warning')}"
        return [*text, *about, found]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Seen:
    """What reading one sample found; digest: of the picture's file, where it could be read."""

    problems: tuple[Problem, ...]
    digest: str | None


def class_ids(dataset: Dataset) -> list[int]:
    """The ids of the classes; those of sets of more than 254 leave out 255."""
    return [k for k in range(1, len(dataset.class_names)) if k != IGNORE]


def look(known: frozenset[int], sample: Sample) -> Seen:
    """Read one picture and its mask."""
    try:
        _, labels = sample.read()
    except DataError as error:
        return Seen((Problem(error.kind, sample.key, str(error)),), None)
    found = []
    drawn = {int(v) for v in np.unique(labels)} - {0, IGNORE}
    if unknown := sorted(drawn - known):
        text = f"{sample.mask}: ids {unknown} are drawn, the set's end at {max(known, default=0)}"
        found.append(Problem("ids", sample.key, f"{text}. Redraw the mask, or name the classes."))
    for classes, where in (
        (set(sample.classes) - drawn, "in the index, not in the mask"),
        (drawn - set(sample.classes) - set(unknown), "in the mask, not in the index"),
    ):
        if classes:
            text = f"{sample.mask}: classes {sorted(classes)} are {where}. Write the index anew."
            found.append(Problem("index", sample.key, text))
    digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16).hexdigest()
    return Seen(tuple(found), digest)


def examine(dataset: Dataset, workers: int = 0) -> Report:
    """Read everything; see :data:`KINDS` for what is looked for."""
    samples = dataset.samples
    known = frozenset(class_ids(dataset))
    seen = list(each(partial(look, known), samples, "pictures", workers))
    report = Report(dataset, [*dataset.problems])
    for each_seen in seen:
        report.problems += each_seen.problems
    report.problems += _listed_twice(samples)
    report.problems += _same_bytes(samples, [each_seen.digest for each_seen in seen])
    shown = Counter(k for sample in samples for k in sample.classes)
    report.warnings += [
        Problem("no pictures", dataset.class_names[k], "no picture shows this class")
        for k in class_ids(dataset)
        if not shown[k]
    ]
    return report


def _listed_twice(samples: Sequence[Sample]) -> list[Problem]:
    """Keys must be unique: lists of episodes name pictures by them."""
    by_key: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_key[sample.key].append(sample)
    found = []
    for key, same in by_key.items():
        splits = sorted({sample.split for sample in same})
        if len({sample.image for sample in same}) > 1:
            names = ", ".join(str(sample.image) for sample in same)
            found.append(Problem("key", key, f"{names}. Give each another name."))
        elif len(splits) > 1:
            text = f"in the splits {' and '.join(splits)}. Take it out of one."
            found.append(Problem("split", key, text))
        elif len(same) > 1:
            found.append(Problem("index", key, f"listed {len(same)} times. Keep one line."))
    return found


def _same_bytes(samples: Sequence[Sample], digests: Sequence[str | None]) -> list[Problem]:
    by_bytes: dict[str, list[Sample]] = defaultdict(list)
    for sample, digest in zip(samples, digests, strict=True):
        if digest is not None:
            by_bytes[digest].append(sample)
    found = []
    for same in by_bytes.values():
        different = len({sample.image for sample in same}) > 1
        if different and len({sample.split for sample in same}) > 1:
            others = ", ".join(f"{sample.key} ({sample.split})" for sample in same[1:])
            text = f"({same[0].split}) has the bytes of {others}. Take it out of one split."
            found.append(Problem("duplicate", same[0].key, text))
    return found


def examine_fold(report: Report, fold: Fold, shots: int) -> list[str]:
    """Add what keeps the fold from being used to the report; return lines about its pools."""
    dataset, title = report.dataset, f"{fold.split} fold {fold.number}"
    classes = {*fold.base, *fold.novel}
    if not classes <= set(class_ids(dataset)):
        text = f"needs {len(classes)} classes, the set has {len(class_ids(dataset))}. Name another."
        report.problems.append(Problem("fold", title, text))
        return []
    samples, names = dataset.samples, dataset.class_names
    training, test = fold.training_pool(samples), fold.test_pool(samples)
    usable = fold.usable(samples, shots)
    shown = Counter(k for sample in samples for k in sample.classes)
    for k in fold.novel:
        if 0 < shown[k] <= shots:
            text = f"{shown[k]} pictures; {shots} shots and a query need {shots + 1}"
            report.warnings.append(Problem("few", f"{title}, {names[k]}", text))
    if not usable:
        text = f"no novel class has more than {shots} pictures. Ask for fewer shots."
        report.problems.append(Problem("fold", title, text))
    if not any(sample.split == "train" for sample in training):
        text = "no picture split 'train' shows a base class and no novel one"
        report.problems.append(Problem("fold", title, f"{text}. Keep those that do."))
    kept = len(fold.training_pool([s for s in samples if s.split == "train"]))
    novel = ", ".join(f"{names[k]} {shown[k]:,}" for k in fold.novel if shown[k])
    return [
        f"{title}: {kept:,} pictures to train on, {len(test):,} show a novel class "
        f"({novel or 'none'}); {len(usable)} of {len(fold.novel)} novel classes have more than "
        f"{shots} pictures"
    ]
