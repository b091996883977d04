"""One exception tree. Every error says what is wrong, where, and what to type next.

Library code raises these and knows nothing of terminals or HTTP; `cli.py` turns them into
one line and an exit status (docs/cli.md has the table).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class SkyLinkError(Exception):
    """Base of every error that SkyLink raises on purpose.

    Args:
        message: what is wrong and where (file, row, value).
        hint: what the user can do or type about it; shown on its own line.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PhotoError(SkyLinkError):
    """A photo can't be read: missing, corrupt, truncated, empty, too large, not an image."""


class TelemetryError(SkyLinkError):
    """Telemetry is absurd: NaN, a negative altitude, a camera that looks above the horizon."""


class QueriesError(SkyLinkError):
    """A queries.csv can't be used: missing columns, duplicate files, swapped coordinates."""


class MapError(SkyLinkError):
    """A map source can't be read or has no usable georeference."""


class DescriptorError(SkyLinkError):
    """Descriptors can't be read or used: a file's format, sizes, NaN, zero vectors, ids."""


class RunError(SkyLinkError):
    """A run, qrels or list of candidates can't be read, written or scored."""


class DatasetError(SkyLinkError):
    """A benchmark dataset is missing, incomplete or damaged, or its lists contradict its files."""


class GalleryError(SkyLinkError):
    """A gallery is missing, incomplete, tampered with, or of another schema or model."""


class ModelError(SkyLinkError):
    """A model can't be loaded or returned something that breaks its contract."""


class OutputError(SkyLinkError):
    """A result can't be written: read-only folder, full disk."""


class OptionError(SkyLinkError):
    """An option has a value that can't be used."""


class RerankError(SkyLinkError):
    """A re-ranker failed on a query. The query keeps its base order, `reranked = False`."""


def pip_hint(extra: str) -> str:
    """What to type for packages that an extra of pyproject.toml brings."""
    return f"pip install '.[{extra}]' in SkyLink's folder"


def first_complaint(error: ValidationError) -> str:
    """What a file's format has against it first, "key.of.it: why"; without the value itself."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
