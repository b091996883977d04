"""Talking to people: chatter and progress on stderr, data on stdout, and the exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from skylink.errors import SkyLinkError
from skylink.names import readable, shown

OK, FAILED, USAGE, SOME_FAILED, ALL_FAILED, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

Progress = Callable[[int, int, str], None]

PLAIN_SECONDS = 10.0
"""Between two lines of progress where stderr is not a terminal."""


def say(words: str = "") -> None:
    """One line of chatter on stderr."""
    print(_encodable(words), file=sys.stderr, flush=True)


def say_what_loads(reranker: str) -> None:
    """A vision-language model takes its time, and the first time it is downloaded."""
    if not reranker.startswith("lvlm:"):
        return
    from skylink.lvlm.presets import find

    name = reranker.removeprefix("lvlm:")
    preset = None if Path(name).exists() else find(name)
    size = f" ({preset.download_gb:.1f} GB, downloaded once)" if preset else ""
    say(f"Loading {name}{size} ...")


def warn(words: str) -> None:
    """Something the user should know, on stderr."""
    _styled("warning: ", words, style="yellow")


def fail(error: SkyLinkError) -> None:
    """An error and what to do about it, on stderr."""
    _styled("error: ", error.message, style="bold red")
    if error.hint:
        _styled("hint: ", error.hint, style="cyan")


def internal_error(error: BaseException) -> None:
    """An exception that nobody expected: says so, and where its traceback is."""
    from skylink import __version__

    text = f"skylink {__version__}, Python {sys.version}\n{sys.argv}\n\n"
    text += "".join(traceback.format_exception(error))
    _styled("error: ", f"{type(error).__name__}: {error}", style="bold red")
    say("This is a bug in SkyLink, not something that you did wrong.")
    if os.environ.get("SKYLINK_DEBUG"):
        say(text)
        return
    where = ""
    with contextlib.suppress(OSError):
        handle, path = tempfile.mkstemp(prefix="skylink-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        where = f"the traceback is in {path}; please report it, or "
    _styled("hint: ", f"{where}run it again as `skylink --debug ...` to see it", style="cyan")


def _styled(label: str, words: str, *, style: str) -> None:
    text = "\n".join(shown(line) for line in words.split("\n"))
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        colour = {"yellow": "33", "bold red": "1;31", "cyan": "36"}[style]
        label = f"\x1b[{colour}m{label}\x1b[0m"
    say(label + text)


def _encodable(words: str) -> str:
    """What stderr's encoding takes; lines stay lines."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return readable(words).encode(encoding, "backslashreplace").decode(encoding, "replace")


def emit(data: str) -> None:
    """Data to stdout, UTF-8 whatever the locale says."""
    typer.echo(data.encode("utf-8", "backslashreplace"), nl=False)


def print_table(table: Any) -> None:
    """A rich table to stdout; wide lines stay whole where stdout is not a terminal."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    width = None if on_terminal else 220
    console = Console(highlight=False, markup=False, width=width, legacy_windows=False)
    if on_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    emit("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def table_text(table: Any) -> str:
    """A rich table as plain text, for a file."""
    import io

    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=220, highlight=False, markup=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


@contextlib.contextmanager
def progress(unit: str) -> Iterator[Progress]:
    """Progress on stderr: a bar with rate and time left on a terminal, now and then a line else.

    Yields:
        A callable that takes (done, total, words).
    """
    if not sys.stderr.isatty():
        yield _Lines(unit)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many are done a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if not speed else _rate(speed, unit), style="cyan")

    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    with bars:
        task = bars.add_task("", total=None)

        def report(done: int, total: int, words: str) -> None:
            bars.update(task, completed=done, total=total or None, description=shown(words))

        yield report


class _Lines:
    """Progress as plain lines, not more than one in `PLAIN_SECONDS`."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._start: float | None = None
        self._first = 0
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, words: str) -> None:
        now = time.monotonic()
        if self._start is None:
            self._start, self._first = now, done
        if now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        line = f"{shown(words)}: {done} of {total}"
        if done > self._first and now > self._start:
            speed = (done - self._first) / (now - self._start)
            left = (total - done) / speed
            line += f", {_rate(speed, self._unit)}, {_duration(left)} left"
        say(line)


def _rate(speed: float, unit: str) -> str:
    return f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s a {unit.rstrip('s')}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def require_writable(folder: Path) -> None:
    """Refuse a folder that can't be written to before anything long is done.

    Raises:
        OutputError: it can't be made or written to.
    """
    from skylink.files import output_errors

    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def quoted(path: str | Path) -> str:
    """A path as one would type it in a shell."""
    import shlex

    return shlex.quote(str(path))


def program() -> str:
    """How this program is called: `skylink`, or the path that was typed where it is not in PATH."""
    import shutil

    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{quoted(sys.executable)} -m skylink"
    found = shutil.which("skylink")
    if called.name != "skylink" or (found and Path(found).resolve() == called.resolve()):
        return "skylink"
    with contextlib.suppress(ValueError):
        called = called.absolute().relative_to(Path.cwd())
    return quoted(called)
