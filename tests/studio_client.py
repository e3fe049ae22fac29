"""Small data folders, and a client of the studio without a network."""

import asyncio

import httpx
import numpy as np
from PIL import Image

from ushape.studio.app import build_app

SHAPE = (24, 32)


def write_image(path, seed=0, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def write_mask(path, seed=0, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[4 + seed : 12 + seed, 6:20] = value
    Image.fromarray(mask).save(path)
    return path


class Client:
    """Sends requests to the application, as the page does."""

    def __init__(self, studio, headers=None, access=None):
        self.studio = studio
        # FastAPI ignores a warning while it is built; other threads would change the filters.
        studio.wait_for_appearance(60)
        studio.project.saver.flush()
        self.app = build_app(studio, access=access)
        self.headers = {"X-Ushape-Studio": "1"} if headers is None else headers

    def ask(self, method, path, headers=None, **options):
        async def send():
            transport = httpx.ASGITransport(self.app)
            address = "http://127.0.0.1:8765"
            async with httpx.AsyncClient(transport=transport, base_url=address) as client:
                given = self.headers if headers is None else headers
                return await client.request(method, path, headers=given, **options)

        return asyncio.run(send())

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.ask("POST", path, json={} if body is None else body, **options)

    @property
    def ids(self):
        return list(self.studio.project.images)

    def edit(self, image_id, tool, *points, revision=None, **values):
        if revision is None:
            revision = self.studio.project.annotation(image_id).revision
        body = {"revision": revision, "tool": tool, "points": points, **values}
        return self.post(f"/api/images/{image_id}/edit", body)
