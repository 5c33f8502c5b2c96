"""Episodes in two passes: equal to one at a time, to other code, and to an unbroken run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fsseg_sdk import InputError, Segmenter, ops
from fsseg_sdk.methods.panet import PanetSettings
from tests import tiny
from tests.data import data_root, weights_root
from training.annotations import make, seed_of
from training.checkpoint import save_checkpoint
from training.datasets import Dataset
from training.evaluation import engine
from training.evaluation.episodes import draw
from training.evaluation.lists import FewShot
from training.evaluation.models import of_checkpoint, of_weights
from training.evaluation.pool import Pool
from training.evaluation.predictor import How, SdkPredictor, of_bundle, segmenter_on
from training.evaluation.protocols import PANET_417, PFENET_473, Protocol
from training.evaluation.rows import list_facts, list_name, rows_of
from training.evaluation.torch_predictor import TorchPredictor
from training.remembering import RememberingGraph

from .pretrained import filled
from .squares import draw_parts

SQUASHED = replace(PANET_417, side=64, support_ignore="leave out")
PADDED = replace(PFENET_473, side=64, least_query=0.0, least_support=0.0)
KINDS = ["dense", "scribble", "box-component"]
Lists = dict[tuple[int, int], list[FewShot]]


class AverageColours(nn.Module):
    """The tiny bundle's encoder in torch."""

    mean, std, stride, channels = tiny.MEAN, tiny.STD, 8, tiny.CHANNELS

    def __init__(self) -> None:
        super().__init__()
        mixing = torch.from_numpy(tiny.mixing())
        self.register_buffer("weight", mixing[:, :3].reshape(-1, 3, 1, 1).clone())
        self.register_buffer("bias", mixing[:, 3].clone())

    def forward(self, image: Tensor) -> Tensor:
        colours = nn.functional.avg_pool2d(image, 8)
        return torch.tanh(nn.functional.conv2d(colours, self.weight, self.bias))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_parts(tmp_path_factory.mktemp("squares") / "parts")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.fsseg")


def lists_of(pool: Pool) -> Lists:
    return {(k, n): draw(pool, k, n, 0, 12) for k, n in ((1, 1), (2, 1), (1, 2))}


def reference(
    segmenter: Segmenter, pool: Pool, episode: FewShot, kind: str, size: tuple[int, int] | None
) -> NDArray[np.int64]:
    """One episode as a user would run it; pixels counted one by one."""
    support = {}
    for identity, keys in episode.support:
        shots = []
        for key in keys:
            pixels, labels = pool.samples[key].read()
            mask = np.where(labels == 255, 255, labels == identity).astype(np.uint8)
            seed = seed_of(pool.samples[key].key, identity)
            shots.append((pixels, make(kind, mask, seed)))
        support[str(identity)] = shots
    pixels, labels = pool.samples[episode.query].read()
    result = segmenter.prepare(support).segment(pixels)
    found = result.raw_labels
    if size is not None:
        extent = result.geometry.extent(tiny.GRID)
        found = ops.upsample_argmax(result.logits[None], size, extent)[0]
        labels = np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))
    counted = np.zeros((len(support) + 1,) * 2, np.int64)
    names = [0, *(identity for identity, _ in episode.support)]
    for row, column in np.ndindex(labels.shape):
        if labels[row, column] != 255:
            true = names.index(labels[row, column]) if labels[row, column] in names else 0
            counted[true, found[row, column]] += 1
    return counted


@pytest.mark.parametrize("kind", KINDS)
def test_two_passes_equal_one_episode_at_a_time(parts: Dataset, bundle: Path, kind: str) -> None:
    """At native size to the pixel; each picture goes through the encoder twice at most."""
    pool = Pool.of(parts, SQUASHED, 0)
    lists = {setting: each[:3] for setting, each in lists_of(pool).items()}
    predictor = of_bundle(str(bundle), How(threads=1))
    counts = engine.measure(predictor, pool, lists, [kind])
    segmenter = Segmenter.load(bundle, threads=1)
    for (shots, ways), episodes in lists.items():
        found = counts.confusions[engine.Setting(shots, ways, kind)]
        for index, episode in enumerate(episodes):
            expected = reference(segmenter, pool, episode, kind, None)
            assert found["native"][index].tolist() == expected.tolist()
    assert counts.encoded <= 2 * len(pool.samples)
    assert counts.ms_per_query is not None
    assert 0 < counts.ms_per_query < 1e3 * counts.seconds


