"""Episodes in two passes: equal to one at a time, to other code, and to an unbroken run."""

from __future__ import annotations

import json
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

from fsseg_sdk import Segmenter, ops
from tests import tiny
from tests.data import data_root, weights_root
from training import evaluate as command
from training.annotations import make, seed_of
from training.checkpoint import save_checkpoint
from training.datasets import Dataset
from training.evaluation import engine, provenance, results
from training.evaluation.episodes import draw
from training.evaluation.lists import FewShot
from training.evaluation.models import of_weights
from training.evaluation.pictures import marked_as, way_labels
from training.evaluation.pool import Pool
from training.evaluation.predictor import SdkPredictor, of_bundle, segmenter_on
from training.evaluation.protocols import PANET_417, PFENET_473, Protocol
from training.evaluation.rows import SAME, list_facts, list_name, mean_rows, rows_of
from training.evaluation.torch_predictor import TorchPredictor
from training.remembering import RememberingGraph

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


COLOURS = {1: (220, 40, 30), 2: (40, 200, 60), 3: (30, 60, 220)}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Coloured squares on speckled grey, two or three to a picture, of several shapes; a strip of
    each is to be ignored."""
    folder = tmp_path_factory.mktemp("squares") / "parts"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    generator, lines = np.random.default_rng(4), []
    for number in range(12):
        height, width = 64 - 6 * (number % 3), 64 + 8 * (number % 2)
        pixels = generator.integers(70, 170, (height, width, 1)).repeat(3, 2).astype(np.uint8)
        labels = np.zeros((height, width), np.uint8)
        shown = [c for c in COLOURS if number % 4 != c]
        for place, identity in enumerate(shown):
            left = place * width // len(shown) + generator.integers(0, 6)
            top, side = generator.integers(4, height - 22), generator.integers(12, 18)
            labels[top : top + side, left : left + side] = identity
            noise = generator.integers(-30, 30, 3)
            pixels[labels == identity] = np.clip(np.array(COLOURS[identity]) + noise, 0, 255)
        labels[:3] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number:02d}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{number:02d}.png")
        line = {"image": f"images/{number:02d}.png", "mask": f"masks/{number:02d}.png"}
        classes = [{"id": c, "name": str(c), "frac": float((labels == c).mean())} for c in shown]
        lines.append({**line, "split": "val", "classes": classes, "source": "drawn here"})
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"classes": ["background", "red", "green", "blue"], "licence": "ours"}
    (folder / "meta.json").write_text(json.dumps(meta))
    return Dataset.open(folder)


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
    predictor = of_bundle(str(bundle), 1)
    counts = engine.measure(predictor, pool, lists, [kind])
    segmenter = Segmenter.load(bundle, threads=1)
    for (shots, ways), episodes in lists.items():
        found = counts.confusions[engine.Setting(shots, ways, kind)]
        for index, episode in enumerate(episodes):
            expected = reference(segmenter, pool, episode, kind, None)
            assert found["native"][index].tolist() == expected.tolist()
    assert counts.encoded <= 2 * len(pool.samples)
    assert 0 < counts.ms_per_query < 1e3 * counts.seconds


def test_iou_at_the_size_of_the_protocol(parts: Dataset, bundle: Path) -> None:
    pool = Pool.of(parts, replace(SQUASHED, side=32), 0)
    lists: Lists = {(1, 1): draw(pool, 1, 1, 0, 2)}
    counts = engine.measure(of_bundle(str(bundle), 1), pool, lists, ["dense"])
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
    own = miou(of_bundle(str(path), 1), pool, lists, parts.class_names)
    other = miou(
        TorchPredictor(AverageColours(), method, protocol, {}), pool, lists, parts.class_names
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
        engine.measure(of_bundle(str(bundle), 1, most), pool, lists, ["dense"])
        for most in (0, 1 << 20, 3 * tiny.CHANNELS * 64 * 2)
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


def test_labels_of_the_classes_asked_for() -> None:
    labels = np.array([[0, 7, 9, 255]], np.uint8)
    assert way_labels(labels, (9, 7), "leave out").tolist() == [[0, 2, 1, 255]]
    assert way_labels(labels, (9,), "background").tolist() == [[0, 0, 1, 0]]
    many = np.array([[0, 700, 300]], np.uint16)
    assert way_labels(many, (300,), "leave out").tolist() == [[0, 0, 1]]


def test_boxes_of_a_set_without_instances_are_called_those_of_components(parts: Dataset) -> None:
    kinds = ["dense", "box-largest", "box-component", "box-random"]
    expected = ["dense", "box-component", "box-component-random"]
    assert marked_as(kinds, parts.samples) == expected


def arguments(parts: Dataset, folder: Path, *more: str) -> list[str]:
    data = str(parts.samples[0].image.parents[1])
    lists = ["--lists", str(folder / "lists"), "--json", str(folder / "out.json")]
    return ["--data", data, "--folds", "0", "--runs", "2", "--episodes", "6", *lists, *more]


def test_the_command_writes_what_it_prints(
    parts: Dataset, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--shots", "1,2,15", "--ways", "1,2", "--annotation", "dense,scribble"]
    assert command.main([str(bundle), *arguments(parts, tmp_path, *options)]) == 0
    printed = capsys.readouterr().out
    result = results.read_result(tmp_path / "out.json")
    assert not (tmp_path / "out.json.part").exists()
    assert result["model"]["name"] == "tiny"
    assert len(result["model"]["digest"]) == 64
    settings = {(r["shots"], r["ways"], r["annotation"]) for r in result["rows"]}
    assert settings == {(k, n, a) for k in (1, 2) for n in (1, 2) for a in ("dense", "scribble")}
    assert any("15-shot" in note for note in result["notes"])
    assert "15-shot" in printed
    for row in result["rows"]:
        entries = result["lists"][row["list"]]
        assert row["episodes"] == 12
        assert len(row["runs"]) == 2
        assert len(entries["run"]) == len(row["union"]) == 12 * row["ways"]
        assert row["miou"] == pytest.approx(np.mean(row["runs"]))
        assert row["interval"][0] <= row["miou"] <= row["interval"][1]
        assert set(row["per_class"]) <= set(parts.class_names)
        assert f"{row['miou']:.1f}" in printed
    rules = {r["false_positives"] for r in result["rows"] if r["ways"] == 2}
    assert rules == {"all", "present"}
    assert {r["false_positives"] for r in result["rows"] if r["ways"] == 1} == {"all"}
    assert result["data"]["caveat"] in " ".join(printed.split())
    assert "compare these figures with each other" in printed.replace("\n", " ")


def test_an_interrupted_evaluation_goes_on(
    parts: Dataset,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is done is not done again, and the result is that of an unbroken run."""
    asked = [str(bundle), *arguments(parts, tmp_path, "--shots", "1")]
    assert command.main(asked) == 0
    whole = (tmp_path / "out.json").read_bytes()
    write, measure = results.write_result, command.measure

    def full(path: Path, result: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "write_result", full)
    with pytest.raises(KeyboardInterrupt):
        command.main(asked)
    part = tmp_path / "out.json.part"
    assert len(part.read_text().splitlines()) == 2
    monkeypatch.setattr(results, "write_result", write)
    monkeypatch.setattr(command, "measure", None)
    assert command.main([*asked, "--runs", "1"]) == 2
    assert "another evaluation: runs was 2, now 1" in capsys.readouterr().err
    assert command.main(asked) == 0
    assert "fold 0: done before" in capsys.readouterr().out
    ours, theirs = json.loads((tmp_path / "out.json").read_bytes()), json.loads(whole)
    for each in (ours, theirs):
        del each["seconds"]
        for row in each["rows"]:
            del row["ms_per_query"]
    assert ours == theirs
    part.write_text(json.dumps({}) + "\n")
    monkeypatch.setattr(command, "measure", measure)
    assert command.main(asked) == 2  # a part of something else


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    asked = {"protocol": "panet-417"}
    partial = results.Partial(tmp_path / "out.json", asked)
    partial.add({"fold": 1, "rows": []})
    path = tmp_path / "out.json.part"
    path.write_text(path.read_text() + '{"fold": 2, "ro')
    again = results.Partial(tmp_path / "out.json", asked)
    assert set(again.folds) == {1}
    again.add({"fold": 2, "rows": []})
    assert set(results.Partial(tmp_path / "out.json", asked).folds) == {1, 2}


