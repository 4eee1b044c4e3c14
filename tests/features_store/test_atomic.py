"""Files of folders that a stranger may have made: what is opened, and what is refused without being touched."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features_store import (
    BlockSpec,
    BlockWriter,
    ExistsError,
    FormatError,
    StoreError,
    UnsafeFileError,
    open_regular,
    open_store,
    read_regular,
)
from features_store.atomic import atomic_folder, atomic_write, recover, typed_path
from features_store.disk import try_place


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's, outside of the folder."""
    path = tmp_path / "victim.txt"
    path.write_text("precious")
    return path


def _link(folder: Path, victim: Path) -> Path:
    (folder / "x").symlink_to(victim)
    return folder / "x"


def _dangling(folder: Path, victim: Path) -> Path:
    (folder / "x").symlink_to(victim.with_name("not there"))
    return folder / "x"


def _second_name(folder: Path, victim: Path) -> Path:
    os.link(victim, folder / "x")
    return folder / "x"


def _pipe(folder: Path, victim: Path) -> Path:
    os.mkfifo(folder / "x")
    return folder / "x"


def _socket(folder: Path, victim: Path) -> Path:
    here = os.open(".", os.O_RDONLY)
    os.chdir(folder)  # the path of a socket is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("x")
    finally:
        os.fchdir(here)
        os.close(here)
    return folder / "x"


def _folder(folder: Path, victim: Path) -> Path:
    (folder / "x").mkdir()
    return folder / "x"


def _device(folder: Path, victim: Path) -> Path:
    return Path("/dev/zero")


@pytest.mark.parametrize("mode", ["rb", "r+b", "ab", "a+b"])
@pytest.mark.parametrize("make", [_link, _dangling, _second_name, _pipe, _socket, _folder, _device])
def test_only_regular_files_are_opened(tmp_path, victim, make, mode) -> None:
    """Everything else is refused at once, in every mode, and what it leads to stays as it was."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UnsafeFileError, match=r"regular|second name"):
        open_regular(make(folder, victim), mode=mode)
    assert victim.read_text() == "precious"
    assert not victim.with_name("not there").exists()


def test_regular_files(tmp_path) -> None:
    """A plain file is read, appended and changed; a missing one is made only by the modes that append."""
    path = tmp_path / "x"
    for mode in ("rb", "r+b"):
        with pytest.raises(FileNotFoundError):
            open_regular(path, mode=mode)
    with open_regular(path, mode="ab") as file:
        file.write(b"one")
    with open_regular(path, mode="a+b") as file:
        file.write(b" two")
    with open_regular(path, mode="r+b") as file:
        file.write(b"ONE")
    assert read_regular(path, 7) == b"ONE two"


def test_limit(tmp_path) -> None:
    """A file over the limit is refused unread, and one that says it is empty is read to the limit only."""
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(20 * 2**30)  # of holes
    for read in (lambda: read_regular(path, 100), lambda: read_regular(path, 100, links=True)):
        with pytest.raises(UnsafeFileError, match="at most 100"):
            read()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_file_that_does_not_say_its_size() -> None:
    """The limit holds for what is read, whatever the size that was promised."""
    with pytest.raises(UnsafeFileError, match="more than the 100 bytes"):
        read_regular("/proc/self/maps", 100)


def test_links_where_they_are_allowed(tmp_path, victim) -> None:
    """Images of a corpus may be links, soft and hard, but not to a device or a pipe."""
    for number, make in enumerate((_link, _second_name)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert read_regular(make(folder, victim), 100, links=True) == b"precious"
    os.mkfifo(tmp_path / "pipe")
    for number, target in enumerate(("/dev/zero", tmp_path / "pipe")):
        (tmp_path / f"link{number}").symlink_to(target)
        with pytest.raises(UnsafeFileError, match="regular"):
            read_regular(tmp_path / f"link{number}", 100, links=True)


def test_a_typed_path_may_be_a_link(tmp_path, victim) -> None:
    """The user's own link is followed once, to its end; a plain path stays as it was typed."""
    (tmp_path / "far").symlink_to(victim)
    (tmp_path / "near").symlink_to("far")
    assert read_regular(typed_path(tmp_path / "near"), 100) == b"precious"
    assert typed_path("some/relative.h5") == Path("some/relative.h5")


