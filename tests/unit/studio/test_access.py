"""The token that keeps other users of the computer out of a studio."""

import os

import pytest

from studio_client import Client
from ushape.studio.access import Access
from ushape.studio.project import Project
from ushape.studio.session import Studio


@pytest.fixture
def guarded(images):
    """A client of a studio that needs a token, and its access."""
    project = Project(images)
    access = Access.of_folder(project.state, 8765)
    client = Client(Studio(project), access=access)
    yield client, access
    client.studio.close()


def test_token_stays_the_same_and_only_its_owner_reads_it(tmp_path):
    access = Access.of_folder(tmp_path, 1)
    assert len(access.token) >= 32
    assert Access.of_folder(tmp_path, 2).token == access.token
    assert Access.of_folder(tmp_path, 2).cookie != access.cookie  # Two studios in one browser.
    if os.name == "posix":
        assert (tmp_path / "access_token").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_token_that_others_could_read_or_choose_is_replaced(tmp_path):
    path = tmp_path / "access_token"
    former = Access.of_folder(tmp_path, 1).token
    path.chmod(0o644)
    assert Access.of_folder(tmp_path, 1).token != former
    path.unlink()
    (tmp_path / "own").write_text("chosen by another user")
    (tmp_path / "own").chmod(0o600)
    path.symlink_to(tmp_path / "own")
    assert Access.of_folder(tmp_path, 1).token != "chosen by another user"
    assert (tmp_path / "own").read_text() == "chosen by another user"


def test_requests_without_the_token_are_refused(guarded):
    client, access = guarded
    own = {"X-Ushape-Studio": "1"}
    for headers in (
        own,
        {**own, "Authorization": "Bearer wrong"},
        {**own, "Cookie": f"{access.cookie}=wrong"},
        {**own, "Cookie": f"other={access.token}"},
        {**own, "Authorization": f"Basic {access.token}"},
    ):
        for method, path in (("GET", "/api/images"), ("GET", "/api/state"), ("POST", "/api/check")):
            answer = client.ask(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "wrong_token")
    for headers in (
        {"Authorization": f"Bearer {access.token}"},
        {"Cookie": f"a=b; {access.cookie}={access.token}"},
    ):
        assert client.get("/api/images", headers=headers).status_code == 200


def test_page_is_opened_by_its_address_and_then_by_its_cookie(guarded):
    client, access = guarded
    refused = client.get("/")
    assert refused.status_code == 401
    assert "Open the address" in refused.text
    assert "<script" not in refused.text
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    opened = client.get("/", params={"token": access.token})
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    page = client.get("/", headers={"Cookie": cookie.partition(";")[0]})
    assert page.status_code == 200
    assert access.token not in page.text
