"""Encoders by spec: which module makes what, loaded only when asked for (docs/encoders.md).

A spec is `KIND:VALUE` for models that need a name or a file, `NAME` for those that don't. Other
packages add theirs by the entry point group `skylink.encoders`.
"""

from __future__ import annotations

import pkgutil
from importlib.metadata import entry_points

from skylink.encoder import EmbeddedEncoder, Encoder
from skylink.errors import ModelError, SkyLinkError

GROUP = "skylink.encoders"

WITH_VALUE = {
    "embedded": ("FOLDER", "skylink.embedded.encoder:load_embedded"),
    "onnx": ("PATH", "skylink.encoder:OnnxEncoder"),
    "timm": ("NAME[@FILE]", "skylink.encoders.timm_encoder:load_timm"),
    "hf": ("NAME_OR_FOLDER", "skylink.encoders.hf_encoder:load_hf"),
    "trained": ("FOLDER", "skylink.encoders.trained:load_trained"),
    "sample4geo": ("PATH", "skylink.encoders.sample4geo:load_sample4geo"),
    "camp": ("PATH", "skylink.encoders.camp:load_camp"),
    "dac": ("PATH", "skylink.encoders.dac:load_dac"),
    "mean": ("PATH", "skylink.encoders.mean:load_mean"),
    "game4loc": ("PATH", "skylink.encoders.game4loc:load_game4loc"),
    "university1652": ("PATH", "skylink.encoders.university1652:load_university1652"),
}
"""Kind -> what its value is, and `module:function` that makes the encoder from it."""

ALONE = {
    "vlad": "skylink.encoders.vlad:VladEncoder",
    "geoembed": "skylink.encoders.geoembed:load_geoembed",
}
"""Spec -> `module:function` that makes the encoder."""


def make_encoder(spec: str) -> Encoder:
    """The encoder of a spec, made anew; `skylink.encoder.load_encoder` keeps the last ones.

    Raises:
        ModelError: unknown spec, a package that is missing, or a model that can't be loaded.
    """
    kind, _, value = spec.partition(":")
    if spec in ALONE:
        made: Encoder = pkgutil.resolve_name(ALONE[spec])()
        return made
    if kind in WITH_VALUE and value:
        made = pkgutil.resolve_name(WITH_VALUE[kind][1])(value)
        return made
    for point in entry_points(group=GROUP):
        if point.name in (spec, kind) and kind not in WITH_VALUE:
            return _from_package(point.name, point.value, spec, value)
    others = sorted(point.name for point in entry_points(group=GROUP))
    known = ["embedded", f"embedded-base ({EmbeddedEncoder.name})", *ALONE, *others]
    known += [f"{name}:{what}" for name, (what, _) in WITH_VALUE.items()]
    raise ModelError(f"unknown encoder {spec!r}", hint=f"known are: {', '.join(known)}")


def _from_package(point: str, target: str, spec: str, value: str) -> Encoder:
    """What another package's factory makes of a spec, checked against the protocol."""
    origin = f"the encoder {point!r} of another package ({target})"
    try:
        factory = pkgutil.resolve_name(target)
        made = factory(value) if value else factory()
    except SkyLinkError:
        raise
    except Exception as error:  # someone else's code
        raise ModelError(f"{origin} can't be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(made, Encoder):
        raise ModelError(
            f"{origin} lacks attributes or methods of skylink.encoder.Encoder",
            hint="docs/encoders.md says what an encoder has",
        )
    if made.name != spec:  # a gallery finds its encoder again by this name
        raise ModelError(f"{origin} calls itself {made.name!r}: its name must be {spec!r}")
    return made