def test_the_mean_over_folds() -> None:
    """Folds count alike, however many pictures they have."""
    lists, rows = {}, []
    for fold, value, count in ((1, 40, 30), (2, 60, 5)):
        queries = [f"p{n // 2}" for n in range(2 * count)]
        classes = [fold] * len(queries)
        lists[f"f{fold}"] = {"run": [0, 1] * count, "query": queries, "class": classes}
        row = {
            **dict.fromkeys(SAME, 1),
            "fold": fold,
            "list": f"f{fold}",
            "miou": value,
            "fbiou": 70.0,
            "runs": [value - 1, value + 1],
            "intersection": [value] * len(queries),
            "union": [100] * len(queries),
        }
        rows.append(row)
    (mean,) = mean_rows(rows, lists, repeats=20)
    assert (mean["miou"], mean["folds"], mean["runs"]) == (50, [1, 2], [49, 51])
    assert mean["interval"] == pytest.approx([50, 50])
    assert mean_rows(rows[:1], lists) == []


def test_models_of_several_folds_have_one_name() -> None:
    parts = [{"fold": fold, "model": {"name": f"rn50-fold{fold}"}} for fold in (1, 2)]
    assert command._name(parts) == "rn50"
    assert command._name(parts[:1]) == "rn50-fold1"


