"""Files that are whole or not there, whatever fails on the way."""

import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from xpmlp.storage import atomic
from xpmlp.storage.atomic import TOKEN, contents, cut, sweep, sync_directory, writable, write_atomic
from xpmlp.storage.lock import locked

OLD, NEW = b"the old file", b"the new one" * 1000


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(OLD)
    return path


def test_the_bytes_are_written(tmp_path):
    for path in (tmp_path / "a", str(tmp_path / "b"), os.fsencode(tmp_path / "c").decode()):
        write_atomic(path, NEW)
        with open(path, "rb") as file:
            assert file.read() == NEW
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_an_old_file_is_replaced(target):
    write_atomic(target, NEW)
    assert target.read_bytes() == NEW
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(monkeypatch, target, failing, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(atomic.os, failing, fail)
    with pytest.raises(type(error)):
        write_atomic(target, NEW)
    monkeypatch.undo()
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == [target.name]


def test_data_that_cannot_be_written_leaves_the_old_file(target):
    with pytest.raises(TypeError):
        write_atomic(target, "text, not bytes")
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == [target.name]


def test_the_file_is_on_disk_before_it_gets_its_name(monkeypatch, target):
    """fsync of the data, then the rename, then fsync of the folder."""
    seen = []

    def record(name):
        original = getattr(os, name)

        def recorded(*arguments, **keywords):
            seen.append((name, target.read_bytes() == NEW))
            return original(*arguments, **keywords)

        monkeypatch.setattr(atomic.os, name, recorded)

    record("fsync")
    record("replace")
    write_atomic(target, NEW)
    assert seen == [("fsync", False), ("replace", False), ("fsync", True)]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path):
    sync_directory(tmp_path / "not there")


@pytest.mark.parametrize("where", ["no/such/folder/model", "a file/model", "."])
def test_a_path_that_cannot_be_written_is_named(tmp_path, where):
    (tmp_path / "a file").write_bytes(OLD)
    path = tmp_path / where
    with pytest.raises(OSError, match=r".") as caught:
        write_atomic(path, NEW)
    assert str(path) in str(caught.value)
    assert os.listdir(tmp_path) == ["a file"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
def test_the_umask_is_respected(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "model", NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o666 & ~mask


def test_threads_that_save_to_one_path_leave_one_whole_file(tmp_path):
    contents = [bytes([65 + i]) * 200_000 for i in range(8)]

    def write(content):
        write_atomic(tmp_path / "model", content)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(write, contents))
    assert (tmp_path / "model").read_bytes() in contents
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_full_disk_leaves_the_old_file(target):
    program = """
        import resource, signal, sys
        from xpmlp.storage.atomic import write_atomic
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_atomic(sys.argv[1], b"x" * 100_000)
        except OSError as error:
            sys.exit(7)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(target)], check=False, timeout=60
    )
    assert done.returncode == 7
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("forbidden", ["parent", "file"])
def test_a_place_without_permission_is_named(forbidden, target, monkeypatch):
    writable(target)
    where = {"parent": target.parent, "file": target}[forbidden]
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: path != where)
    with pytest.raises(ValueError, match=r"^the model .*model\.safetensors .*: no permission"):
        writable(target, "the model ")


def test_a_place_that_holds_no_file_yet_is_writable(tmp_path):
    writable(str(tmp_path / "new"))


def linked(target, folder):
    """A symbolic link in `folder`, over another, to a file elsewhere."""
    folder.mkdir()
    (folder / "second").symlink_to(target)
    (folder / "first").symlink_to("second")
    return folder / "first"


def test_a_link_stays_and_the_file_behind_it_is_written(target, tmp_path):
    link = linked(target, tmp_path / "links")
    beside = target.with_name(f".{target.name}.{'ab' * TOKEN}.part")
    beside.touch()
    sweep(link)
    writable(link)
    write_atomic(link, NEW)
    assert link.is_symlink()
    assert target.read_bytes() == NEW
    assert sorted(os.listdir(tmp_path)) == ["links", target.name]
    assert sorted(os.listdir(link.parent)) == ["first", "second"]


def test_a_link_to_a_file_to_come_is_written_through(tmp_path):
    link = linked(tmp_path / "new", tmp_path / "links")
    write_atomic(link, NEW)
    assert (tmp_path / "new").read_bytes() == link.read_bytes() == NEW
    lost = linked(tmp_path / "no" / "new", tmp_path / "lost")
    with pytest.raises(ValueError, match=r"first cannot be written: there is no folder .*no$"):
        writable(lost)
    with pytest.raises(FileNotFoundError, match=r"lost.first"):
        write_atomic(lost, NEW)


def test_a_link_and_its_file_have_one_lock(target, tmp_path):
    link = linked(target, tmp_path / "links")
    for first, second in ((target, link), (link, target)):
        with (
            locked(first),
            pytest.raises(BlockingIOError, match=second.name),
            locked(second),
        ):
            pass
    assert sorted(os.listdir(tmp_path)) == ["links", target.name]


def test_without_locks_an_error_inside_is_the_users_own(target, monkeypatch):
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(RuntimeError, match=r"^mine$") as caught, locked(target), locked(target):
        raise RuntimeError("mine")
    assert caught.value.__context__ is None
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("letter", ["x", "漢", "é"])
def test_the_longest_name_is_written_and_locked(letter, tmp_path):
    name = letter * (255 // len(letter.encode()))
    beside = tmp_path / f".{cut(name)}.{'ab' * TOKEN}.part"
    beside.touch()
    with locked(tmp_path / name), locked(tmp_path / f"{name[:-1]}z"):  # not the same file
        assert len(os.listdir(tmp_path)) == 3
        with pytest.raises(BlockingIOError, match=letter), locked(tmp_path / name):
            pass
        sweep(tmp_path / name)
        write_atomic(tmp_path / name, NEW)
    assert (tmp_path / name).read_bytes() == NEW
    assert os.listdir(tmp_path) == [name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX's")
def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", linked(tmp_path / "pipe", tmp_path / "links")):
        with pytest.raises(ValueError, match=rf"^the model .*{path.name} is no file$"):
            writable(path, "the model ")
        with pytest.raises(ValueError, match=rf"{path.name} is no file$"):
            write_atomic(path, NEW)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(ValueError, match=r"is no file$"):
        writable(os.devnull)


@pytest.mark.parametrize("path", ["", ".", "a\0b", None, 3, b"bytes"])
@pytest.mark.parametrize("use", [lambda path: write_atomic(path, b"new"), contents])
def test_what_is_no_path_of_a_file_is_named(path, use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^path must "):
        use(path)
    assert not any(tmp_path.iterdir())


def test_what_has_no_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match=f"^{path} is no file"):
            contents(path)
