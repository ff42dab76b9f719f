"""One line of progress with rate and time left, for work of more than two seconds; silent without a terminal."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

T = TypeVar("T")


class Show(Protocol):
    """Shows how much is done, with a note (a loss, a name); the note None, at the end, removes the line."""

    def __call__(self, done: float, note: str | None = "") -> None: ...


_PATIENCE = 2.0  # seconds before the first line
_INTERVAL = 0.1  # seconds between two lines


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yields the items and shows how many are done.

    Args:
      items: the work.
      label: what the line begins with.
      total: how many items there are; none: `len(items)`, where it has one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    show = progress(label, total)
    done = 0
    try:
        for done, item in enumerate(items, start=1):
            yield item
            show(done, "")
    finally:
        show(done, None)


def progress(label: str, total: float | None = None) -> Show:
    """Returns show(done, note), to be called as the work goes on, and at the end with note=None."""
    start = time.monotonic()
    last = start + _PATIENCE - _INTERVAL
    shown = False

    def show(done: float, note: str | None = "") -> None:
        nonlocal last, shown
        now = time.monotonic()
        if note is None:
            if shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                shown = False
        elif now - last >= _INTERVAL and sys.stderr.isatty():
            last, shown = now, True
            print(f"\r{line(label, done, total, now - start)}  {note}\x1b[K", end="", file=sys.stderr, flush=True)

    return show


def line(label: str, done: float, total: float | None, seconds: float) -> str:
    """The text of one line: what, how much, how fast, how much longer."""
    rate = done / seconds if seconds > 0 else 0.0
    text = f"{label}  {done:g}" + (f"/{total:g}" if total is not None else "")
    if rate > 0:
        text += f"  {rate:.3g}/s" if rate >= 1 else f"  {1 / rate:.3g} s each"
        if total is not None:
            minutes, left = divmod(round(max(total - done, 0) / rate), 60)
            text += f"  {minutes}:{left:02d} left"
    return text
