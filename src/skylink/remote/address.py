"""A server's address and its key: which text is one, and where a key may go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from skylink.errors import OptionError

EXAMPLE = "http://localhost:8000"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        root: scheme, host, port and path, without `/v1` and without a slash at the end.
    """

    root: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """`http://host:8000`, `https://host/v1`, `https://host/path/v1/` ...

        Raises:
            OptionError: not such an address, or one with a password, query or fragment in it.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise OptionError(f"not a server's address: {error}", hint=f"like {EXAMPLE}") from None
        if parts.username is not None or parts.password is not None:
            raise OptionError(  # without the address: it has a password in it
                "a server's address must not hold a name or password",
                hint="put the key into an environment variable",
            )
        printable = url.isascii() and url.isprintable() and " " not in url
        if parts.scheme not in ("http", "https") or not host or not printable:
            raise OptionError(f"not a server's address: {url!r}", hint=f"like {EXAMPLE}")
        if parts.query or parts.fragment:
            raise OptionError(
                f"the address of a server ends with its path: {parts.scheme}://{host}...",
                hint=f"like {EXAMPLE}/v1",
            )
        shown = f"[{host}]" if ":" in host else host
        place = shown if port is None else f"{shown}:{port}"
        return cls(f"{parts.scheme}://{place}{parts.path.rstrip('/').removesuffix('/v1')}")

    def url(self, path: str) -> str:
        """Of a path such as `/v1/models`."""
        return self.root + path

    @property
    def loopback(self) -> bool:
        """Whether it is this very machine."""
        host = urlsplit(self.root).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def key(self, variable: str, *, plain: bool) -> str | None:
        """The key in an environment variable; None where it is not set.

        Args:
            variable: its name.
            plain: allow a key to go over plain http to another machine.

        Raises:
            OptionError: the key would be readable on the way, or is no key.
        """
        key = os.environ.get(variable, "").strip()
        if not key:
            return None
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise OptionError(f"what {variable} holds is not a key", hint=f"unset {variable}")
        if self.root.startswith("http://") and not self.loopback and not plain:
            raise OptionError(
                f"the key in {variable} would go to {self.root} unencrypted",
                hint=f"use https, unset {variable}, or allow it explicitly (plain_key)",
            )
        return key
