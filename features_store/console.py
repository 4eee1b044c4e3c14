"""The edge between the product and its three command lines: errors become one sentence and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from features_store.errors import AffectoryError
from features_store.extras import missing_package


def main(app: Callable[[], object]) -> None:
    """Run a Typer application as a program.

    A user's mistake (`AffectoryError`), or a package that is not installed, ends in one sentence on the standard error
    stream and exit code 2; Ctrl-C in exit code 130; a reader that closes the pipe (``| head``) in exit code 0.
    """
    try:
        app()
    except AffectoryError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        sys.stderr.write(f"error: {missing}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
