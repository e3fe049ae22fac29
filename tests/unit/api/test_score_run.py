"""Which cases a run has seen, and what the report says about it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ushape.api._score_run import KnownCases, _reproduce_lines
from ushape.data.splits import Splits
from ushape.types import Case


@pytest.fixture
def cases(tmp_path):
    """Five cases of five groups, each with an image of its own."""
    made = []
    for number in range(5):
        image = tmp_path / f"{number}.png"
        image.write_bytes(bytes([number]) * 10)
        made.append(Case(id=str(number), image=image, group=f"g{number}"))
    return made


@pytest.fixture
def known(cases):
    splits = Splits(train=("0", "1"), validation=("2",), test=("3", "4"), text="Split.", unused=())
    return KnownCases.of(splits, cases)


def test_count_seen_finds_the_same_file_and_exact_copies(known, cases, tmp_path):
    assert known.count_seen(cases) == 3
    copy = shutil.copy(cases[1].image, tmp_path / "copy.png")
    other = tmp_path / "other.png"
    other.write_bytes(b"x" * 10)
    assert known.count_seen([Case(id="a", image=tmp_path / copy), cases[3]]) == 1
    assert known.count_seen([Case(id="b", image=other)]) == 0
    assert known.count_seen([Case(id="c", image=tmp_path / "missing.png")]) == 0


def test_describe_leaks_distinguishes_own_and_other_data(known, cases, tmp_path):
    own = known.describe_leaks(cases[3:], 0)
    assert own[0].startswith("No group of these cases")
    other = known.describe_leaks([Case(id="a", image=tmp_path / "new.png")], 1)
    assert other[0].startswith("These cases are not the test set")
    assert other[1].startswith("Images that were also used in training or validation")


def test_describe_leaks_names_shared_groups(cases):
    splits = Splits(train=("0", "3"), validation=("2",), test=("3",), text="", unused=())
    lines = KnownCases.of(splits, cases).describe_leaks([cases[3]], 1)
    assert "g3" in lines[0]


@pytest.mark.parametrize(
    ("minutes", "threads", "text"),
    [(None, 2, "cpu, 2 threads (train.threads=2)"), (None, 1, "cpu, 1 thread (train.threads=1)"),
     (5.0, 2, "cpu, up to 2 threads (train.threads=2)")],
)  # fmt: skip
def test_report_states_threads_and_plan_to_repeat_a_training(minutes, threads, text):
    run = SimpleNamespace(
        weight_facts=lambda: {"epoch": 3},
        command="ushape train DATA",
        image_paths=list,
        data_checksum="",
        plan_path=Path("run/plan.json"),
    )
    plan = SimpleNamespace(
        recipe=SimpleNamespace(train=SimpleNamespace(threads=threads, minutes=minutes), seed=0),
        machine=SimpleNamespace(name="processor", cores=2, device="cpu"),
        encoder=None,
    )
    lines = _reproduce_lines(run, plan)
    assert f"processor, 2 cores, {text}" in lines
    assert any("ushape train DATA --plan run/plan.json" in line for line in lines)


def test_count_seen_compares_pages_and_parts_of_files_and_of_their_copies(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "three").write_bytes(b"else")
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    left, right = ((0, 4), (0, 5)), ((0, 4), (5, 9))

    def part(name, image, **place):
        return Case(id=name, image=image, group="g", **place)

    used = [part("p/1", one, page=0), part("q/1", three, box=left)]
    splits = Splits(train=("p/1", "q/1"), validation=(), test=(), text="", unused=())
    known = KnownCases.of(splits, used)
    assert known.count_seen([part("x/1", two, page=0), part("p/1", two, page=1)]) == 1
    assert known.count_seen([part("q/2", three, box=right)]) == 0
    assert known.count_seen([part("y", three, box=((3, 4), (4, 6))), part("z", three)]) == 2
