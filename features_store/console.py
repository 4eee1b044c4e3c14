"""The edge between the product and its three command lines: errors become one sentence and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from features_store.errors import AffectoryError


def main(app: Callable[[], object]) -> None:
    """Run a Typer application as a program.

    An `AffectoryError` ends in one sentence on the standard error stream and its exit code: 2 for a user's mistake, 1
    for a fault of the machine or the data;
    Ctrl-C in exit code 130; a reader that closes the pipe (``| head``) in exit code 0.
    """
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
