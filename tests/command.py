"""The three programs as a shell runs them, in this process: torch and scikit-learn are imported once for all tests."""

from __future__ import annotations

import importlib
import io
import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock


class Ended(NamedTuple):
    """Exit code and output of a program."""

    code: int
    out: str
    err: str


def run_program(*words: object) -> Ended:
    """Run ``extract``, ``features-store`` or ``classify``; one word alone is a line as a shell takes it."""
    argv = shlex.split(str(words[0])) if len(words) == 1 else [str(word) for word in words]
    main = importlib.import_module(f"{argv[0].replace('-', '_')}.__main__").main
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", argv):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return Ended(code, out.getvalue(), err.getvalue())
