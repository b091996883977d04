"""Names of files as text: some are not UTF-8, some hold characters that would upset a terminal."""

from __future__ import annotations


def readable(name: str) -> str:
    """A name as text that any encoder takes: bytes that are not UTF-8 become `\\xff`."""
    lone = any(0xD800 <= ord(c) <= 0xDFFF and not 0xDC80 <= ord(c) <= 0xDCFF for c in name)
    raw = name.encode("utf-8", "backslashreplace" if lone else "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def shown(name: str) -> str:
    """`readable`, and safe on a terminal: control characters are spelled out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable(name)
    )
