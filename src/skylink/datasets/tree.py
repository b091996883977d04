"""A dataset's folder on disk: listed in a stable order, read within bounds, never left.

What is not a picture of the dataset is passed over and counted: hidden files, the traces of file
managers, symbolic links, empty folders. Paths that come from a list inside the dataset stay inside.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylink.datasets.task import Item, escaped
from skylink.errors import DatasetError
from skylink.names import shown
from skylink.photo import SUFFIXES

MAX_ENTRIES = 1_000_000
MAX_TEXT_BYTES = 200_000_000
MAX_JSON_BYTES = 500_000_000

_TRACES = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True, slots=True)
class Entries:
    """What is in one folder: folders and pictures, sorted, and the names of all that counts."""

    folders: tuple[str, ...]
    pictures: tuple[str, ...]
    names: frozenset[str]


class Tree:
    """One dataset's folder. Each folder is listed once; make a new one to see changes.

    Args:
        root: the dataset's folder; it may itself be a link.

    Attributes:
        ignored: what was passed over so far, counted by kind.

    Raises:
        DatasetError: there is no such folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.ignored: Counter[str] = Counter()
        self._listed: dict[str, Entries] = {}
        if not self.root.is_dir():
            raise DatasetError(
                f"{self.root} is not a folder",
                hint="give the folder that the dataset was unpacked into",
            )

    def has(self, relative: str) -> bool:
        """Whether a folder or file of this name is there (links inside the tree do not count)."""
        parent, _, name = relative.rpartition("/")
        if parent and not self.has(parent):
            return False
        return name in self.list(parent).names

    def list(self, relative: str = "") -> Entries:
        """What is in a folder.

        Raises:
            DatasetError: it is missing or cannot be listed, or holds absurdly much.
        """
        if relative not in self._listed:
            self._listed[relative] = self._scan(relative)
        return self._listed[relative]

    def folders(self, relative: str = "") -> tuple[str, ...]:
        """Names of the folders in a folder."""
        return self.list(relative).folders

    def pictures(self, relative: str = "") -> tuple[str, ...]:
        """Names of the pictures in a folder, by suffix in any case (`skylink.photo.SUFFIXES`)."""
        return self.list(relative).pictures

    def places(self, relative: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(place, its pictures) for each folder in a folder; empty ones are counted as ignored."""
        for place in self.folders(relative):
            folder = f"{relative}/{place}"
            first = folder not in self._listed
            pictures = self.pictures(folder)
            if pictures:
                yield place, pictures
            elif first:
                self.ignored["empty folders"] += 1

    def item(self, relative: str, **said: Any) -> Item:
        """A picture by its path in the tree, with what is said of it."""
        return Item(id=escaped(relative), path=self.root / relative, **said)

    def text(self, relative: str, *, limit: int = MAX_TEXT_BYTES) -> str:
        """A text file, UTF-8 with or without BOM, line ends as LF.

        Raises:
            DatasetError: missing, too large, or not text.
        """
        path = self.root / self.inside(relative)
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError as error:
            raise self.missing(relative) from error
        except OSError as error:
            raise DatasetError(
                f"cannot read {path}: {error.strerror or error}", hint="check its permissions"
            ) from error
        if len(data) > limit:
            raise DatasetError(
                f"{path} has more than {limit:,} bytes",
                hint="no published list is so large: unpack the dataset again",
            )
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{path} is not UTF-8 text", hint="unpack the dataset again"
            ) from error

    def json(self, relative: str) -> Any:
        """A JSON file.

        Raises:
            DatasetError: missing, too large, or not JSON.
        """
        try:
            return json.loads(self.text(relative, limit=MAX_JSON_BYTES))
        except (ValueError, RecursionError) as error:
            raise DatasetError(
                f"{self.root / relative} is not JSON: {error}", hint="unpack the dataset again"
            ) from error

    def inside(self, listed: str) -> str:
        """A path from a list in the dataset, as a path in the tree (`/` between its parts).

        Raises:
            DatasetError: it is absolute, leaves the tree, or is no path at all.
        """
        parts = listed.split("/")
        if not listed or "\0" in listed or "\\" in listed or ":" in parts[0] or ".." in parts:
            bad = True
        else:
            bad = listed.startswith("/")
        if bad:
            raise DatasetError(
                f"{self.root}: a list names {shown(listed)!r}, which is not a path in the dataset",
                hint="the list is not as published: unpack the dataset again",
            )
        return "/".join(part for part in parts if part not in ("", "."))

    def missing(self, relative: str) -> DatasetError:
        """The one wording for what is not there; it names the topmost folder that is missing."""
        parts = relative.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        top = next((folder for folder in above if not self.has(folder)), relative)
        return DatasetError(
            f"{self.root / top} is missing",
            hint="unpack the dataset again; the folder to give is the one that holds this",
        )

    def _scan(self, relative: str) -> Entries:
        folders: list[str] = []
        pictures: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(self.root / relative) as entries:
                for count, entry in enumerate(entries):
                    if count == MAX_ENTRIES:
                        raise DatasetError(
                            f"{self.root / relative} holds more than {MAX_ENTRIES:,} entries",
                            hint="is it the dataset's folder?",
                        )
                    name = entry.name
                    if name.startswith(".") or name.lower() in _TRACES:
                        self.ignored["hidden files"] += 1
                    elif entry.is_symlink():
                        self.ignored["symbolic links"] += 1
                    elif entry.is_dir():
                        folders.append(name)
                    elif os.path.splitext(name)[1].lower() in SUFFIXES:
                        pictures.append(name)
                    else:
                        others.append(name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.missing(relative) from error
        except OSError as error:
            raise DatasetError(
                f"cannot list {self.root / relative}: {error.strerror or error}",
                hint="check its permissions",
            ) from error
        names = frozenset((*folders, *pictures, *others))
        return Entries(tuple(sorted(folders)), tuple(sorted(pictures)), names)


def absent(root: Path, listed: str, names: list[str]) -> DatasetError:
    """The one wording for pictures that a list names and the disk does not have."""
    first = ", ".join(shown(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return DatasetError(
        f"{root / listed} names {len(names)} pictures that are not there: {first}{more}",
        hint="unpack the archives of pictures again, into this same folder",
    )