def test_iou_at_the_size_of_the_protocol(parts: Dataset, bundle: Path) -> None:
    pool = Pool.of(parts, replace(SQUASHED, side=32), 0)
    lists: Lists = {(1, 1): draw(pool, 1, 1, 0, 2)}
    counts = engine.measure(of_bundle(str(bundle), How(threads=1)), pool, lists, ["dense"])
    found = counts.confusions[engine.Setting(1, 1, "dense")]
    assert list(found) == ["32x32", "native"]
    segmenter = Segmenter.load(bundle, threads=1)
    for index, episode in enumerate(lists[1, 1]):
        expected = reference(segmenter, pool, episode, "dense", (32, 32))
        np.testing.assert_array_equal(found["32x32"][index], expected)


def miou(predictor: Any, pool: Pool, lists: Lists, names: Sequence[str]) -> dict[Any, float]:
    counts = engine.measure(predictor, pool, lists, KINDS)
    facts = {list_name(0, *setting): list_facts([each]) for setting, each in lists.items()}
    return {
        (r["shots"], r["ways"], r["annotation"], r["resolution"]): r["miou"]
        for r in rows_of(0, counts, facts, names, repeats=2)
    }


@pytest.mark.parametrize("method", [{}, {"background_parts": 3}, {"refine_weak": True}])
@pytest.mark.parametrize("protocol", [SQUASHED, PADDED], ids=["squash", "fit"])
def test_torch_agrees_with_the_sdk(
    parts: Dataset, tmp_path: Path, protocol: Protocol, method: dict[str, Any]
) -> None:
    """Prototypes, cosines and upsampling written twice: within 0.2 points."""
    path = tiny.tiny_bundle(tmp_path / "t.fsseg", settings=method, geometry=protocol.geometry)
    pool = Pool.of(parts, protocol, 0)
    lists = lists_of(pool)
    own = miou(of_bundle(str(path), How(threads=1)), pool, lists, parts.class_names)
    other = miou(
        TorchPredictor(AverageColours(), PanetSettings(**method), protocol, {}),
        pool,
        lists,
        parts.class_names,
    )
    assert own.keys() == other.keys()
    assert min(own.values()) > 20  # an empty mask agrees with anything
    for setting, value in own.items():
        assert other[setting] == pytest.approx(value, abs=0.2), setting


def test_torch_agrees_with_the_sdk_on_real_pictures() -> None:
    root, weights = data_root(), weights_root()
    file = None if weights is None else weights / "mobilenet_v2_bnfolded.safetensors"
    if root is None or not (root / "voc2012").is_dir() or file is None or not file.is_file():
        pytest.skip("needs the labelled set voc2012 and ImageNet weights of mobilenet_v2")
    data, protocol = Dataset.open(root / "voc2012"), replace(PANET_417, side=160)
    pool = Pool.of(data, protocol, 3)
    lists: Lists = {(1, 1): draw(pool, 1, 1, 0, 8), (2, 1): draw(pool, 2, 1, 1, 4)}
    torch_one = of_weights("mobilenet_v2", file, protocol)
    entry = {
        "size": [160, 160],
        "geometry": "squash",
        "mean": list(torch_one.encoder.mean),
        "std": list(torch_one.encoder.std),
    }
    graph = RememberingGraph(torch_one.graph.graph, 1 << 30)
    sdk = segmenter_on({"encoder": graph}, "raw", {"name": "panet", "settings": {}}, entry, 1)
    own = miou(SdkPredictor(sdk, graph, {}), pool, lists, data.class_names)
    other = miou(torch_one, pool, lists, data.class_names)
    for setting, value in own.items():
        assert other[setting] == pytest.approx(value, abs=0.2), setting


