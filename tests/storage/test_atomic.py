"""A write is complete or has no effect, whatever fails in between."""

import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from xpmlp.storage import atomic
from xpmlp.storage.atomic import (
    TOKEN_BYTES,
    check_writable,
    read_bytes,
    remove_partial_files,
    shorten_name,
    sync_directory,
    write_atomic,
)
from xpmlp.storage.lock import file_lock

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
def test_a_failure_leaves_only_the_old_file(monkeypatch, target, failing, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(atomic.os, failing, fail)
    with pytest.raises(type(error)):
        write_atomic(target, NEW)
    monkeypatch.undo()
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == [target.name]


def test_unwritable_data_leaves_the_old_file(target):
    with pytest.raises(TypeError):
        write_atomic(target, "text, not bytes")
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == [target.name]


def test_the_file_is_synced_before_it_is_renamed(monkeypatch, target):
    """fsync of the data, then the rename, then fsync of the folder."""
    calls = []

    def record(name):
        original = getattr(os, name)

        def recorded(*arguments, **keywords):
            calls.append((name, target.read_bytes() == NEW))
            return original(*arguments, **keywords)

        monkeypatch.setattr(atomic.os, name, recorded)

    record("fsync")
    record("replace")
    write_atomic(target, NEW)
    assert calls == [("fsync", False), ("replace", False), ("fsync", True)]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path):
    sync_directory(tmp_path / "not there")


@pytest.mark.parametrize("where", ["no/such/folder/model", "a file/model", "."])
def test_an_unwritable_path_is_named(tmp_path, where):
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
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(target)], check=False, timeout=60
    )
    assert result.returncode == 7
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("forbidden", ["parent", "file"])
def test_a_path_without_permission_is_named(forbidden, target, monkeypatch):
    check_writable(target)
    where = {"parent": target.parent, "file": target}[forbidden]
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: path != where)
    with pytest.raises(ValueError, match=r"^the model .*model\.safetensors .*: no permission"):
        check_writable(target, "the model ")


def test_a_path_without_a_file_is_writable(tmp_path):
    check_writable(str(tmp_path / "new"))


def symlink_chain(target, folder):
    """A symbolic link in `folder` to another one, which leads to `target`."""
    folder.mkdir()
    (folder / "second").symlink_to(target)
    (folder / "first").symlink_to("second")
    return folder / "first"


def test_a_write_through_a_link_keeps_the_link(target, tmp_path):
    link = symlink_chain(target, tmp_path / "links")
    partial = target.with_name(f".{target.name}.{'ab' * TOKEN_BYTES}.part")
    partial.touch()
    remove_partial_files(link)
    check_writable(link)
    write_atomic(link, NEW)
    assert link.is_symlink()
    assert target.read_bytes() == NEW
    assert sorted(os.listdir(tmp_path)) == ["links", target.name]
    assert sorted(os.listdir(link.parent)) == ["first", "second"]


def test_a_write_through_a_dangling_link_creates_its_target(tmp_path):
    link = symlink_chain(tmp_path / "new", tmp_path / "links")
    write_atomic(link, NEW)
    assert (tmp_path / "new").read_bytes() == link.read_bytes() == NEW
    dangling = symlink_chain(tmp_path / "no" / "new", tmp_path / "lost")
    with pytest.raises(ValueError, match=r"first cannot be written: folder .*no does not exist$"):
        check_writable(dangling)
    with pytest.raises(FileNotFoundError, match=r"lost.first"):
        write_atomic(dangling, NEW)


def test_a_link_and_its_file_have_one_lock(target, tmp_path):
    link = symlink_chain(target, tmp_path / "links")
    for first, second in ((target, link), (link, target)):
        with (
            file_lock(first),
            pytest.raises(BlockingIOError, match=second.name),
            file_lock(second),
        ):
            pass
    assert sorted(os.listdir(tmp_path)) == ["links", target.name]


def test_without_locks_an_error_of_the_body_propagates(target, monkeypatch):
    """As on Windows, which lacks file locks of this kind."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (
        pytest.raises(RuntimeError, match=r"^mine$") as caught,
        file_lock(target),
        file_lock(target),
    ):
        raise RuntimeError("mine")
    assert caught.value.__context__ is None
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("letter", ["x", "漢", "é"])
def test_the_longest_name_is_written_and_locked(letter, tmp_path):
    name = letter * (255 // len(letter.encode()))
    partial = tmp_path / f".{shorten_name(name)}.{'ab' * TOKEN_BYTES}.part"
    partial.touch()
    with file_lock(tmp_path / name), file_lock(tmp_path / f"{name[:-1]}z"):  # not the same file
        assert len(os.listdir(tmp_path)) == 3
        with pytest.raises(BlockingIOError, match=letter), file_lock(tmp_path / name):
            pass
        remove_partial_files(tmp_path / name)
        write_atomic(tmp_path / name, NEW)
    assert (tmp_path / name).read_bytes() == NEW
    assert os.listdir(tmp_path) == [name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX's")
def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", symlink_chain(tmp_path / "pipe", tmp_path / "links")):
        with pytest.raises(ValueError, match=rf"^the model .*{path.name} is not a regular file$"):
            check_writable(path, "the model ")
        with pytest.raises(ValueError, match=rf"{path.name} is not a regular file$"):
            write_atomic(path, NEW)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(ValueError, match=r"is not a regular file$"):
        check_writable(os.devnull)


@pytest.mark.parametrize("path", ["", ".", "a\0b", None, 3, b"bytes"])
@pytest.mark.parametrize("use", [lambda path: write_atomic(path, b"new"), read_bytes])
def test_an_invalid_path_is_named(path, use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^path must "):
        use(path)
    assert not any(tmp_path.iterdir())


def test_a_pipe_or_a_device_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match=f"^{path} is not a regular file"):
            read_bytes(path)
