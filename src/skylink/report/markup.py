"""HTML and SVG that escapes whatever is not markup already."""

from __future__ import annotations

from html import escape

from skylink.names import shown

_VOID = frozenset({"br", "img", "meta", "circle", "line", "path", "rect"})


class Html(str):
    """Text that is markup: `tag` takes it as it is, and escapes any other text."""

    __slots__ = ()


def text(words: str) -> Html:
    """Any words as markup; control characters are spelled out, so that they do no harm."""
    return Html(escape("\n".join(shown(line) for line in words.split("\n"))))


def join(*parts: str) -> Html:
    """Several parts after each other."""
    return Html("".join(part if isinstance(part, Html) else text(part) for part in parts))


def tag(name: str, *children: str, **attributes: str | float | None) -> Html:
    """An element.

    Args:
        name: of the element, lower case.
        children: markup, or texts that are escaped.
        attributes: None leaves one out. `class_` is `class`, other `_` are `-`; values are escaped.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{words}>" if name in ("br", "img", "meta") else f"<{name}{words}/>")
    return Html(f"<{name}{words}>{join(*children)}</{name}>")
