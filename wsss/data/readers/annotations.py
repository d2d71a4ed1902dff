"""XML annotations of PASCAL VOC: the objects of an image, and what else the file says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import fromstring

from wsss.data.findings import BadData

MAX_ANNOTATION = 2**24
"""Bytes of an annotation, at most; this many hold a hundred thousand objects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """What an annotation says.

    Attributes:
        labels: names of its objects, each once, without those of their parts.
        file: name of the image file; empty where it says none.
        size: (H, W) in pixels; None where it says none.
    """

    labels: tuple[str, ...]
    file: str
    size: tuple[int, int] | None


def xml_labels(path: Path) -> tuple[str, ...] | None:
    """The labels of an annotation; None where there is no file. See ``read_annotation``."""
    annotation = read_annotation(path)
    return None if annotation is None else annotation.labels


def read_annotation(path: Path) -> Annotation | None:
    """Read an annotation; None where there is no file.

    Raises:
        DataError: it is not XML, or declares a document type.
    """
    tree = xml_tree(path)
    if tree is None:
        return None
    labels = [(thing.findtext("name") or "").strip() for thing in tree.iterfind("object")]
    height, width = (_whole_number(tree.findtext(f"size/{side}")) for side in ("height", "width"))
    return Annotation(
        labels=tuple(dict.fromkeys(label for label in labels if label)),
        file=(tree.findtext("filename") or "").strip(),
        size=(height, width) if height and width else None,
    )


def xml_tree(path: Path, limit: int = MAX_ANNOTATION) -> Element | None:
    """The root element of an XML file of at most ``limit`` bytes; None where there is no file.

    Raises:
        DataError: it is not XML, or declares a document type.
    """
    try:
        if not path.is_file() and path.exists():  # reading a pipe would block
            raise _bad_annotation(path, "no regular file")
        if path.stat().st_size > limit:
            raise _bad_annotation(path, f"more than {limit} bytes")
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _bad_annotation(path, error.strerror) from error
    try:
        tree: Element = fromstring(content, forbid_dtd=True)
    except DTDForbidden as error:
        raise _bad_annotation(path, "it declares a document type") from error
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:  # the last: an unknown encoding
        raise _bad_annotation(path, error) from error
    return tree


def _whole_number(text: str | None) -> int:
    """A number of pixels; 0 where the text is none. Some tools write 0 where they do not know it."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _bad_annotation(path: Path, reason: object) -> BadData:
    """The error for an annotation that cannot be read."""
    what = f"unreadable annotation ({reason})"
    return BadData.at("annotation-unreadable", path, what, f"replace or delete {path}")
