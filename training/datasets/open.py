"""One door to every layout of a data set."""

from __future__ import annotations

from pathlib import Path

from training.datasets.coco import annotation_files, open_coco
from training.datasets.fss import fss_root, open_fss
from training.datasets.indexed import Dataset
from training.datasets.sample import DataError
from training.datasets.voc import open_voc, voc_root

LAYOUTS = ("indexed", "voc", "coco", "fss1000")
SHOWN = 5  # problems that a message names


def layout_of(path: Path) -> str:
    """Which layout a folder has.

    Raises:
        FileNotFoundError: there is no such folder, or it has none of them.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: expected a folder with a data set, got nothing there.")
    if (path / "index.jsonl").is_file():
        return "indexed"
    if annotation_files(path):
        return "coco"
    if voc_root(path) is not None:
        return "voc"
    if fss_root(path) is not None:
        return "fss1000"
    raise FileNotFoundError(
        f"{path}: expected index.jsonl (indexed), ImageSets/Segmentation/ (voc), "
        "annotations/instances_*.json (coco) or class folders with 1.jpg and 1.png (fss1000), "
        "got none of them. See docs/data.md."
    )


def open_dataset(
    path: Path | str,
    layout: str = "auto",
    *,
    cache: Path | str | None = None,
    workers: int = 0,
    skip_broken: bool = False,
    test_list: Path | str | None = None,
) -> Dataset:
    """Open a data set of any layout.

    All but ``indexed`` read every mask once, to know which classes cover how much of each picture.
    That is kept in a file, which is made anew when a mask or a list changes.

    Args:
        layout: ``auto``, or one of :data:`LAYOUTS`.
        cache: the folder for that file; by default the data set's own.
        workers: processes that read masks; 0 and 1 read them in this one.
        skip_broken: leave out pictures whose files are missing or broken; ``Dataset.problems``
            names them. Pictures themselves are not read here: see :class:`SkipLog` for those.
        test_list: fss1000's list of test classes, where it is not in the folder.

    Raises:
        ValueError: no such layout; DataError, one of them, names files that cannot be used.
        FileNotFoundError: the folder or a part of it is missing.
        ModuleNotFoundError: a layout needs a package that is not installed.
    """
    path = Path(path)
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"layout: expected auto or one of {', '.join(LAYOUTS)}, got {layout!r}")
    if layout == "auto":
        layout = layout_of(path)
    if layout == "indexed":
        dataset = Dataset.open(path)
    elif layout == "voc":
        dataset = open_voc(path, cache, workers)
    elif layout == "coco":
        dataset = open_coco(path, cache, workers)
    else:
        dataset = open_fss(path, cache, workers, test_list)
    broken = [problem for problem in dataset.problems if problem.kind != "split"]
    if broken and not (skip_broken and dataset.samples):
        named = "; ".join(str(problem) for problem in broken[:SHOWN])
        more = f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
        raise DataError(
            f"{path}: {len(broken)} of its pictures cannot be used: {named}{more}. "
            "`python -m training.datasets check` lists all. Repair them, or leave them out with "
            "skip_broken.",
            path,
            broken[0].kind,
        )
    if not dataset.samples:
        raise DataError(f"{path}: expected pictures, got none that can be used.", path, "missing")
    return dataset
