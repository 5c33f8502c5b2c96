"""From a PANet-trained encoder to a folder of latents: steps 1 and 2 of SPFL.

The folder: ``settings.json`` (what it is made from), ``regions/`` unless they are shared,
``vectors/``, ``hierarchy.safetensors``, ``labels/``, ``pages/`` and, last, ``latents.json``. Each
file is there whole or not at all; what is there is not made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from fsseg_sdk.methods.settings import settings_to_json
from training.datasets import DataError, Sample, SkipLog
from training.datasets.cache import each
from training.run import open_samples
from training.runfolder import SKIPPED, claim
from training.spfl.clusters import Hierarchy, Tree
from training.spfl.labels import pseudo_labels
from training.spfl.latents import HEADER, Latents, label_file, write_header, write_labels
from training.spfl.region_maps import RegionMaps, record_of, refuse_other
from training.spfl.settings import LatentSettings, completed, data_of
from training.spfl.vectors import (
    Corpus,
    PictureEncoder,
    in_lots,
    parts_of,
    pooled,
    read_vectors,
    write_vectors,
)
from training.torch_graph import trained_encoder

RECORD, HIERARCHY, PAGES = "settings.json", "hierarchy.safetensors", "pages"
LOT = 8  # pictures that are encoded together


@contextmanager
def stage(name: str) -> Iterator[None]:
    begin = perf_counter()
    yield
    print(f"{name}: {perf_counter() - begin:.1f} s", flush=True)


@dataclass(frozen=True)
class Maker:
    """What the stages share. samples: never in another order, since lots are numbered."""

    folder: Path
    settings: LatentSettings
    samples: Sequence[Sample]
    encoder: PictureEncoder
    maps: RegionMaps
    skips: SkipLog | None

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
        """The picture and its labels; None where it cannot be read and the run was told to go on.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return sample.read()
        except DataError as error:
            if self.skips is None:
                raise
            self.skips.note(error)
            return None

    def vectors(self) -> Corpus:
        """Step 1: of each picture the pooled features of its objects and regions."""
        lots = in_lots(self.samples, LOT)
        files = [
            self.folder / "vectors" / f"{number:06d}.safetensors" for number in range(len(lots))
        ]
        missing = [pair for pair in zip(files, lots, strict=True) if not pair[0].is_file()]
        list(each(self._write_vectors, missing, "vectors"))
        return read_vectors(files)

    def _write_vectors(self, work: tuple[Path, list[tuple[int, Sample]]]) -> None:
        file, lot = work
        found = []
        for number, sample, pixels, labels, features in self._encoded(lot):
            regions = self.maps.of(sample.key, pixels)
            parts = parts_of(sample, labels, regions, self.settings.least)
            if parts:
                found.append((number, parts, pooled(features, [part.mask for part in parts])))
        write_vectors(file, found, self.encoder.encoder.channels)

    def _encoded(self, lot: list[tuple[int, Sample]]) -> Iterator[tuple[Any, ...]]:
        """``(number, sample, pixels, labels, [C, h, w])`` of what can be read of a lot."""
        read = [(number, sample, self.read(sample)) for number, sample in lot]
        known = [(number, sample, *content) for number, sample, content in read if content]
        if known:
            features = self.encoder.features([pixels for _, _, pixels, _ in known])
            for row, one in zip(known, features, strict=True):
                yield (*row, one)

    def hierarchy(self, corpus: Corpus) -> Hierarchy:
        """Clusters of objects and of background regions, apart; kept in a file."""
        file = self.folder / HIERARCHY
        if file.is_file():
            return Hierarchy.load(file)
        trees = []
        for kind, name in ((0, "foreground objects"), (1, "regions of the background")):
            vectors = corpus.of(kind == 0).vectors
            if self.settings.normalise:
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
            counts = [level[kind] for level in self.settings.levels]
            try:
                trees.append(Tree.grow(vectors, counts, self.settings.seed, self.settings.restarts))
            except ValueError as error:
                raise ValueError(f"levels: {name}: {error}") from error
        made = Hierarchy(*trees)
        made.save(file, settings_to_json(self.settings))
        return made

    def labels(self, hierarchy: Hierarchy) -> dict[str, tuple[int, int]]:
        """Step 2: the pseudo labels of every picture; returns the pictures' sizes by key."""
        sizes: dict[str, tuple[int, int]] = {}

        def write(lot: list[tuple[int, Sample]]) -> None:
            files = [label_file(self.folder, sample.key) for _, sample in lot]
            if not all(file.is_file() for file in files):
                for _, sample, _, labels, features in self._encoded(lot):
                    found = pseudo_labels(features, labels, hierarchy)
                    write_labels(label_file(self.folder, sample.key), found)
            for (_, sample), file in zip(lot, files, strict=True):
                if file.is_file():
                    with Image.open(file) as opened:
                        sizes[sample.key] = opened.height // len(hierarchy.levels), opened.width

        list(each(write, in_lots(self.samples, LOT), "labels"))
        return sizes


def make_latents(
    checkpoint: Path,
    data_root: Path,
    out: Path,
    settings: LatentSettings,
    *,
    regions: Path | None = None,
    device: torch.device | None = None,
    workers: int = 0,
    pages: bool = True,
) -> Latents:
    """Make, or go on making, the latents of the pictures that a checkpoint was trained on.

    Args:
        regions: folder of the regions, which folds and encoders may share; in ``out`` if None.

    Raises:
        ValueError: ``out`` was made with other settings, or there are fewer objects or regions
            than clusters.
        FileNotFoundError, DataError: the pictures are not there, or cannot be read.
    """
    encoder, header = trained_encoder(checkpoint)
    data = data_of(header, checkpoint, settings.novel)
    settings = completed(settings, data, header, encoder.multiple)
    samples, _ = open_samples(data, data_root, workers)
    keys = [sample.key for sample in samples]
    if twice := {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else ():
        raise ValueError(f"data.sets: expected pictures with names of their own, got {twice} twice")
    record = {
        "format": "fsseg-latents-settings",
        "checkpoint": {
            "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "encoder": header["encoder"]["name"],
        },
        "data": settings_to_json(data),
        "pictures": hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest(),
        "regions": record_of(settings.regions),
        "settings": settings_to_json(settings),
    }
    out.mkdir(parents=True, exist_ok=True)
    with claim(out):
        refuse_other(out / RECORD, record, "--out")
        if (out / HEADER).is_file():
            print(f"{out}: is finished")
            return Latents.open(out)
        maps = RegionMaps.open(regions or out / "regions", settings.regions)
        where = device or torch.device("cpu")
        maker = Maker(
            out,
            settings,
            samples,
            PictureEncoder(
                encoder.to(where), settings.side or 0, settings.precision or "fp32", where
            ),
            maps,
            SkipLog(out / SKIPPED) if data.skip_unreadable else None,
        )
        with stage("regions"):
            maps.make(samples, workers)
        with stage("vectors"):
            corpus = maker.vectors()
        with stage("clusters"):
            hierarchy = maker.hierarchy(corpus)
        with stage("labels"):
            sizes = maker.labels(hierarchy)
        if pages:
            from training.spfl.page import draw_pages

            with stage("pages"):
                draw_pages(maker, corpus, hierarchy, out / PAGES)
        latents = write_header(out, hierarchy.levels, sizes, record)
    foreground, background = corpus.of(True), corpus.of(False)
    print(
        f"{len(sizes)} pictures, {len(foreground.vectors)} objects, {len(background.vectors)} "
        f"regions of the background; latents: {out}"
    )
    return latents
