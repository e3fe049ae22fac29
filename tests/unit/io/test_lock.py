import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from codes import raises_code
from ushape.errors import RunError
from ushape.io import lock
from ushape.io.lock import LOCK_FILE, is_unused, locked

HOLD = """
import sys, time
from pathlib import Path
from ushape.io.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Process that has locked the folder `run`."""
    command = [sys.executable, "-c", HOLD, tmp_path / "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_locked_refuses_a_folder_of_another_process_until_it_is_killed(holder, tmp_path):
    with pytest.raises(RunError) as caught, locked(tmp_path / "run"):
        pass
    assert caught.value.code == "folder_in_use"
    assert f"process {holder.pid}" in caught.value.message
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK_FILE).exists()  # It is left, and does not matter.
    assert is_unused(tmp_path / "run")
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_locked_refuses_a_folder_of_another_thread(tmp_path):
    codes = []

    def try_lock():
        try:
            with locked(tmp_path / "run"):
                codes.append("locked")
        except RunError as error:
            codes.append(error.code)

    with locked(tmp_path / "run"):
        thread = threading.Thread(target=try_lock)
        thread.start()
        thread.join()
    try_lock()
    assert codes == ["folder_in_use", "locked"]


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_locked_is_not_inherited_by_forked_processes(tmp_path):
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_locked_ignores_the_file_of_a_process_with_the_same_number(tmp_path):
    (tmp_path / LOCK_FILE).write_text(f'{{"process": {os.getpid()}, "started": 1, "host": "x"}}')
    with locked(tmp_path):
        pass


def test_locked_removes_only_folders_without_files(tmp_path):
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert (tmp_path / "a" / "b" / "file").exists()
    with locked(tmp_path / "c" / "d"):
        pass
    assert not (tmp_path / "c").exists()


def test_locked_refuses_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as caught, locked(tmp_path / "file"):
        pass
    assert caught.value.code == "output_is_file"
    with pytest.raises(RunError) as caught, locked(tmp_path / "file" / "below"):
        pass
    assert caught.value.code == "output_not_writable"


def test_locked_survives_the_removal_of_its_folder(tmp_path):
    with locked(tmp_path / "run"):
        (tmp_path / "run" / LOCK_FILE).unlink()
        (tmp_path / "run").rmdir()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission")
def test_lock_file_that_is_a_link_is_refused_and_its_target_kept(tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("text")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK_FILE).symlink_to(other)
    with raises_code(RunError, "output_not_writable"), locked(tmp_path / "run"):
        pass
    assert other.read_text() == "text"


def hold(folder, **options):
    code = HOLD.replace("sys.argv[1])", f"sys.argv[1]), **{options}")
    command = [sys.executable, "-c", code, folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="shared locks are bytes of the file there")
def test_shared_lock_admits_only_those_that_share_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ushape.io.lock.RETRIES", 0)
    others = [hold(tmp_path / "run", shared=True) for _ in range(2)]
    with locked(tmp_path / "run", shared=True):
        pass
    for other in others:
        with raises_code(RunError, "folder_in_use"), locked(tmp_path / "run"):
            pass
        other.kill()
        other.communicate()
    with locked(tmp_path / "run"):
        pass
    owner = hold(tmp_path / "run")
    with raises_code(RunError, "folder_in_use"), locked(tmp_path / "run", shared=True):
        pass
    owner.kill()
    owner.communicate()


@pytest.fixture(params=["no locks", "local locks"])
def without_locks_between_machines(request, tmp_path, monkeypatch):
    """The temporary folder is on a file system whose locks do not exclude other machines."""
    if request.param == "no locks":
        if sys.platform == "win32":
            pytest.skip("POSIX locks")
        import fcntl

        def refuse(*arguments):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "lockf", refuse)
    else:
        use_mounts(tmp_path, monkeypatch, "rw,vers=3,nolock,local_lock=all")


def use_mounts(tmp_path, monkeypatch, options):
    mounts = tmp_path.with_name(f"{tmp_path.name}-mounts")
    place = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(
        f"/dev/root / ext4 rw,nolock 0 0\nx:/y {place} nfs4 {options} 0 0\n"
        f"x:/z {place}/other nfs4 rw,localflock 0 0\n"
    )
    monkeypatch.setattr(lock, "MOUNTS", mounts)


def leave(folder, age_s=0.0, **owner):
    """Leave the lock and a file of a process that has ended or runs on another machine."""
    folder.mkdir()
    if owner:
        (folder / LOCK_FILE).write_text(json.dumps({"process": 1, "started": 1.0, **owner}))
    (folder / "below").mkdir()
    (folder / "below" / "file").touch()
    make_older(folder, age_s)


def make_older(folder, age_s):
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time() - age_s,) * 2)


@pytest.mark.usefixtures("without_locks_between_machines")
@pytest.mark.parametrize("owner", [{"host": "another"}, {}], ids=["other machine", "unknown"])
def test_folder_of_another_machine_is_in_use_until_it_is_silent_for_long(tmp_path, owner):
    leave(tmp_path / "run", 3500.0, **owner)
    with raises_code(RunError, "folder_in_use"), locked(tmp_path / "run", silent_s=3600.0):
        pass
    make_older(tmp_path / "run", 3700.0)
    os.utime(tmp_path / "run" / "below" / "file")  # It has just been written.
    with raises_code(RunError, "folder_in_use"), locked(tmp_path / "run", silent_s=3600.0):
        pass
    make_older(tmp_path / "run", 3700.0)
    with locked(tmp_path / "run", silent_s=3600.0):
        pass
    assert (tmp_path / "run" / "below" / "file").exists()


@pytest.mark.usefixtures("without_locks_between_machines")
@pytest.mark.parametrize("wrong_s", [-7200.0, 7200.0])
def test_age_of_a_folder_does_not_depend_on_the_clock_of_this_machine(
    tmp_path, monkeypatch, wrong_s
):
    real = time.time
    leave(tmp_path / "new", 3500.0, host="another")
    leave(tmp_path / "old", 3700.0, host="another")
    monkeypatch.setattr(time, "time", lambda: real() + wrong_s)
    for _ in range(2):  # The first look does not change the age.
        with raises_code(RunError, "folder_in_use"), locked(tmp_path / "new", silent_s=3600.0):
            pass
    with locked(tmp_path / "old", silent_s=3600.0):
        pass


@pytest.mark.usefixtures("without_locks_between_machines")
def test_folder_of_another_machine_counts_as_free_if_no_time_is_stated(tmp_path):
    leave(tmp_path / "run", host="another")
    with locked(tmp_path / "run"):
        pass


@pytest.mark.usefixtures("without_locks_between_machines")
def test_folder_of_a_process_of_this_machine_that_has_ended_is_free_at_once(tmp_path):
    leave(tmp_path / "run", host=socket.gethostname())
    with locked(tmp_path / "run", silent_s=3600.0):
        pass


@pytest.mark.usefixtures("without_locks_between_machines")
def test_folder_of_a_running_process_of_this_machine_is_in_use(holder, tmp_path):
    make_older(tmp_path / "run", 7200.0)
    with raises_code(RunError, "folder_in_use"), locked(tmp_path / "run", silent_s=3600.0):
        pass


@pytest.mark.parametrize("options", ["rw,local_lock=none", "rw,local_lock=flock", "rw,flock"])
def test_real_lock_of_a_killed_process_of_another_machine_is_free_at_once(
    options, tmp_path, monkeypatch
):
    use_mounts(tmp_path, monkeypatch, options)
    leave(tmp_path / "run", host="another")
    with locked(tmp_path / "run", silent_s=3600.0):
        pass