def test_the_temporary_beside_a_file_is_no_second_name(tmp_path) -> None:
    """A writer that was killed between naming its file and removing the temporary leaves a file that can be read."""
    (tmp_path / ".x.a1b2.part").write_bytes(b"new")
    os.link(tmp_path / ".x.a1b2.part", tmp_path / "x")
    assert read_regular(tmp_path / "x", 10) == b"new"
    (tmp_path / ".y.a1b2.part").mkdir()
    (tmp_path / ".y.a1b2.part" / "y").write_bytes(b"new")
    os.link(tmp_path / ".y.a1b2.part" / "y", tmp_path / "y")
    assert read_regular(tmp_path / "y", 10) == b"new"


_SWAP = """
import os, sys
link, plain, victim = sys.argv[1:]
while True:
    os.symlink(victim, plain + ".link")
    os.replace(plain + ".link", link)
    open(plain, "w").write("plain")
    os.replace(plain, link)
"""


def test_a_name_that_is_swapped_all_the_time(tmp_path, victim) -> None:
    """Between the look and the opening nothing can be slipped in: the victim is never read or changed."""
    place = tmp_path / "x"
    swapping = subprocess.Popen([sys.executable, "-c", _SWAP, str(place), str(tmp_path / "plain"), str(victim)])
    try:
        while not place.exists():
            assert swapping.poll() is None
        seen: set[object] = set()
        for _ in range(2000):
            try:
                with open_regular(place, mode="r+b") as file:
                    seen.add(file.read(5))
            except (UnsafeFileError, OSError) as error:
                seen.add(type(error).__name__)
        assert b"preci" not in seen
        assert b"plain" in seen
    finally:
        swapping.kill()
        swapping.wait()


# ---- locks and stores -----------------------------------------------------------------------------------------------


def _make_second_name(place: Path, victim: Path) -> None:
    os.link(victim, place)


@pytest.mark.parametrize("make", [lambda place, victim: place.symlink_to(victim), _make_second_name])
def test_a_lock_that_is_a_link(tmp_path, make_store, victim, make) -> None:
    """A lock's name that leads to a file of the user's is refused, and the file is not truncated."""
    store = make_store(tmp_path / "store")
    make(tmp_path / "store" / ".new.h5.lock", victim)
    with pytest.raises(UnsafeFileError, match=r"\.new\.h5\.lock .*link"):
        BlockWriter(tmp_path / "store" / "new.h5", store.index, BlockSpec("new", (4,), {}))
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["index.h5", "one.pool.h5"])
@pytest.mark.parametrize("make", ["link", "second name", "pipe"])
def test_dumps_of_a_folder_are_no_links(tmp_path, make_store, run_command, name, make) -> None:
    """A folder's dump that leads out of it is refused in one sentence; the user's own link to it is followed."""
    make_store(tmp_path / "store")
    place, moved = tmp_path / "store" / name, tmp_path / "moved.h5"
    (tmp_path / "mine").symlink_to("store")
    assert run_command("verify", tmp_path / "mine")[0] == 0
    place.rename(moved)
    if make == "pipe":
        os.mkfifo(place)
    elif make == "link":
        place.symlink_to(moved)
    else:
        os.link(moved, place)
    for path in ("store", "mine"):
        code, _, said = run_command("info", tmp_path / path)
        assert code == 2
        assert re.fullmatch(r"error: .* (not a regular file|second name).*\n", said)


def test_a_typed_dump_may_be_a_link(tmp_path, make_store, run_command) -> None:
    """The path that the user typed is followed, for a dump as for a folder."""
    make_store(tmp_path / "store")
    (tmp_path / "mine.h5").symlink_to(tmp_path / "store" / "one.pool.h5")
    assert run_command("verify", tmp_path / "mine.h5")[0] == 0


def test_a_block_is_not_written_through_a_link(tmp_path, make_store, victim) -> None:
    """A block's file that is a link is neither continued nor replaced, dangling or not."""
    store = make_store(tmp_path / "store")
    there, new = tmp_path / "store" / "one.pool.h5", tmp_path / "store" / "new.h5"
    there.rename(tmp_path / "moved.h5")
    there.symlink_to(tmp_path / "moved.h5")
    new.symlink_to(tmp_path / "nowhere.h5")
    before = (tmp_path / "moved.h5").read_bytes()
    for place, spec in ((there, store.blocks["one.pool"].spec), (new, BlockSpec("new", (4,), {}))):
        with pytest.raises(UnsafeFileError, match="symbolic link"):
            BlockWriter(place, store.index, spec)
    assert (tmp_path / "moved.h5").read_bytes() == before
    assert not (tmp_path / "nowhere.h5").exists()


