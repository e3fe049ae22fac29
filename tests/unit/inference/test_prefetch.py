"""Read images in advance, compute batches of one size, and write results in order."""

import threading
from dataclasses import dataclass

import pytest

from ushape.errors import DataError
from ushape.inference.prefetch import AHEAD, AHEAD_PX, BATCH_PX, compute_ahead, map_ahead, overlap


@dataclass(frozen=True)
class Image:
    name: int
    pixels: int
    batch_key: object


def work(number):
    if number == 3:
        raise DataError("three")
    return number * number


def test_map_ahead_keeps_order_yields_data_errors_and_raises_others():
    found = list(map_ahead(work, range(20), ahead=lambda: 4))
    assert [item for item, _ in found] == list(range(20))
    assert [result for item, result in found if item != 3] == [n * n for n in range(20) if n != 3]
    assert isinstance(found[3][1], DataError)
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda number: 1 / number, [1, 0]))


def test_map_ahead_reads_no_further_than_allowed():
    started = []
    results = map_ahead(started.append, range(100), ahead=lambda: 4)
    next(results)
    assert len(started) <= 4
    results.close()
    assert len(started) <= 4


def test_map_ahead_processes_some_items_alone_in_the_calling_thread():
    threads, running = {}, []

    def watch(number):
        running.append(number)
        threads[number] = threading.get_ident()
        alone = list(running)
        running.remove(number)
        return alone

    found = list(map_ahead(watch, range(9), alone=lambda number: number == 5))
    assert [item for item, _ in found] == list(range(9))
    assert found[5][1] == [5]
    assert [number for number, own in threads.items() if own == threading.get_ident()] == [5]


def batches_of(images):
    batches = []

    def compute(batch):
        batches.append([image.name for image in batch])
        return [10 * image.name for image in batch]

    found = list(compute_ahead(images, read=lambda image: image, compute=compute))
    assert [one.item for one in found] == list(images)
    assert [one.result for one in found] == [10 * image.name for image in images]
    return batches


def test_compute_ahead_batches_consecutive_images_with_equal_keys():
    keys = ["a", "a", "a", "b", "a", None, None, "a"]
    images = [Image(number, 4, key) for number, key in enumerate(keys)]
    assert batches_of(images) == [[0, 1, 2], [3], [4], [5], [6], [7]]


def test_compute_ahead_limits_the_pixels_of_a_batch():
    images = [Image(number, BATCH_PX // 3, "a") for number in range(7)]
    assert batches_of(images) == [[0, 1, 2], [3, 4, 5], [6]]


def test_overlap_writes_in_order_and_yields_data_errors():
    written = []

    def read(number):
        work(number)
        return Image(number, 4, number % 2)

    def write(number, image):
        if number == 7:
            raise DataError("seven")
        written.append(number)
        return image.name

    found = dict(overlap(range(12), read=read, compute=list, write=write))
    good = [number for number in range(12) if number not in (3, 7)]
    assert written == good
    assert list(found) == list(range(12))
    assert [found[number] for number in good] == good
    assert isinstance(found[3], DataError)
    assert isinstance(found[7], DataError)


@pytest.mark.parametrize(("pixels", "most"), [(4, AHEAD), (AHEAD_PX // 2, 2), (2 * AHEAD_PX, 1)])
def test_compute_ahead_does_not_read_large_images_in_advance(pixels, most):
    read = []

    def read_one(number):
        read.append(number)
        return Image(number, pixels, number)

    found = compute_ahead(range(20), read=read_one, compute=list)
    assert (
        max(len(read) - one.item for one in found) <= most + 1
    )  # The image that waits for others of its size.


def test_compute_ahead_computes_the_images_of_a_failed_batch_alone():
    def compute(batch):
        if any(image.name == 1 for image in batch):
            raise DataError("NaN")
        return [10 * image.name for image in batch]

    images = [Image(number, 4, "a") for number in range(3)]
    found = list(compute_ahead(images, read=lambda image: image, compute=compute))
    assert [one.result for one in found if one.item.name != 1] == [0, 20]
    assert isinstance(found[1].result, DataError)
