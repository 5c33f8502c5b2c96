"""`python -m training.ablation`: the table, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fsseg_sdk.methods import get
from fsseg_sdk.methods.settings import settings_from_json
from training import ablation
from training.checkpoint import save_checkpoint
from training.datasets import open_dataset
from training.encoders import build_encoder
from training.evaluation.predictor import method_of
from training.tables import changes_of

from .runs import changed

VARIANTS = """
[[variants]]
name = "match"
method = "panet"

[[variants]]
name = "refined"
settings = ["iterations=3", "hidden=20", "fallback='top_k'"]

[[variants]]
name = "the match, by another way"
settings = ["match_share=1", "iterations=1", "iterations_of_five=1"]
"""


@pytest.fixture
def asked(drawn: Path, tmp_path: Path) -> list[str]:
    folder = tmp_path / "data" / "parts"
    shutil.copytree(drawn, folder)
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["split"] = "train" if number < 2 else "val"
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = changed(data={"sets": ("parts",)})
    header = {
        "encoder": {"name": "mobilenet_v2", "settings": {}},
        "method": {"name": "panet", "settings": {"scale": 20.0}},
        "settings": settings.to_json(),
    }
    tensors = build_encoder("mobilenet_v2").state_dict()
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, {f"encoder.{k}": t for k, t in tensors.items()}, header)
    (tmp_path / "variants.toml").write_text(VARIANTS)
    root = ["--data-root", str(folder.parent), "--side", "64", "--threads", "1"]
    return [str(path), str(tmp_path / "variants.toml"), *root]


def test_the_table(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablation.main([*asked, "--json", str(tmp_path / "a.json"), "--shots", "2"]) == 0
    printed = capsys.readouterr().out
    found: dict[str, Any] = json.loads((tmp_path / "a.json").read_text())
    rows = {row["variant"]: row for row in found["rows"]}
    assert list(rows) == ["match", "refined", "the match, by another way"]
    assert all(name in printed for name in rows)
    assert rows["match"]["difference"] == [0, 0, 0]
    assert rows["refined"]["miou"] != rows["match"]["miou"]
    # the same cosines, softmax or not: the largest stays the largest
    assert rows["the match, by another way"]["miou"] == pytest.approx(
        rows["match"]["miou"], abs=0.05
    )
    assert rows["refined"]["match_ms"] > rows["match"]["match_ms"]
    assert found["variants"]["refined"][:2] == ["srofb", "iterations=3"]


def test_more_shots_are_other_pictures(drawn: Path) -> None:
    samples = open_dataset(drawn).samples
    episodes = ablation.list_episodes(samples)
    supports = ablation.supports_of(episodes, samples, 3, 0)
    assert supports == ablation.supports_of(episodes, samples, 3, 0)
    for episode, shown in zip(episodes, supports, strict=True):
        assert shown[0] is episode.support
        keys = [s.key for s in shown]
        assert len(set(keys)) == len(keys) <= 3
        assert episode.query.key not in keys
        assert all(episode.identity in s.classes for s in shown)
    assert any(len(shown) == 3 for shown in supports)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "variants"),
        ("[[variants]]\nmethod = 'panet'", "variant 1"),
        ("[[variants]]\nname = 'a'\nsetting = 3", "variant 1"),
        ("[[variants]]\nname = 'a'\nsettings = ['hiden=3']", "hiden"),
        ("[[variants]]\nname = 'a'\nmethod = 'srof'", "srofb"),
    ],
)
def test_tables_that_make_no_sense(
    asked: list[str], tmp_path: Path, text: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "variants.toml").write_text(text)
    assert ablation.main(asked) == 2
    assert named in capsys.readouterr().err


def test_the_settings_of_the_shipped_table_are_known() -> None:
    path = Path(ablation.__file__).parent / "configs" / "srofb-ablation.toml"
    variants = ablation.read_variants(path)
    assert len({variant.name for variant in variants}) == len(variants)
    stored = {"name": "panet", "settings": {"scale": 20.0}}
    for variant in variants:
        chosen = method_of(stored, variant.method, changes_of(variant.settings))
        settings_from_json(get(variant.method).settings_type, chosen["settings"], variant.name)
