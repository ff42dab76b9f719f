"""How an error reaches the person at the terminal: one line, and an exit status that is not 0."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turns the errors that this project raises on purpose into one line; MMD_JAX_TRACEBACK=1 shows where they came from."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if os.environ.get("MMD_JAX_TRACEBACK"):
            raise
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last checkpoint")
