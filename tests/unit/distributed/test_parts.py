import pytest

from ushape.distributed.parts import WHOLE, Part, parse_part, part_of_task
from ushape.errors import ConfigError

NAMES = [f"scan{number:03d}.png" for number in range(300)]


def slurm(task, count, first, last, step=1):
    values = {"ID": task, "COUNT": count, "MIN": first, "MAX": last, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in values.items()}


def test_each_key_belongs_to_exactly_one_part():
    parts = [Part(number, 7) for number in range(1, 8)]
    assert all(sum(part.holds(name) for part in parts) == 1 for name in NAMES)
    assert all(WHOLE.holds(name) for name in NAMES)
    sizes = [sum(map(part.holds, NAMES)) for part in parts]
    assert min(sizes) > 20  # 43 on average.


def test_keys_stay_in_their_part_in_every_version():
    # A later version that divides otherwise would repeat images of an unfinished array.
    found = [next(n for n in range(1, 9) if Part(n, 8).holds(name)) for name in NAMES[:6]]
    assert found == [1, 2, 1, 3, 8, 1]


@pytest.mark.parametrize("text", ["1", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/4", ""])
def test_invalid_parts_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_part(text)
    assert caught.value.code == "invalid_part"


def test_parts_are_read_from_text():
    assert parse_part(" 3/8 ") == Part(3, 8)
    assert str(Part(3, 8)) == "3/8"
    assert parse_part("1/1").is_all


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (slurm(0, 8, 0, 7), Part(1, 8)),
        (slurm(8, 8, 1, 8), Part(8, 8)),
        (slurm(5, 8, 1, 15, 2), Part(3, 8)),
        (slurm(4, 1, 4, 4), WHOLE),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, Part(3, 10)),
        ({"JOB_COMPLETION_INDEX": "0", "USHAPE_PARTS": "5"}, Part(1, 5)),
        ({"USHAPE_PARTS": "5"}, WHOLE),
        ({}, WHOLE),
    ],
)
def test_part_of_a_task_is_read_from_the_variables_of_the_scheduler(environment, part):
    assert part_of_task(environment) == part


def test_variables_that_were_read_are_stated():
    origin = part_of_task(slurm(3, 8, 1, 8)).origin
    assert "SLURM_ARRAY_TASK_ID=3" in origin
    assert "SLURM_ARRAY_TASK_COUNT=8" in origin


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        (slurm(9, 3, 1, 9), "irregular_array"),  # --array=1,2,9
        (slurm(2, 3, 1, 9), "irregular_array"),
        (slurm(4, 3, 1, 5, 2), "irregular_array"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "array_size_unknown"),
        (slurm("x", 3, 1, 3), "invalid_array_variables"),
        ({"JOB_COMPLETION_INDEX": "0"}, "array_size_unknown"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, "array_size_unknown"),
        ({"JOB_COMPLETION_INDEX": "5", "USHAPE_PARTS": "5"}, "invalid_part"),
        ({"JOB_COMPLETION_INDEX": "1", "USHAPE_PARTS": "all"}, "invalid_array_variables"),
    ],
)
def test_variables_that_do_not_state_the_part_are_refused(environment, code):
    with pytest.raises(ConfigError) as caught:
        part_of_task(environment)
    assert caught.value.code == code