def test_a_model_must_not_have_seen_the_classes() -> None:
    def reason(header: dict[str, Any]) -> str | None:
        return provenance.unfit(
            {"trained": provenance.trained(header)}, "voc2012", "pascal-5i", 2
        )

    data = {"split": "pascal-5i", "fold": 2}
    assert reason({"settings": {"data": data}, "pictures": {"voc2012": 9}}) is None
    assert "fold 1" in str(reason({"settings": {"data": {**data, "fold": 1}}}))
    assert "without a fold" in str(reason({"pictures": {"voc2012": 9}, "settings": {}}))
    assert reason({"pictures": {"coco": 9}, "settings": {}}) is None
    assert reason({}) is None


def test_a_checkpoint_of_another_fold_is_refused(
    parts: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one that says nothing of folds is evaluated, at the protocol's size."""
    from training.encoders import build_encoder

    tensors = build_encoder("mobilenet_v2").state_dict()
    header: dict[str, Any] = {
        "encoder": {"name": "mobilenet_v2", "settings": {}},
        "method": {"name": "panet", "settings": {"scale": 20.0}},
        "settings": {"data": {"split": "pascal-5i", "fold": 0}, "trainer": {"seed": 3}},
    }
    path = tmp_path / "run" / "checkpoint.safetensors"
    save_checkpoint(path, {f"encoder.{k}": t for k, t in tensors.items()}, header)
    asked = arguments(parts, tmp_path, "--shots", "1", "--runs", "1", "--episodes", "1")
    assert command.main(["--torch", str(path), *asked]) == 2
    assert "fold 0 of pascal-5i" in capsys.readouterr().err
    (tmp_path / "out.json.part").unlink()
    header["settings"]["data"] = {"split": None, "fold": None}
    whole = {f"encoder.{k}": t for k, t in tensors.items()}
    save_checkpoint(tmp_path / "run0" / "c.safetensors", whole, header)
    named = ["--torch", str(tmp_path / "run{fold}" / "c.safetensors"), "--bfloat16"]
    assert command.main([*named, *asked]) == 0
    model = results.read_result(tmp_path / "out.json")["model"]
    assert (model["name"], model["precision"], model["trained"]["seed"]) == ("run0", "bf16", 3)
    assert model["input"].startswith("417 x 417")


@pytest.mark.parametrize(
    "wrong",
    [
        ["a.fsseg", "--torch", "b"],
        [],
        ["--raw", "resnet50"],
        ["a.fsseg", "--bfloat16"],
        ["a.fsseg", "--annotation", "dots"],
        ["a.fsseg", "--shots", "few"],
        ["a.fsseg", "--episodes", "0"],
    ],
)
def test_options_that_make_no_sense(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([*wrong, "--data", "nowhere"])


def test_missing_things_are_named(
    parts: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["default", "--data", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert command.main(["no-such-bundle", *arguments(parts, tmp_path, "--shots", "1")]) == 2
    assert "no-such-bundle" in capsys.readouterr().err
