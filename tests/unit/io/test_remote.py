import errno
import os
from pathlib import Path

import fsspec
import pytest

from codes import raises_code
from ushape.errors import ConfigError, DataError, MissingPackageError, RunError, TemporaryError
from ushape.io import remote
from ushape.io.remote import RemoteFile, RemoteFolder, shown, url_of
from ushape.io.remote_errors import explain


@pytest.fixture
def memory():
    """An empty file system in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/x.png", "s3://bucket/x.png"),
        (Path("s3://bucket/x.png"), "s3://bucket/x.png"),
        (Path("S3://bucket"), "s3://bucket"),
        (Path("https://host/a.png?x=1"), "https://host/a.png?x=1"),
        ("scans/x.png", None),
        (Path("/data/s3:/x"), None),
        ("C:/data", None),
        ("mine.py:recipe", None),
        ("-", None),
    ],
)
def test_url_is_recognized_also_as_a_path(path, url):
    assert url_of(path) == url


def test_existing_folder_with_the_name_of_a_protocol_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    assert url_of(Path("s3:/bucket/x")) is None
    assert url_of("s3://bucket/x") == "s3://bucket/x"


def test_shown_url_has_no_signature():
    assert shown("https://host/a.png?X-Amz-Signature=abc") == "https://host/a.png"


def test_shown_url_has_no_password():
    assert shown("s3://key:secret@bucket/a@b.png") == "s3://bucket/a@b.png"


@pytest.mark.parametrize(("other", "name"), [("s3a", "s3"), ("gcs", "gs"), ("S3", "s3")])
def test_names_of_one_protocol_give_equal_urls(other, name):
    assert url_of(f"{other}://bucket/x") == url_of(f"{name}://bucket/x") == f"{name}://bucket/x"


@pytest.mark.parametrize(
    ("url", "error_class", "code"),
    [
        ("foo://bucket/x", ConfigError, "unknown_protocol"),
        ("file:///etc/passwd", ConfigError, "unknown_protocol"),
        ("https://me:secret@host/x.png", ConfigError, "credentials_in_url"),
    ],
)
def test_url_that_cannot_be_opened_is_refused(url, error_class, code):
    with pytest.raises(error_class) as error:
        RemoteFolder(url)
    assert error.value.code == code
    assert "secret" not in str(error.value)


def test_missing_package_names_how_to_install_it(monkeypatch):
    def fail(protocol, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "filesystem", fail)
    with pytest.raises(MissingPackageError) as error:
        RemoteFolder("gs://bucket/x")
    assert "pip install gcsfs" in error.value.hint


def test_files_are_listed_and_copied_with_their_version(memory, tmp_path):
    memory.pipe({"/data/images/a.png": b"first", "/data/b.txt": b"second", "/database/c": b""})
    folder = RemoteFolder("memory://data/")
    files = folder.list_files()
    assert list(files) == ["b.txt", "images/a.png"]
    assert not folder.is_file
    done = []
    folder.fetch_all(files.values(), tmp_path, lambda: done.append(1))
    assert len(done) == 2
    target = tmp_path / "images/a.png"
    assert target.read_bytes() == b"first"
    assert files["images/a.png"].is_copied(target)
    os.utime(target)
    assert not files["images/a.png"].is_copied(target)
    assert not any(path.name.startswith(".") for path in tmp_path.rglob("*"))


def test_url_of_a_file_lists_this_file(memory, tmp_path):
    memory.pipe({"/data/a.png": b"first"})
    folder = RemoteFolder("memory://data/a.png")
    assert list(folder.list_files()) == ["a.png"]
    assert folder.is_file
    folder.fetch(folder.list_files()["a.png"], tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == b"first"


def test_names_that_leave_the_folder_are_not_listed(monkeypatch, memory):
    found = {f"/data/{name}": {"size": 1} for name in ("a.png", "../b", "x//y", "./c", "n\0")}
    folder = RemoteFolder("memory://data")
    monkeypatch.setattr(type(memory), "find", lambda self, path, detail: found)
    assert list(folder.list_files()) == ["a.png"]


def test_outputs_are_written_read_and_removed(memory, tmp_path):
    (tmp_path / "a").write_bytes(b"mask")
    folder = RemoteFolder("memory://out")
    assert folder.list_files() == {}
    folder.put_all({"x/a.png": tmp_path / "a"})
    folder.put_bytes(b"log", "log.jsonl")
    assert folder.read_bytes("log.jsonl") == b"log"
    assert sorted(folder.list_files()) == ["log.jsonl", "x/a.png"]
    folder.remove("log.jsonl")
    folder.remove("log.jsonl")
    assert sorted(folder.list_files()) == ["x/a.png"]


def failing(monkeypatch, memory, *errors):
    """Let the next calls of `find` raise these errors."""
    left, find = list(errors), type(memory).find

    def find_later(self, *arguments, **options):
        if left:
            raise left.pop(0)
        return find(self, *arguments, **options)

    monkeypatch.setattr(type(memory), "find", find_later)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.0)


def test_transient_errors_are_repeated(monkeypatch, memory):
    memory.pipe({"/data/a.png": b"first"})
    failing(
        monkeypatch, memory, ConnectionError("reset"), TimeoutError(), OSError(errno.EIO, "busy")
    )
    assert list(RemoteFolder("memory://data").list_files()) == ["a.png"]


def test_server_that_does_not_come_back_is_an_error_that_says_how_to_continue(monkeypatch, memory):
    failing(monkeypatch, memory, *[ConnectionError("https://host/a?secret=1")] * 3)
    with pytest.raises(TemporaryError) as error:
        RemoteFolder("memory://data", patience_s=0).list_files()
    assert error.value.code == "remote_unreachable"
    assert "run the same command again to continue" in error.value.hint
    assert "secret" not in str(error.value)


class NoCredentialsError(Exception):
    """Stands for the exception of botocore."""


@pytest.mark.parametrize(
    ("problem", "error_class", "code"),
    [
        (PermissionError("Access Denied"), ConfigError, "remote_denied"),
        (NoCredentialsError("none"), ConfigError, "remote_credentials"),
        (FileNotFoundError("The specified bucket does not exist"), DataError, "file_not_found"),
        (OSError(errno.EINVAL, "The specified bucket is not valid."), DataError, "remote_failed"),
        (ValueError("bad address"), DataError, "remote_failed"),
    ],
)
def test_lasting_errors_are_not_repeated(monkeypatch, memory, problem, error_class, code):
    failing(monkeypatch, memory, problem)
    with pytest.raises(error_class) as error:
        RemoteFolder("memory://data").list_files()
    assert error.value.code == code


class HttpError(Exception):
    """Stands for the exception of gcsfs, which has the status as `code`."""

    __module__ = "gcsfs.retry"

    def __init__(self, code):
        super().__init__(f"Answer of the server, {code}")
        self.code = code


@pytest.mark.parametrize(
    ("problem", "error_class", "code"),
    [
        (HttpError(400), DataError, "remote_failed"),
        (HttpError("400"), DataError, "remote_failed"),
        (HttpError(401), ConfigError, "remote_credentials"),
        (HttpError(403), ConfigError, "remote_denied"),
        (HttpError(404), DataError, "file_not_found"),
        (OSError("Forbidden: https://host/o/a.png\nno access"), ConfigError, "remote_denied"),
    ],
)
def test_lasting_errors_of_google_are_not_repeated(monkeypatch, memory, problem, error_class, code):
    failing(monkeypatch, memory, problem)
    with raises_code(error_class, code):
        RemoteFolder("memory://data", patience_s=0).list_files()


@pytest.mark.parametrize("status", [408, 429, "429", 500, 503, None])
def test_transient_errors_of_google_are_repeated(monkeypatch, memory, status):
    memory.pipe({"/data/a.png": b"first"})
    failing(monkeypatch, memory, HttpError(status), OSError("reset"))
    assert list(RemoteFolder("memory://data").list_files()) == ["a.png"]


def test_file_that_google_denies_is_an_error_of_this_file(memory, tmp_path, monkeypatch):
    def deny(*arguments):
        raise OSError("Forbidden: https://host/o/a.png\nno access")

    monkeypatch.setattr(type(memory), "get_file", deny)
    with raises_code(DataError, "remote_denied"):
        RemoteFolder("memory://bucket").fetch(RemoteFile("a.png", 1, ""), tmp_path / "a.png")


def test_transfers_that_were_given_up_are_neither_begun_nor_repeated(monkeypatch, memory):
    memory.pipe({"/data/a.png": b"first"})
    folder = RemoteFolder("memory://data")

    def fail(*arguments, **options):
        folder.give_up()
        raise ConnectionError("reset")

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "cat_file", fail)
        with raises_code(TemporaryError, "remote_canceled"):
            folder.read_bytes("a.png")
    with raises_code(TemporaryError, "remote_canceled"):
        folder.put_bytes(b"second", "b.png")
    assert list(memory.store) == ["/data/a.png"]


def test_file_that_is_cut_off_is_not_written(monkeypatch, memory, tmp_path):
    def cut(self, source, target):
        Path(target).write_bytes(b"fir")

    memory.pipe({"/data/a.png": b"first"})
    monkeypatch.setattr(type(memory), "get_file", cut)
    with pytest.raises(RunError) as error:
        RemoteFolder("memory://data", patience_s=0).fetch(
            RemoteFile("a.png", 5, "1"), tmp_path / "a.png"
        )
    assert error.value.code == "remote_unreachable"
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_reported_before_the_transfer(tmp_path):
    with pytest.raises(RunError) as error:
        remote.require_space(tmp_path, 1 << 60, "The copy", "Free space.")
    assert error.value.code == "remote_too_large"


@pytest.mark.parametrize("url", ["s3://", "s3:///x.png", Path("s3://"), "https://"])
def test_url_without_a_server_is_refused(url):
    with raises_code(ConfigError, "no_bucket"):
        url_of(url)


@pytest.mark.parametrize(
    "url", ["http://host", "http://host/", "http://host/folder/", "http://h?x"]
)
def test_url_of_a_web_server_without_a_file_is_refused(url):
    with raises_code(DataError, "remote_not_listed"):
        RemoteFolder(url).list_files()


def test_shown_url_of_an_object_store_keeps_a_question_mark():
    assert shown("s3://bucket/what?.png") == "s3://bucket/what?.png"


@pytest.mark.parametrize("url", ["memory://bucket//x", "memory://bucket//x//"])
def test_slashes_after_the_bucket_are_one(memory, url):
    memory.pipe({"/bucket/x/a.png": b"1"})
    remote = RemoteFolder(url)
    assert list(remote.list_files()) == ["a.png"]
    assert remote.address_of("a.png") == "memory://bucket/x/a.png"


@pytest.mark.parametrize("name", ["100%.png", "a%20b.png", "x&y.png", "c#1.png"])
def test_file_at_a_url_keeps_its_name(memory, name):
    memory.pipe({f"/bucket/{name}": b"1"})
    assert list(RemoteFolder(f"memory://bucket/{name}").list_files()) == [name]


def test_names_that_no_local_file_can_have_are_stated(memory, monkeypatch):
    found = {f"/bucket/{name}": {} for name in ("a.png", "/b.png", "../c.png", "x/")}
    monkeypatch.setattr(type(memory), "find", lambda self, path, detail: found)
    remote = RemoteFolder("memory://bucket")
    assert list(remote.list_files()) == ["a.png"]
    assert remote.left_out == ["../c.png", "/b.png"]


def test_file_that_has_changed_since_it_was_listed_is_refused_at_once(memory, tmp_path):
    memory.pipe({"/bucket/a.png": b"1"})
    remote = RemoteFolder("memory://bucket")
    file = remote.list_files()["a.png"]
    memory.pipe({"/bucket/a.png": b"22"})
    with raises_code(DataError, "remote_changed"):
        remote.fetch(file, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_denied_file_is_an_error_of_this_file(memory, tmp_path, monkeypatch):
    def deny(*arguments):
        raise PermissionError("Forbidden")

    monkeypatch.setattr(type(memory), "get_file", deny)
    with raises_code(DataError, "remote_denied"):
        RemoteFolder("memory://bucket").fetch(RemoteFile("a.png", 1, ""), tmp_path / "a.png")


def test_web_server_that_asks_for_a_password_is_an_error_of_its_file(tmp_path, monkeypatch):
    class UnauthorizedError(Exception):
        status = 401

    def refuse(*arguments):
        raise UnauthorizedError

    monkeypatch.setattr(RemoteFolder, "_copy_from_web", refuse)
    with raises_code(DataError, "remote_credentials"):
        RemoteFolder("https://host/a.png").fetch(RemoteFile("a.png", 1, ""), tmp_path / "a.png")


class ClientError(Exception):
    """Stands for the exception of botocore, which holds the answer of the server."""

    def __init__(self, code):
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code, "Message": "The provided token has expired."}}


def translated(code):
    """Return the error that s3fs raises, with the one of botocore as its cause."""
    cause = ClientError(code)
    return pytest.importorskip("s3fs.errors").translate_boto_error(cause)


@pytest.mark.parametrize(
    "code",
    [
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "TokenRefreshRequired",
    ],
)
@pytest.mark.parametrize("make", [translated, ClientError])
def test_expired_credentials_are_no_error_of_a_single_file(
    memory, tmp_path, monkeypatch, code, make
):
    def refuse(*arguments):
        raise make(code)

    monkeypatch.setattr(type(memory), "get_file", refuse)
    with raises_code(TemporaryError, "remote_credentials") as caught:
        RemoteFolder("memory://bucket").fetch(RemoteFile("a.png", 1, ""), tmp_path / "a.png")
    assert code in caught.value.message
    assert "run the same command again" in caught.value.hint
    assert ("clock" in caught.value.hint) == (code == "RequestTimeTooSkewed")


@pytest.mark.parametrize(
    "code", ["InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"]
)
@pytest.mark.parametrize("make", [translated, ClientError])
def test_wrong_credentials_end_the_call_and_are_not_temporary(
    memory, tmp_path, monkeypatch, code, make
):
    def refuse(*arguments):
        raise make(code)

    monkeypatch.setattr(type(memory), "get_file", refuse)
    with raises_code(ConfigError, "remote_credentials") as caught:
        RemoteFolder("memory://bucket").fetch(RemoteFile("a.png", 1, ""), tmp_path / "a.png")
    assert code in caught.value.message


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        ("PermanentRedirect", ConfigError),
        ("301", ConfigError),
        ("EntityTooLarge", DataError),
        ("NotImplemented", DataError),
        ("BucketNotEmpty", DataError),
        ("BucketAlreadyExists", DataError),
        ("PreconditionFailed", DataError),
    ],
)
def test_lasting_errors_of_s3_are_not_repeated(monkeypatch, memory, code, error_class):
    failing(monkeypatch, memory, translated(code))
    with raises_code(error_class, "remote_failed"):
        RemoteFolder("memory://data", patience_s=0).list_files()


@pytest.mark.parametrize(
    "problem", [FileExistsError("a"), *map(OSError, (errno.ENOTEMPTY, errno.EMSGSIZE), "ab")]
)
def test_lasting_system_errors_are_not_repeated(monkeypatch, memory, problem):
    failing(monkeypatch, memory, problem)
    with raises_code(DataError, "remote_failed"):
        RemoteFolder("memory://data", patience_s=0).list_files()


@pytest.mark.parametrize(
    "make",
    [
        lambda: translated("SlowDown"),
        lambda: translated("TemporaryRedirect"),
        lambda: translated("InternalError"),
        lambda: ConnectionResetError(errno.ECONNRESET, "reset"),
        lambda: pytest.importorskip("aiohttp").ClientOSError(errno.ENETUNREACH, "unreachable"),
    ],
)
def test_transient_errors_of_a_copy_are_repeated(memory, tmp_path, monkeypatch, make):
    left, get_file = [make(), make()], type(memory).get_file

    def get_later(self, *arguments):
        if left:
            raise left.pop()
        get_file(self, *arguments)

    memory.pipe({"/data/a.png": b"first"})
    monkeypatch.setattr(type(memory), "get_file", get_later)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.0)
    RemoteFolder("memory://data").fetch(RemoteFile("a.png", 5, ""), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"first"


def test_full_disk_during_a_copy_is_not_repeated(memory, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(memory), "get_file", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        RemoteFolder("memory://data").fetch(RemoteFile("a.png", 5, ""), tmp_path / "a.png")
    assert caught.value.filename == str(tmp_path / "a.png")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState", "403"])
def test_file_that_the_server_denies_is_an_error_of_this_file(memory, tmp_path, monkeypatch, code):
    def deny(*arguments):
        raise translated(code)

    monkeypatch.setattr(type(memory), "get_file", deny)
    with raises_code(DataError, "remote_denied"):
        RemoteFolder("memory://bucket").fetch(RemoteFile("a.png", 1, ""), tmp_path / "a.png")


def test_name_that_is_too_long_or_taken_is_an_error_of_this_file(memory, tmp_path):
    memory.pipe({f"/bucket/{'n' * 300}": b"1", "/bucket/a/b": b"1"})
    (tmp_path / "a").write_bytes(b"")
    remote = RemoteFolder("memory://bucket")
    for name, code in (("n" * 300, "remote_name_too_long"), ("a/b", "remote_name_conflict")):
        with raises_code(DataError, code):
            remote.fetch(RemoteFile(name, 1, ""), tmp_path / name)


@pytest.mark.parametrize(
    ("url", "name"),
    [("gs://bucket/a", "GOOGLE_APPLICATION_CREDENTIALS"), ("s3://bucket/a", "AWS_ACCESS_KEY_ID")],
)
def test_missing_credentials_are_those_of_the_provider(url, name):
    error = explain(HttpError(401), url)
    assert isinstance(error, ConfigError)
    assert name in error.hint
