"""SkyLink: find where a drone photo was taken, by looking at it together with satellite imagery.

from skylink import Gallery, Localizer
gallery = Gallery.build(["map.tif"], "gallery")
estimate = Localizer(gallery).locate("photo.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from skylink.gallery import Gallery
    from skylink.localizer import Localizer

__all__ = ["Gallery", "Localizer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the heavy half on first use, so that `import skylink` stays instant (PEP 562)."""
    if name == "Gallery":
        from skylink.gallery import Gallery

        return Gallery
    if name == "Localizer":
        from skylink.localizer import Localizer

        return Localizer
    raise AttributeError(f"module 'skylink' has no attribute {name!r}")
