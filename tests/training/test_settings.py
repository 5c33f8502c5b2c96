"""Settings files: what is wrong is named, what is changed is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data import REPOSITORY
from tests.training.runs import SMALL
from training.ablation import read_variants
from training.methods import METHODS
from training.run import settings_of
from training.settings import DataSettings, ScheduleSettings, TrainerSettings
from training.sweep import read_sweep
from training.tables import changes_of, differences, read_tables, with_changes

CONFIGS = REPOSITORY / "training" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_settings_file_of_the_project_is_valid(path: Path) -> None:
    if path.stem.endswith("sweep"):
        assert read_sweep(path)
    elif path.stem.endswith("ablation"):
        assert read_variants(path)
    else:
        method = next((name for name in METHODS if name in path.stem), "panet")
        settings_of(method, read_tables(path), path.name)


def test_settings_survive_json() -> None:
    tables = json.loads(json.dumps(SMALL.to_json()))
    assert settings_of("panet", tables, "header") == SMALL


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"trainr": {}}, r"mine: unknown table \[trainr\]\. Known are encoder, data"),
        ({"trainer": {"iteration": 3}}, r"mine\.trainer\.iteration: expected one of the settings"),
        ({"trainer": {"iterations": "3"}}, r"mine\.trainer\.iterations: expected int, got '3'"),
        ({"trainer": {"precision": "half"}}, r"trainer\.precision: expected one of 'fp32'"),
        ({"trainer": {"average": 1.0}}, r"mine\.trainer: average: expected"),
        ({"trainer": {"select": "best", "watch": 0}}, "select: 'best' needs episodes"),
        ({"data": {"fold": 2}}, "split, fold: expected both or neither"),
        ({"data": {"split": "pascal-5i", "fold": 4}}, "fold: expected 0 to 3, got 4"),
        ({"data": {"split": "voc", "fold": 1}}, "split: expected one of pascal-5i"),
        ({"panet": {"scale": 0}}, r"mine\.panet: scale must be positive"),
        ({"episodes": {"side": 60}}, "side must be at least 64, got 60"),
        ({"schedule": {"milestones": [2.0]}}, "milestones: expected fractions"),
        ({"encoder": {"settings": 3}}, r"encoder\.settings: expected an object"),
        ({"encoder": {"name": "nope"}}, "encoder: expected one of .*, got 'nope'"),
        ({"encoder": {"settings": {"nope": 1}}}, "nope"),
        ({"trainer": 5}, r"mine: unknown table \[trainer\]"),
        ({"data": {"sets": ["a", "a"]}}, "sets: expected each once, got a, a"),
        ({"data": {"novel": "ignore"}}, "regions of a picture may be parts of novel objects"),
        ({"optimizer": {"momentum": 1.5}}, "momentum: expected less than 1"),
        ({"optimizer": {"pretrained_learning_rate": -1}}, "pretrained_learning_rate: expected 0"),
        ({"episodes": {"several": 3}}, "several, most_ways"),
        ({"episodes": {"augment": {"crop": [1.0, 0.5]}}}, "crop: expected two rising fractions"),
        ({"episodes": {"augment": {"colour": 2}}}, "colour: expected 0 to 1"),
        ({"panet": {"dice_weight": -1}}, "dice_weight must be 0 or more"),
    ],
)
def test_what_is_wrong_is_named(tables: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of("panet", tables, "mine")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrainerSettings(batch=0),
        lambda: TrainerSettings(iterations=-1),
        lambda: ScheduleSettings(power=-1.0),
        lambda: DataSettings(split="pascal-5i"),
    ],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()  # type: ignore[operator]


def test_a_settings_file_that_is_not_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a settings file"):
        read_tables(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[trainer\n")
    with pytest.raises(ValueError, match=r"bad\.toml: expected TOML"):
        read_tables(tmp_path / "bad.toml")


def test_changes_are_applied_to_a_copy() -> None:
    tables = {"data": {"fold": 2}, "episodes": {"augment": {"angle": 0.0}}}
    words = ["data.fold=3", "data.split=pascal-5i", "episodes.augment.angle=5.0", "panet.scale=10"]
    changed = with_changes(tables, words)
    assert changed == {
        "data": {"fold": 3, "split": "pascal-5i"},
        "episodes": {"augment": {"angle": 5.0}},
        "panet": {"scale": 10},
    }
    assert tables == {"data": {"fold": 2}, "episodes": {"augment": {"angle": 0.0}}}
    for wrong in ("fold=2", "data.fold", "data.=2", "data.fold.deep=1"):
        with pytest.raises(ValueError, match=f"--set {wrong}"):
            with_changes(tables, [wrong])
    assert changes_of(["hidden=64", "panet.scale=10"]) == {"hidden": 64, "panet": {"scale": 10}}
    with pytest.raises(ValueError, match="--setting scale: expected field=value"):
        changes_of(["scale"])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(values, values)
def test_differences_are_found_where_there_are_some(one: object, other: object) -> None:
    assert differences(one, one) == []
    found = differences(one, other)
    empty = {} in (one, other) or _holds_nothing(one) or _holds_nothing(other)
    assert bool(found) == (one != other) or empty


def _holds_nothing(value: object) -> bool:
    """A name with None, or with a table that has nothing to say, equals no name at all."""
    return isinstance(value, dict) and any(
        v is None or v == {} or _holds_nothing(v) for v in value.values()
    )


def test_a_difference_names_its_place() -> None:
    one = {"data": {"fold": 1, "sets": ["a"]}, "seed": 0}
    other = {"data": {"fold": 2, "sets": ["a"]}, "seed": 0, "more": True}
    assert differences(one, other) == ["data.fold: 1, now 2", "more: None, now True"]