# ---- files and folders that appear whole ----------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path) -> None:
    """Its name is free until the end; then it is there, with nothing beside it, and is replaced only when asked."""
    path = tmp_path / "new" / "x.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(ExistsError, match="--force"), atomic_write(path):
        pytest.fail("the name is taken")
    with atomic_write(path, force=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    with pytest.raises(UnicodeEncodeError), atomic_write(path, force=True) as temporary:
        temporary.write_text("half" + "\ud800")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["x.txt"]


def test_a_name_that_is_taken_meanwhile(tmp_path) -> None:
    """What arrives while a file or a folder is being made is not replaced."""
    with pytest.raises(ExistsError), atomic_write(tmp_path / "x"):  # noqa: PT012
        (tmp_path / "x").write_text("early")
        next(tmp_path.glob(".x.*.part")).joinpath("x").write_text("late")
    with pytest.raises(ExistsError), atomic_folder(tmp_path / "y"):
        (tmp_path / "y").write_text("early")
    assert [(tmp_path / name).read_text() for name in sorted(os.listdir(tmp_path))] == ["early", "early"]


def test_a_folder_appears_whole(tmp_path) -> None:
    """A folder is replaced by another one at once, only when asked, and never a file or a link by a folder."""
    path = tmp_path / "x"
    path.mkdir()  # an empty one may be there
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("old")
        assert not (path / "a").exists()
    with pytest.raises(ExistsError), atomic_folder(path):
        pytest.fail("the name is taken")
    with atomic_folder(path, force=True) as temporary:
        (temporary / "b").write_text("new")
        assert (path / "a").read_text() == "old"
    assert os.listdir(path) == ["b"]
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("x")
    for name in ("file", "link"):
        with pytest.raises(ExistsError), atomic_folder(tmp_path / name, force=True):
            pytest.fail("it is no folder")
    with pytest.raises(ExistsError, match="is a folder"), atomic_write(path, force=True):
        pytest.fail("it is no file")
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "x"]


