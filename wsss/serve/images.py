"""Images that a request names: files below one folder and, where that is allowed, what one host sends.

Nothing in a request is trusted. A name that leads out of the folder, also by a symbolic link, is refused, and so is
every other address.

Shape suffixes: H rows, W columns, 3 RGB.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

from wsss.data.images import IMAGE_SUFFIXES, UnreadableImage, decode_image, opened, read_content, upright_size
from wsss.errors import UsageError

LOCAL_FILES = "/data/local-files/"
"""Path of Label Studio's address of a file in its local storage: ``/data/local-files/?d=NAME``."""
ITS_OWN = "/data/"
"""Beginning of the paths of what Label Studio keeps itself, such as uploaded photos."""
FETCH_SECONDS = 10
"""How long a host may take to answer."""


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP, 4xx.
        reason: in plain words.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _NoRedirect(HTTPRedirectHandler):
    """A host that sends to another address is not followed."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Where images come from, and how large they may be.

    Attributes:
        root: the folder.
        host: address of Label Studio, whose own images are fetched; "" fetches nothing.
        token: sent to the host; never printed.
        max_pixels: of an image.
        max_bytes: of an image file.
    """

    root: Path
    host: str = ""
    token: str = field(default="", repr=False)
    max_pixels: int = 50_000_000
    max_bytes: int = 2**26

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is no folder", "--images DIR  # the folder of the photos")
        parts = _split(self.host)
        if self.host and (parts is None or parts.scheme not in ("http", "https") or not parts.hostname):
            raise UsageError(f"{self.host!r} is no address of a host", "--label-studio http://127.0.0.1:8080")

    def read(self, name: str) -> NDArray[np.uint8]:
        """An image as (H, W, 3) uint8 RGB, upright.

        Args:
            name: a path below the folder, or an address of Label Studio.

        Raises:
            Refused: it lies elsewhere, is missing, is no image or too large; the reason names no file of this machine
                but the name that was asked for.
        """
        content = self._content(name)
        if len(content) > self.max_bytes:
            raise Refused(413, f"{short(name)}: more than {self.max_bytes} bytes")
        try:
            with opened(Path("image"), io.BytesIO(content)) as image:
                height, width = upright_size(image)
            if height * width > self.max_pixels:
                what = f"{short(name)}: {width} x {height} pixels, at most {self.max_pixels} are read"
                raise Refused(413, what)
            return decode_image(content, Path("image"))
        except UnreadableImage as error:
            raise Refused(422, f"{short(name)}: unreadable image ({error.reason})") from error

    def _content(self, name: str) -> bytes:
        parts = _split(name)
        if parts is None or "\0" in name:
            raise Refused(400, f"{short(name)}: this is no name of an image")
        if parts.path == LOCAL_FILES or parts.path == LOCAL_FILES.rstrip("/"):
            return self._file((parse_qs(parts.query).get("d") or [""])[0])
        if self.host and parts.path.startswith(ITS_OWN) and self._is_at_host(parts):
            return self._fetched(parts)
        if parts.scheme or parts.netloc:
            raise Refused(403, f"{short(name)}: no image of another address is fetched")
        if parts.path.startswith(ITS_OWN):
            what = f"{short(name)}: Label Studio keeps this image itself; wsss serve fetches it with --label-studio URL"
            raise Refused(403, what)
        return self._file(unquote(parts.path))

    def _file(self, name: str) -> bytes:
        """The bytes of a file below the folder."""
        root = self.root.resolve()
        if not name or "\0" in name:
            raise Refused(400, "the task names no image file")
        try:
            path = (root / name).resolve()
            inside = path.is_relative_to(root)
        except (OSError, ValueError, RuntimeError):  # a name that is too long, a ring of links
            raise Refused(400, f"{short(name)}: this is no name of a file") from None
        if not inside:
            raise Refused(403, f"{short(name)}: it lies outside of the folder of --images")
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise Refused(403, f"{short(name)}: its ending is not that of an image")
        try:
            if path.stat().st_size > self.max_bytes:
                raise Refused(413, f"{short(name)}: more than {self.max_bytes} bytes")
            return read_content(path)
        except OSError:
            raise Refused(404, f"{short(name)}: there is no such file below the folder of --images") from None
        except UnreadableImage as error:
            raise Refused(422, f"{short(name)}: unreadable image ({error.reason})") from error

    def _is_at_host(self, parts: SplitResult) -> bool:
        """Whether an address is one of the host, or names no host."""
        if not parts.scheme and not parts.netloc:
            return True
        host = urlsplit(self.host)
        return (parts.scheme, parts.netloc) == (host.scheme, host.netloc)

    def _fetched(self, parts: SplitResult) -> bytes:
        """What the host sends for a path; redirects are not followed."""
        host = urlsplit(self.host)
        address = parts._replace(scheme=host.scheme, netloc=host.netloc, fragment="").geturl()
        headers = {"Authorization": f"Token {self.token}"} if self.token else {}
        opener = build_opener(_NoRedirect, ProxyHandler({}))
        try:
            with opener.open(Request(address, headers=headers), timeout=FETCH_SECONDS) as answer:
                content: bytes = answer.read(self.max_bytes + 1)
        except (URLError, OSError, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()
            why = getattr(error, "code", None) or getattr(error, "reason", None) or type(error).__name__
            raise Refused(424, f"{short(parts.path)}: Label Studio did not send it ({why})") from error
        return content


def short(text: object, most: int = 120) -> str:
    """Text of a request for a message: quoted, without control characters, and not long."""
    words = ascii(str(text)[: most + 1])
    return words if len(str(text)) <= most else f"{words[:-2]}...'"


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts
