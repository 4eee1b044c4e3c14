"""The edge of the command lines: one sentence, the right exit code, and no secrets, whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import features_store as fs
from features_store.console import child_program, main, redacted

INFO = [sys.executable, "-m", "features_store", "info"]


class SafetensorError(Exception):
    """Named as that of a library which is not imported here."""


def _caused_by(number: int) -> fs.StoreError:
    error = fs.StoreError("it cannot be written")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (fs.FormatError("it is bad"), 2, "it is bad"),
        (fs.DiskSpaceError("it does not fit"), 1, "it does not fit"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "/x/y: permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "z"), 2, "z: no such file"),
        (OSError(errno.EIO, "Input/output error", "z"), 1, "z: input/output error"),
        (OSError(errno.ENOSPC, "No space left on device", "z"), 1, "z: the disk is full"),
        (OSError("Can't read data"), 1, "can't read data"),
        (_caused_by(errno.EIO), 1, "cannot be written"),
        (_caused_by(errno.EACCES), 2, "cannot be written"),
        (MemoryError(), 1, "not enough memory"),
        (RecursionError(), 1, "nested too deeply"),
        (SafetensorError("Error while serializing: No space left on device"), 1, "the disk is full"),
        (SafetensorError("HeaderTooLarge"), 1, "damaged"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (fs.FormatError("s3://me:pw@host/x \x1b[31m is bad"), 2, "s3://***@host/x \\x1b[31m is bad"),
    ],
)
def test_every_error_is_one_sentence(capsys, error, code, words) -> None:
    """Mistakes of the user end in exit code 2, faults of the machine in 1, Ctrl-C in 130."""

    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main(fail)
    said = capsys.readouterr().err
    assert ended.value.code == code
    assert words in said
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_warnings_are_notes_each_once(capsys) -> None:
    """A line for people, without the place in the code that warned."""

    def warn() -> None:
        for _ in range(3):
            warnings.warn("one feature is constant", stacklevel=1)
            warnings.warn("one feature is constant", stacklevel=2)

    warnings.simplefilter("always")  # pytest puts the filters back
    with pytest.raises(SystemExit) as ended:
        main(warn)
    assert ended.value.code == 0
    assert capsys.readouterr().err == "note: one feature is constant\n"


def test_a_fault_of_the_machine_ends_with_1_behind_any_wording(capsys) -> None:
    """Each layer words it anew; the first cause decides."""

    def work() -> None:
        try:
            try:
                raise OSError(errno.EIO, "Input/output error")
            except OSError as error:
                raise fs.StoreError("cannot write") from error
        except fs.StoreError as error:
            raise fs.MismatchError("1 of 2 runs failed") from error

    with pytest.raises(SystemExit) as ended:
        main(work)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: 1 of 2 runs failed\n"


def test_a_url_is_not_mangled_and_tells_no_password(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fs.FormatError) as refused:
        fs.open_store(Path("https://me:pw@host.example/x.h5?sig=abc"))
    assert "https://me:pw@host.example/x.h5?sig=abc is a URL" in str(refused.value)
    assert "pw" not in redacted(str(refused.value))


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    """A bug is not dressed up as a mistake of the user's."""
    with pytest.raises(ZeroDivisionError):
        main(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://user:p@ss@bucket/a.tar is gone", "s3://***@bucket/a.tar is gone"),
        ("https:/user:p@host/a is a path", "https:/***@host/a is a path"),
        ("'https://token@host:81/x'", "'https://***@host:81/x'"),
        ("https:/me:pw@host/x is not there", "https:/***@host/x is not there"),
        ("(https://h/a?X-Amz-Signature=ab12&page=2).", "(https://h/a?X-Amz-Signature=***&page=2)."),
        ("https://h/a?se=1&sig=a%2Fb&sp=r", "https://h/a?se=1&sig=***&sp=r"),
        ("https://h/a?id=1xY&export=download", "https://h/a?id=1xY&export=download"),
        ("mail me@there.org about a/b?c=d", "mail me@there.org about a/b?c=d"),
    ],
)
def test_secrets_of_urls(text, shown) -> None:
    """User names, passwords and signatures go; what tells the user which URL it was stays."""
    assert redacted(text) == shown


@pytest.fixture
def store(tmp_path, make_store) -> Path:
    """A store whose summary is longer than what a pipe holds back."""
    make_store(tmp_path / "s", 30)
    return tmp_path / "s"


def _shell(line: str) -> tuple[int, str, str]:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=100)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_streams_that_are_full_or_closed(store) -> None:
    """A full output is a fault; a reader that has seen enough, or a stream that the shell closed, is none."""
    command = f"{' '.join(INFO)} {store} --json"
    code, _, said = _shell(f"{command} > /dev/full")
    assert (code, said.count("\n")) == (1, 1)
    assert "No space left" in said
    assert "Traceback" not in said
    for line in (f"{command} | true; exit ${{PIPESTATUS[0]}}", f"{command} | head -1 >&2; exit ${{PIPESTATUS[0]}}"):
        code, _, said = _shell(line)
        assert code == 0
        assert "Error" not in said
        assert "rror:" not in said
    for line in (f"{command} <&-", f"{command} >&-", f"{command} 2>&-", f"{command} >&- 2>&- <&-"):
        code, _, said = _shell(line)
        assert (code, said) == (0, "")
    assert _shell(f"{' '.join(INFO)} {store}/nothing 2>/dev/full")[0] == 2
    assert fs.open_store(store).n_images == 30


def test_names_stay_on_their_line_and_turn_no_text_round(tmp_path) -> None:
    """A class of a stranger's store adds no line to the summary; as JSON it is what it was."""
    name = "good\n  task     \u202egnorts\u202c"
    labels = fs.Labels(fs.Task("mood", "single", ("bad", name)), np.array([0, 1]))
    fs.write_index(tmp_path / "s.h5", fs.Index(np.array(["a.jpg", "b\u202egpj.jpg"]), {"mood": labels}))
    code, said, _ = _shell(f"{' '.join(INFO)} {tmp_path}/s.h5")
    assert (code, said.count("  task")) == (0, 2)
    assert r"good\n  task     \u202egnorts" in said
    code, as_json, _ = _shell(f"{' '.join(INFO)} {tmp_path}/s.h5 --json")
    assert json.loads(as_json)["labels"]["mood"]["classes"] == ["bad", name]
    assert "\u202e" not in said + as_json


def test_a_reader_that_goes_away_does_not_stop_the_work(store, tmp_path) -> None:
    """The file is made, though nobody reads the line that says so."""
    out = tmp_path / "cut.h5"
    line = f"{sys.executable} -m features_store subset {store} -o {out} | true; exit ${{PIPESTATUS[0]}}"
    assert _shell(line)[0] == 0
    assert fs.open_store(out).n_images == 30


@pytest.mark.parametrize("url", ["https://me:secret@host/dumps/a.h5?sig=abc", "s3://bucket/store"])
def test_stores_are_local(run_command, url) -> None:
    """A URL is refused as one, whole but for its secrets."""
    code, _, said = run_command("info", url)
    assert code == 2
    assert "only local paths are read" in said
    assert "://" in said
    assert "secret" not in said
    assert "abc" not in said


@pytest.mark.parametrize("name", ["new/", "there", "there/"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_the_file_to_make_is_no_folder(store, tmp_path, run_command, name, force) -> None:
    """An --out that names a folder is refused, and nothing is made."""
    (tmp_path / "there").mkdir()
    code, _, said = run_command("subset", store, "-o", f"{tmp_path}/{name}", *force)
    assert code == 2
    assert "folder" in said
    assert sorted(os.listdir(tmp_path)) == ["s", "there"]
    assert os.listdir(tmp_path / "there") == []


def test_a_place_that_cannot_be_written(store, tmp_path, run_command) -> None:
    """The sentence names the file that was asked for."""
    for place in (tmp_path / "s" / "index.h5" / "x.h5", Path("/proc/x.h5")):
        code, _, said = run_command("subset", store, "-o", place)
        assert code == 2
        assert said.count("\n") == 1
        assert ".part" not in said


def test_a_child_program_imports_nothing_of_the_working_folder(tmp_path):
    """The folder may be a stranger's: a package of our name in it is not run."""
    (tmp_path / "features_store").mkdir()
    for name in ("features_store/__init__.py", "features_store/__main__.py", "json.py"):
        (tmp_path / name).write_text("open('taken', 'w')")
    command = child_program("features-store", "--version")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:9]) == (0, "affectory"), done.stderr
    assert not (tmp_path / "taken").exists()