_KILLED = """
import json, os, signal, sys
from pathlib import Path
from features_store import atomic

armed, calls, step = False, 0, 0
def audit(event, _):
    global calls
    if armed and event.startswith(("os.", "open", "shutil.", "tempfile.", "fcntl.", "ctypes.call")):
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audit)

def work(place):
    global armed
    for number in range(2):
        armed = True
        with atomic.atomic_folder(place / "run", force=True) as new:
            armed = False
            (new / "whole").write_text(f"whole {number}")
            armed = True
        with atomic.atomic_write(place / "table", force=True) as new:
            armed = False
            new.write_text(f"whole {number}")
            armed = True

found, status = [], 1
while status:
    step += 1
    place = Path(sys.argv[1], str(step))
    (place / "run").mkdir(parents=True)
    for name in ("run/whole", "table"):
        (place / name).write_text("whole old")
    child = os.fork()
    if not child:
        if sys.argv[2] == "plain":
            atomic.exchange = lambda one, other: False
        work(place)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    left = len(os.listdir(place)) > 2
    atomic.recover(place / "run")
    found.append([sorted(os.listdir(place)), (place / "run/whole").read_text(), (place / "table").read_text(), left])
print(json.dumps(found))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["exchange", "plain"])
def test_a_kill_at_every_step_loses_nothing(tmp_path, how) -> None:
    """Killed at any of its file operations, a writer leaves the old or the new; the next start removes the rest."""
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), how], check=True, capture_output=True)
    found = json.loads(done.stdout)
    for number, (names, *texts, _) in enumerate(found):
        assert names == ["run", "table"], f"step {number}"
        assert set(texts) <= {"whole old", "whole 0", "whole 1"}
    assert found[0][1] == "whole old"
    assert found[-1][1:] == ["whole 1", "whole 1", False]
    assert sum(left for *_, left in found) > 40, "most of the kills must have left something"


def test_what_others_are_making_is_left_alone(tmp_path) -> None:
    """Sweeping removes what the dead left, not what a living process works on, nor what is not ours."""
    for name in (".mine.part", ".x.abcdefgh.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text("data")
    with atomic_write(tmp_path / "x") as temporary:
        temporary.write_text("x")
        recover(tmp_path / "y")
        code = f"from features_store.atomic import recover; recover({str(tmp_path / 'y')!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert temporary.read_text() == "x"
    old = time.time() - 2 * 24 * 3600
    for path in (tmp_path / ".x.abcdefgh.part" / "data", tmp_path / ".x.abcdefgh.part"):
        assert path.exists()
        os.utime(path, (old, old))
    recover(tmp_path / "y")
    assert sorted(os.listdir(tmp_path)) == [".mine.part", "x"]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_cannot_be_made_durable(tmp_path, monkeypatch, force, full) -> None:
    """Where the disk fails at the last step there is an error, and the name is as it was: free, or the old file's.

    Also where the disk then has no room for the old name.
    """
    real, rename = os.fsync, os.rename

    def broken(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    def no_room(old: Path, new: Path) -> None:
        if old == tmp_path / "x":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(old, new)

    if force:
        (tmp_path / "x").write_text("old")
    monkeypatch.setattr(os, "fsync", broken)
    if full:
        monkeypatch.setattr(os, "rename", no_room)
    with (
        pytest.raises(OSError, match=r"Input/output error.*/x'"),
        atomic_write(tmp_path / "x", force=force) as temporary,
    ):
        temporary.write_text("new")
    monkeypatch.undo()
    assert [(tmp_path / name).read_text() for name in os.listdir(tmp_path)] == (["old"] if force else [])


def test_errors_name_the_file_that_the_user_knows(tmp_path) -> None:
    """Neither a sentence of ours nor one of the system names the temporary file."""
    for kind, words in ((FormatError, ["{} is bad"]), (PermissionError, [errno.EACCES, "no", "{}"])):
        with pytest.raises(kind) as told, atomic_write(tmp_path / "x") as temporary:
            raise kind(*(str(one).format(temporary) if one != errno.EACCES else one for one in words))
        assert ".part" not in str(told.value)
        assert str(tmp_path / "x") in str(told.value)


@pytest.mark.parametrize("make", [_pipe, _socket, lambda folder, victim: _to_null(folder)])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path, victim, make) -> None:
    """Not even with --force: ``-o /dev/null`` would take it from every program."""
    place = make(tmp_path, victim)
    before = place.lstat()
    with pytest.raises(ExistsError, match="choose another place"), atomic_write(place, force=True):
        pytest.fail("it is no file")
    with pytest.raises(StoreError, match="choose another place"):
        try_place(place)
    assert os.path.samestat(before, place.lstat())


def test_places_are_tried_at_the_same_time(tmp_path) -> None:
    """Whoever tries a place neither makes nor removes the folders that another process needs."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: try_place(tmp_path / "a" / "b" / str(i)), range(400)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["a file", "a dangling link"])
def test_a_place_below_what_is_no_folder(tmp_path, what) -> None:
    (tmp_path / "x").write_text("") if what == "a file" else (tmp_path / "x").symlink_to("nowhere")
    with pytest.raises(StoreError, match="x is no folder; choose another place"):
        try_place(tmp_path / "x" / "y" / "z")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_url_is_no_place_to_write(tmp_path, monkeypatch) -> None:
    """It would become a folder ``https:`` here."""
    monkeypatch.chdir(tmp_path)
    place = Path("https://me:pw@host.example/x")
    with pytest.raises(StoreError, match=r"https://me:pw@host\.example/x is a URL"):
        try_place(place)
    with pytest.raises(StoreError, match="is a URL"), atomic_write(place):
        pytest.fail("it is a URL")
    assert not list(tmp_path.iterdir())


def _to_null(folder: Path) -> Path:
    (folder / "x").symlink_to("/dev/null")
    return folder / "x"


def test_many_write_into_one_folder(tmp_path) -> None:
    """Each looks for what dead processes left, and meets what the living are just removing."""
    code = (
        "import sys\nfrom pathlib import Path\nimport features_store.atomic as atomic\n"
        "for at in range(150):\n    atomic.recover(Path(sys.argv[1]) / 'x')\n"
        "    with atomic.atomic_write(Path(sys.argv[1]) / f'{sys.argv[2]}', force=True) as temporary:\n"
        "        temporary.write_text('whole')\n"
    )
    many = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    assert [one.communicate(timeout=100)[1] for one in many] == [""] * 4
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2", "3"]


def test_a_folder_that_may_not_be_read_is_not_called_empty(tmp_path, monkeypatch) -> None:
    """Else its dumps would be missing without a word."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(PermissionError):
        open_store(tmp_path)
