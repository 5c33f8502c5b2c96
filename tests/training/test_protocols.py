"""Named protocols: sizes, pools, and lists of episodes that are the same everywhere."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data import REPOSITORY, data_root
from training.datasets import Dataset, Sample
from training.evaluation.episodes import draw
from training.evaluation.lists import facts_of, file_name, load, write
from training.evaluation.lots import Lot
from training.evaluation.pool import Pool
from training.evaluation.protocols import (
    HSNET_400,
    MLC_NATIVE,
    OSLSM_1000,
    PANET_417,
    PFENET_473,
    PROTOCOLS,
    Protocol,
    fold_for,
    protocol_of,
)

from .squares import VOC

LISTS = REPOSITORY / "episodes"


def picture(number: int, **shown: float) -> Sample:
    """Shows ``c12=0.1``: class 12 on a tenth."""
    classes = {int(name[1:]): fraction for name, fraction in shown.items()}
    name = Path(f"{number:04d}.png")
    return Sample("voc", name, name, "val" if number % 3 else "train", classes, "", None)


def voc(count: int = 60) -> Dataset:
    """Every picture shows a class of fold 2; every third two of them; of class 14 there are three.
    Class 13 is small in every second picture that shows it."""
    samples = []
    for n in range(count):
        shown = {f"c{(11, 12, 15)[n % 3]}": 0.2, "c3": 0.1}
        if n % 3 == 0:
            shown["c13"] = 0.2 if n % 2 else 0.004
        if n < 3:
            shown["c14"] = 0.1
        samples.append(picture(n, **shown))
    return Dataset("voc", VOC, "", tuple(samples))


def pool(protocol: Protocol = PANET_417, fewest: int | None = None) -> Pool:
    return Pool.of(voc(), protocol, 2, fewest)


def test_lots_are_pinned() -> None:
    """What a name draws must never change, or no list could be drawn again."""
    lot = Lot("a name", 3)
    assert [lot.below(1000) for _ in range(6)] == [930, 284, 523, 202, 291, 51]


def test_fewer_lots_are_the_first_of_more() -> None:
    assert Lot("x").some(range(50), 20)[:5] == Lot("x").some(range(50), 5)
    assert sorted(Lot("x").some(range(9), 9)) == list(range(9))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_lists_depend_on_names_and_seed_alone(name: str) -> None:
    protocol = protocol_of(name)
    own = draw(pool(protocol), 2, 1, 0, 40)
    data = voc()
    shuffled = random.Random(5).sample(data.samples, len(data.samples))
    other = replace(data, samples=tuple(shuffled))
    assert draw(Pool.of(other, protocol, 2), 2, 1, 0, 40) == own
    assert draw(pool(protocol), 2, 1, 1, 40) != own


def test_a_list_is_pinned() -> None:
    text = "".join(e.to_json() for e in draw(pool(), 2, 2, 0, 50))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "4c72f83a13f7a32d"


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(("shots", "ways"), [(1, 1), (5, 1), (2, 3)])
def test_drawn_lists_pass_their_own_checks(
    name: str, shots: int, ways: int, tmp_path: Path
) -> None:
    own = pool(protocol_of(name), fewest=8)
    drawn = draw(own, shots, ways, 3, 60)
    write(tmp_path / "list.jsonl", drawn, facts_of(own, shots, ways, 3, 60))
    assert load(tmp_path / "list.jsonl", own, shots, ways, 3) == drawn


def test_more_shots_are_the_same_episodes_with_more_supports() -> None:
    for one, five in zip(draw(pool(), 1, 1, 0, 50), draw(pool(), 5, 1, 0, 50), strict=True):
        assert one.query == five.query
        ((identity, keys),), ((other, more),) = one.support, five.support
        assert identity == other
        assert keys == more[:1]


def test_a_class_enters_with_more_pictures_than_shots_only() -> None:
    """Class 14 has three pictures: it takes part in 1 and 2 shots, not in 3."""
    own = pool(fewest=1)
    assert [own.classes(k) for k in (2, 3)] == [[11, 12, 13, 14, 15], [11, 12, 13, 15]]
    asked = {e.support[0][0] for e in draw(own, 3, 1, 0, 200)}
    assert asked == {11, 12, 13, 15}
    with pytest.raises(ValueError, match="0 have them"):
        draw(Pool.of(voc(9), PANET_417, 2, 1), 15, 1, 0)


def test_rare_classes_are_left_out_whatever_the_shots() -> None:
    """So that the mean over classes means the same for every K."""
    own = pool()
    assert own.left_out == {14: 3}
    assert own.classes(1) == own.classes(15) == [11, 12, 13, 15]
    assert "14" not in str(own.lines(VOC)[0])
    assert "fewer than 16 pictures: 14 (3)" in own.lines(VOC)[1]


def test_shots_and_ways_have_limits() -> None:
    for shots, ways, name in ((0, 1, "shots"), (16, 1, "shots"), (1, 6, "ways")):
        with pytest.raises(ValueError, match=name):
            draw(pool(), shots, ways, 0)


def test_the_pool_is_train_and_val() -> None:
    assert {s.split for s in pool().samples.values()} == {"train", "val"}
    assert not Pool.of(voc(), PANET_417, 1).samples


def test_class_first_asks_classes_alike() -> None:
    asked = Counter(e.support[0][0] for e in draw(pool(), 1, 1, 0, 800))
    assert all(150 < count < 250 for count in asked.values())


def test_pairs_go_on_where_the_last_run_stopped() -> None:
    """80 pairs: every fourth run of 60 meets each of them equally often."""
    own = pool(HSNET_400)
    runs = [draw(own, 1, 1, seed, 60) for seed in range(4)]
    met = Counter((e.query, e.support[0][0]) for run in runs for e in run)
    assert len(met) == 80
    assert set(met.values()) == {3}


def test_small_objects_are_left_out_where_the_protocol_says_so() -> None:
    small = {k for k, s in pool().samples.items() if s.classes.get(13) == 0.004}
    for protocol, queries, supports in (
        (PANET_417, True, True),
        (PFENET_473, False, False),
        (MLC_NATIVE, True, False),
    ):
        own = Pool.of(voc(), protocol, 2, 5)
        assert bool(small & set(own.queries[13])) is queries
        assert bool(small & set(own.supports[13])) is supports


def test_sizes() -> None:
    assert PANET_417.input_size((300, 448)) == (417, 417)
    assert PANET_417.input_size((300, 448), 16) == (416, 416)
    assert MLC_NATIVE.input_size((300, 448)) == (300, 448)
    assert MLC_NATIVE.input_size((300, 441), 14) == (294, 434 + 14 * (441 % 14 >= 7))
    assert PANET_417.counted((300, 448)) == {"417x417": (417, 417), "native": (300, 448)}
    assert PFENET_473.counted((300, 448)) == {"native": (300, 448)}
    assert (PFENET_473.geometry, HSNET_400.side, OSLSM_1000.side) == ("fit", 400, 500)
    assert OSLSM_1000.query_ignore == "background"


def test_folds_follow_the_names_of_the_classes() -> None:
    assert fold_for(voc(), PANET_417, 2).novel == (11, 12, 13, 14, 15)
    coco = ("background", "person", *map(str, range(2, 80)), "toothbrush")
    data = replace(voc(), class_names=coco)
    assert fold_for(data, PANET_417, 1).novel == tuple(range(21, 41))
    assert fold_for(data, HSNET_400, 1).novel == tuple(range(2, 81, 4))
    own = replace(voc(), class_names=("background", "bolt", "nut"))
    assert fold_for(own, PANET_417, 0).novel == (1, 2)
    with pytest.raises(ValueError, match="one fold"):
        fold_for(own, PANET_417, 1)


def test_a_set_split_by_class_is_asked_for_its_test_classes() -> None:
    samples = tuple(
        replace(picture(n, **{f"c{n % 4 + 1}": 0.1}), split="test" if n % 4 > 1 else "train")
        for n in range(12)
    )
    data = Dataset("fss", ("background", "a", "b", "c", "d"), "", samples)
    assert fold_for(data, PANET_417, 0).novel == (3, 4)
    assert Pool.of(data, PANET_417, 0).classes(1) == [3, 4]


def test_committed_lists_are_what_their_sums_say() -> None:
    lines = (LISTS / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    committed = sorted(LISTS.glob("panet-417-*.jsonl"))
    named = {p.name for p in committed} & set(sums)
    assert len(named) >= 55
    for path in committed:
        if path.name in sums:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[path.name], path.name


def test_the_committed_lists_are_drawn_again(tmp_path: Path) -> None:
    """On the real pictures: every protocol's first list, whoever draws it."""
    root = data_root()
    if root is None or not (root / "voc2012").is_dir():
        pytest.skip("needs the labelled set voc2012")
    sums = (LISTS / "SHA256SUMS").read_text()
    data, path = Dataset.open(root / "voc2012"), tmp_path / "list.jsonl"
    for name, protocol in PROTOCOLS.items():
        own = Pool.of(data, protocol, 3)
        write(path, draw(own, 1, 1, 0), facts_of(own, 1, 1, 0, 1000))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f"{digest}  {file_name(protocol, 3, 1, 1, 0)}" in sums, name
        path.unlink()
