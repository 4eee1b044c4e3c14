"""The edge between the product and its three command lines: errors become one sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from features_store.errors import AffectoryError


def wait_passively() -> None:
    """Let threads that have nothing to do sleep, and not spin: beside other programs spinning takes their cores.

    OpenMP reads these when torch, scikit-learn or LightGBM is imported; what the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def main(app: Callable[[], object]) -> None:
    """Run a Typer application as a program.

    An `AffectoryError` ends in one sentence on the standard error stream and its exit code: 2 for a user's mistake, 1
    for a fault of the machine or the data;
    Ctrl-C in exit code 130; a reader that closes the pipe (``| head``) in exit code 0.
    """
    wait_passively()
    try:
        app()
    except AffectoryError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
