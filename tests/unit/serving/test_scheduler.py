import threading
from concurrent.futures import CancelledError, wait
from types import SimpleNamespace

import numpy as np
import pytest

from ushape.errors import DataError
from ushape.inference.streaming import StreamedImage, StreamedPrediction
from ushape.serving.refusals import Refusal
from ushape.serving.scheduler import Cancelled, Scheduler, Task


class FakePredictor:
    """Predicts the name of each image, once `released` is set."""

    def __init__(self):
        self.batches, self.bands_seen, self.bands_before = [], [], []
        self.keeps_distance = []
        self.released, self.started = threading.Event(), threading.Event()
        self.released.set()

    def predict(self, images):
        self.started.set()
        assert self.released.wait(30)
        self.batches.append([image.name for image in images])
        self.bands_before.append(len(self.bands_seen))
        if any(image.name == "bad" for image in images):
            raise DataError("Bad.", code="bad")
        return [image.name.upper() for image in images]

    def stream(self, image, *, keep_distance):
        self.keeps_distance.append(keep_distance)

        def bands():
            for number in range(4):
                self.started.set()
                assert self.released.wait(30)
                self.bands_seen.append(number)
                yield np.zeros((1, 5, 8)), np.zeros((5, 8)), None

        return StreamedPrediction(image.bands, bands())


class FakeBands:
    shape = (1, 20, 8)
    is_closed = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.is_closed = True


def task(name, shape=(4, 4), pixels=16):
    image = SimpleNamespace(name=name, batch_key=shape, pixels=pixels)
    return Task(lambda: image, lambda prediction: f"<{prediction}>", pixels)


def large_task(bands, **changes):
    return Task(lambda: StreamedImage(bands), lambda found: len(list(found.bands)), 160, **changes)


@pytest.fixture
def fake():
    return FakePredictor()


@pytest.fixture
def scheduler(fake):
    found = Scheduler(fake, max_tasks=8)
    yield found
    fake.released.set()
    found.close()


def test_large_images_keep_the_distance_if_their_objects_are_numbered(scheduler, fake):
    tasks = [large_task(FakeBands(), keep_distance=keeps) for keeps in (True, False)]
    for one in tasks:
        scheduler.submit([one])
        assert one.future.result(30) == 4
    assert fake.keeps_distance == [True, False]


def test_images_are_read_predicted_and_written(scheduler):
    tasks = [task("a"), task("b")]
    scheduler.submit(tasks)
    assert [one.future.result(30) for one in tasks] == ["<A>", "<B>"]
    assert tasks[0].progress == 1.0
    assert scheduler.open_tasks == 0


def hold(scheduler, fake):
    """Keep the network busy with an image, so that others wait."""
    fake.released.clear()
    first = task("first")
    scheduler.submit([first])
    assert fake.started.wait(30)
    return first


def wait_until_read(scheduler, count):
    with scheduler._changed:
        assert scheduler._changed.wait_for(lambda: len(scheduler._small) == count, 30)


def test_waiting_images_of_one_shape_share_a_batch(scheduler, fake):
    hold(scheduler, fake)
    others = [task("a"), task("wide", (4, 9)), task("b")]
    scheduler.submit(others)
    wait_until_read(scheduler, 3)
    fake.released.set()
    wait([one.future for one in others], 30)
    assert fake.batches == [["first"], ["a", "b"], ["wide"]]


def test_bad_image_leaves_the_others_of_its_batch_alone(scheduler, fake):
    hold(scheduler, fake)
    good, bad = task("good"), task("bad")
    scheduler.submit([good, bad])
    wait_until_read(scheduler, 2)
    fake.released.set()
    assert good.future.result(30) == "<GOOD>"
    with pytest.raises(DataError) as error:
        bad.future.result(30)
    assert error.value.code == "bad"


def test_full_queue_takes_all_tasks_or_none(scheduler, fake):
    hold(scheduler, fake)
    with pytest.raises(Refusal) as refusal:
        scheduler.submit([task(str(number)) for number in range(8)])
    assert refusal.value.status == 429
    assert scheduler.open_tasks == 1
    scheduler.submit([task(str(number)) for number in range(7)])
    with pytest.raises(Refusal):
        scheduler.reserve(1)


def test_reserved_places_are_for_their_tasks_only(scheduler, fake):
    hold(scheduler, fake)
    scheduler.reserve(6)
    with pytest.raises(Refusal) as refusal:
        scheduler.submit([task("a"), task("b")])
    assert refusal.value.code == "queue_full"
    scheduler.submit([task(str(number)) for number in range(3)], held=3)
    scheduler.release(3)
    scheduler.submit([task(str(number)) for number in range(4)])
    with pytest.raises(Refusal):
        scheduler.submit([task("c")])


def test_more_images_than_places_are_never_asked_to_come_again(scheduler):
    with pytest.raises(Refusal) as refusal:
        scheduler.submit([task(str(number)) for number in range(9)])
    assert (refusal.value.status, refusal.value.code) == (413, "too_many_images")


def test_small_images_are_predicted_between_the_bands_of_a_large_one(scheduler, fake):
    fake.released.clear()
    bands, small = FakeBands(), task("small")
    large = large_task(bands)
    scheduler.submit([large])
    assert fake.started.wait(30)
    scheduler.submit([small])
    wait_until_read(scheduler, 1)
    fake.released.set()
    assert large.future.result(30) == 4
    assert small.future.result(30) == "<SMALL>"
    assert fake.bands_before == [1]
    assert (large.progress, bands.is_closed) == (1.0, True)


def test_large_image_is_stopped_after_a_band(scheduler, fake):
    fake.released.clear()
    bands = FakeBands()
    large = large_task(bands)
    scheduler.submit([large])
    assert fake.started.wait(30)
    large.cancel()
    fake.released.set()
    with pytest.raises(Cancelled):
        large.future.result(30)
    assert len(fake.bands_seen) < 4
    assert bands.is_closed


def test_cancelled_image_is_not_predicted(scheduler, fake):
    first = hold(scheduler, fake)
    other = task("other")
    scheduler.submit([other])
    wait_until_read(scheduler, 1)
    other.cancel()
    fake.released.set()
    assert first.future.result(30) == "<FIRST>"
    with pytest.raises((Cancelled, CancelledError)):
        other.future.result(30)


def test_reading_waits_for_room_in_memory(scheduler, fake):
    hold(scheduler, fake)
    huge = [task(str(number), pixels=10**9) for number in range(2)]
    scheduler.submit(huge)
    assert not huge[1].future.running()
    fake.released.set()
    assert [one.future.result(30) for one in huge] == ["<0>", "<1>"]


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError()])
def test_errors_of_reading_and_writing_are_results(scheduler, error):
    def fail(*arguments):
        raise error

    reading, writing = task("a"), task("b")
    reading.read, writing.write = fail, fail
    scheduler.submit([reading, writing])
    for one in (reading, writing):
        found = one.future.exception(30)
        assert found is error or found.code == "image_too_large"
    assert scheduler.open_tasks == 0
    again = task("again", pixels=10**9)
    scheduler.submit([again])
    assert again.future.result(30) == "<AGAIN>"


def test_close_cancels_what_waits(fake):
    scheduler = Scheduler(fake, max_tasks=8)
    hold(scheduler, fake)
    other = task("other")
    scheduler.submit([other])
    threading.Timer(0.05, fake.released.set).start()
    scheduler.close()
    assert other.future.done() or other.is_cancelled
