import asyncio

import pytest

from ushape.serving.parts import while_connected
from ushape.serving.safety import Disconnected


async def stay():
    await asyncio.sleep(60)


async def leave():
    return {"type": "http.disconnect"}


def test_result_of_the_work_is_returned_and_its_errors_are_raised():
    async def work():
        return 3

    async def fail():
        raise ZeroDivisionError

    assert asyncio.run(while_connected(stay, work())) == 3
    with pytest.raises(ZeroDivisionError):
        asyncio.run(while_connected(stay, fail()))


def test_work_is_cancelled_when_the_client_leaves():
    cancelled = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(True)

    with pytest.raises(Disconnected):
        asyncio.run(while_connected(leave, work()))
    assert cancelled == [True]