def test_what_is_kept_changes_nothing_but_the_number_of_passes(
    parts: Dataset, bundle: Path
) -> None:
    pool = Pool.of(parts, SQUASHED, 0)
    lists: Lists = {(1, 1): draw(pool, 1, 1, 0, 150)}
    none, all_of_it, some = (
        engine.measure(of_bundle(str(bundle), how), pool, lists, ["dense"])
        for how in (
            How(threads=1, most_bytes=most) for most in (0, 1 << 20, 3 * tiny.CHANNELS * 64 * 2)
        )
    )
    count = len(pool.samples)  # so many episodes ask and show them all
    # the first query is the last support, which the graph still has
    assert none.encoded == 2 * count - 1
    assert all_of_it.encoded == count
    assert some.encoded == 2 * count - 3
    for setting, found in none.confusions.items():
        for name, counted in found.items():  # rounded to float16, a pixel here and there
            difference = np.abs(counted - all_of_it.confusions[setting][name]).sum()
            assert difference <= 0.002 * counted.sum()


class Slow(SdkPredictor):
    """Takes long for what is no part of a user's query."""

    def segment(self, *given: Any) -> list[NDArray[np.uint8]]:
        time.sleep(0.4)
        return super().segment(*given)


def test_a_query_is_timed_as_a_user_runs_it(parts: Dataset, bundle: Path) -> None:
    """Without IoU's sizes, hashing and what prepares the task; nothing where nothing ran."""
    pool = Pool.of(parts, SQUASHED, 0)
    lists: Lists = {(1, 1): draw(pool, 1, 1, 0, 2)}
    own = of_bundle(str(bundle), How(threads=1, most_bytes=1 << 20))
    slow = Slow(own.segmenter, own.graph, {})
    counts = engine.measure(slow, pool, lists, ["dense"])
    assert counts.seconds > 0.8
    assert counts.ms_per_query is not None
    assert 0 < counts.ms_per_query < 300
    again = engine.measure(slow, pool, lists, ["dense"])  # all pictures are kept
    assert (again.encoded, again.ms_per_query) == (0, None)


def real_checkpoint(path: Path) -> Path:
    """Of PANet with a real encoder, whose weights mean nothing."""
    from training.encoders import build_encoder

    tensors = filled(build_encoder("mobilenet_v2").state_dict())
    header = {
        "encoder": {"name": "mobilenet_v2", "settings": {}},
        "method": {"name": "panet", "settings": {"scale": 20.0}},
        "settings": {"data": {"split": None, "fold": None}},
    }
    save_checkpoint(path, {f"encoder.{k}": t for k, t in tensors.items()}, header)
    return path


@pytest.mark.filterwarnings("ignore")
def test_settings_of_a_checkpoint_are_the_runtimes(tmp_path: Path) -> None:
    """What torch does not do, the runtime does; what neither knows is refused."""
    checkpoint = real_checkpoint(tmp_path / "checkpoint.safetensors")
    protocol = replace(SQUASHED, side=64)
    pooled = How(changes={"background": "pool-of-pixels"})
    assert isinstance(of_checkpoint(checkpoint, protocol), TorchPredictor)
    assert isinstance(of_checkpoint(checkpoint, protocol, pooled), SdkPredictor)
    with pytest.raises(InputError, match=r"settings\.sclae"):
        of_checkpoint(checkpoint, protocol, How(changes={"sclae": 1.0}))
    with pytest.raises(ValueError, match="background: expected mean-of-shots"):
        TorchPredictor(AverageColours(), PanetSettings(background="pool-of-pixels"), protocol, {})


@pytest.mark.filterwarnings("ignore")
def test_an_exported_bundle_is_its_checkpoint(parts: Dataset, tmp_path: Path) -> None:
    """A real encoder, once as ONNX with weights in float16 through the SDK, once in torch."""
    from export.build import ExportSettings, export_bundle

    checkpoint = real_checkpoint(tmp_path / "checkpoint.safetensors")
    settings = ExportSettings(name="real", input_size=(128, 128), geometry="squash")
    export_bundle(checkpoint, tmp_path / "real.fsseg", settings)
    protocol = replace(SQUASHED, side=128)
    pool = Pool.of(parts, protocol, 0)
    lists: Lists = {(1, 1): draw(pool, 1, 1, 0, 8), (5, 1): draw(pool, 5, 1, 1, 8)}
    exported = of_bundle(str(tmp_path / "real.fsseg"), How(threads=1))
    own = miou(exported, pool, lists, parts.class_names)
    other = miou(of_checkpoint(checkpoint, protocol), pool, lists, parts.class_names)
    assert max(own.values()) > 10  # random weights, but an empty mask would agree, too
    for setting, value in own.items():
        assert other[setting] == pytest.approx(value, abs=0.2), setting
