"""The secret in the address of a studio, which keeps other users of the computer out."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

FILE = "access_token"
"""Name of the file in the state folder."""

TOKEN_BYTES = 24


@dataclass(frozen=True)
class Access:
    """What a request must contain: the token, in a cookie or in the header Authorization."""

    token: str
    cookie: str
    """Name of the cookie. Browsers send cookies to all ports of a computer, so it has the port."""

    @classmethod
    def of_folder(cls, state: Path, port: int) -> Self:
        """Return the access to the project of a state folder; it is the same after a restart.

        The token is kept in a file that only its owner can read. A file that others can read is
        replaced.
        """
        path = state / FILE
        token = _read_private(path)
        if not token:
            path.unlink(missing_ok=True)
            token = secrets.token_urlsafe(TOKEN_BYTES)
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(opened, "w", encoding="ascii") as file:
                file.write(token)
        return cls(token, f"ushape_studio_{port}")

    def is_known(self, token: str) -> bool:
        """Return whether a text is the token; the time does not depend on where they differ."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def is_in(self, cookies: Mapping[str, str]) -> bool:
        """Return whether the cookies of a request contain the token."""
        return self.is_known(cookies.get(self.cookie, ""))


def _read_private(path: Path) -> str:
    """Return the content of a file of this user that nobody else can read; '' otherwise."""
    try:
        facts = path.lstat()
        is_shared = os.name == "posix" and (facts.st_mode & 0o077 or facts.st_uid != os.getuid())
        return "" if is_shared or path.is_symlink() else path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
