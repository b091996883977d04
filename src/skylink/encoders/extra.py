"""torch, or an error that says what to install. Only modules that need torch import this."""

from __future__ import annotations

from skylink.errors import ModelError, pip_hint

__all__ = ["PIP", "missing", "torch"]

PIP = pip_hint("bases")


def missing(what: str, error: Exception) -> ModelError:
    """The error for a package that is absent, or doesn't fit its neighbours."""
    return ModelError(f"this encoder needs {what}, which can't be imported ({error})", hint=PIP)


try:
    import torch
except (ImportError, OSError, RuntimeError) as problem:  # a broken library raises the latter two
    raise missing("torch", problem) from problem
