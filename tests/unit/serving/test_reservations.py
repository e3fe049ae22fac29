import asyncio
from types import SimpleNamespace

import pytest

from ushape.serving import reservations
from ushape.serving.refusals import Refusal
from ushape.serving.reservations import SPARE_BYTES, DiskBudget, Reservation
from ushape.serving.scheduler import Places, Scheduler


@pytest.fixture
def scheduler():
    found = Scheduler(None, max_tasks=4)
    yield found
    found.close()


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk with `free` bytes beside the spare space; a step has 10 bytes."""
    usage = SimpleNamespace(free=0)
    fake = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=SPARE_BYTES + usage.free))
    monkeypatch.setattr(reservations, "shutil", fake)
    monkeypatch.setattr(reservations, "STEP_BYTES", 10)
    return SimpleNamespace(usage=usage, budget=DiskBudget(tmp_path))


@pytest.fixture
def begin(scheduler, disk):
    """Begins requests of a stated size."""

    def begun(stated_bytes):
        found = Reservation(Places(scheduler), disk.budget)
        try:
            found.begin(stated_bytes)
        except Refusal:
            found.release()
            raise
        return found

    return begun


def receive(reservation, disk, *sizes):
    """Receive parts of these sizes, which are written to the disk at once."""

    async def chunks():
        for size in sizes:
            yield bytes(size)

    async def run():
        async for chunk in reservation.count(chunks()):
            disk.usage.free -= len(chunk)

    asyncio.run(run())


def refused(function, *arguments):
    with pytest.raises(Refusal) as refusal:
        function(*arguments)
    return refusal.value.status, refusal.value.code


def test_requests_together_must_fit_onto_the_disk(begin, disk):
    # A request takes three times its size: 60 of 100 bytes; 40 are left.
    disk.usage.free = 100
    first = begin(20)
    assert refused(begin, 14) == (503, "disk_full")
    second = begin(13)
    assert disk.budget.reserved_bytes == 99
    first.release()
    begin(20).release()
    second.release()
    assert disk.budget.reserved_bytes == 0


def test_received_bytes_are_not_counted_twice(begin, disk):
    disk.usage.free = 61
    first = begin(20)
    receive(first, disk, 5, 15)
    assert (disk.usage.free, disk.budget.reserved_bytes) == (41, 40)
    assert refused(begin, 1) == (503, "disk_full")
    first.release()
    begin(13).release()


def test_request_of_unknown_size_reserves_space_as_it_grows(begin, disk):
    # 30 bytes at the start, and 30 more with the 11th and the 21st received byte.
    disk.usage.free = 89
    request = begin(0)
    assert disk.budget.reserved_bytes == 30
    receive(request, disk, 10, 1)
    assert disk.budget.reserved_bytes == 60 - 11
    assert refused(receive, request, disk, 9, 1) == (503, "disk_full")
    request.release()
    assert disk.budget.reserved_bytes == 0


def test_part_that_is_larger_than_a_step_is_reserved_at_once(begin, disk):
    disk.usage.free = 1000
    request = begin(0)
    receive(request, disk, 100)
    assert disk.budget.reserved_bytes == 3 * 100 - 100


def test_request_ends_when_other_programs_have_filled_the_disk(begin, disk):
    disk.usage.free = 300
    request = begin(100)
    receive(request, disk, 9)
    disk.usage.free = -1
    assert refused(receive, request, disk, 1) == (503, "disk_full")
    request.release()
    assert disk.budget.reserved_bytes == 0


def test_places_are_taken_before_images_are_received(begin, disk, scheduler):
    disk.usage.free = 1000
    first, *_ = requests = [begin(1) for _ in range(4)]
    assert refused(begin, 1) == (429, "queue_full")
    requests[3].release()
    first.places.require(2)
    first.places.require(1)  # It keeps both.
    assert refused(begin, 1) == (429, "queue_full")
    assert refused(first.places.require, 5) == (413, "too_many_images")
    for one in requests:
        one.release()
    scheduler.reserve(4)
    assert disk.budget.reserved_bytes == 0


def test_request_that_does_not_fit_onto_the_disk_keeps_no_place(begin, disk, scheduler):
    assert refused(begin, 1) == (503, "disk_full")
    scheduler.reserve(4)
