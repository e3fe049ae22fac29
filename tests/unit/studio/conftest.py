"""Studios of small data folders."""

import pytest

from studio_client import Client, write_image, write_mask
from ushape.studio.project import Project
from ushape.studio.session import Studio


@pytest.fixture
def open_studio():
    """Function that opens a studio; all are closed at the end."""
    opened = []

    def open_folder(*arguments, **options):
        client = Client(Studio(Project(*arguments, **options)))
        opened.append(client.studio)
        return client

    yield open_folder
    for studio in opened:
        studio.close()


@pytest.fixture
def images(tmp_path):
    """A folder of three images without masks."""
    for number in range(3):
        write_image(tmp_path / "data" / "images" / f"{number}.png", number)
    return tmp_path / "data"


@pytest.fixture
def pairs(images):
    """A folder of three images with masks of 0 and 255."""
    for number in range(3):
        write_mask(images / "masks" / f"{number}.png", number)
    return images
