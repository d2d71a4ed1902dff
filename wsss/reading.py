"""The keys of the config that say how a data folder is read; the commands that open one have their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from wsss.section import Section

Names = tuple[str, ...]
TagsFrom = Literal["auto", "file", "xml", "shapes", "masks"]


class Reading(Section):
    """How a data folder is read: the keys that say what its files mean. data/README.md has a page for each format."""

    format: str = "auto"
    """Format of the data folder (wsss data formats lists them); "auto" recognises it."""
    tags: Path | None = None
    """Tags table, where it is not in the data folder."""
    tags_from: TagsFrom = "auto"
    """Source of the tags: a table or the tags of whole images (file), XML files, drawn objects (shapes), or masks.

    auto takes all but masks."""
    classes: Names = ()
    """Class names in the order of their indices, where the format does not name them or only some are wanted."""
    tag_field: str | None = None
    """Group of choices, attribute or key that holds the tags, where the file has several."""
    none: Names = ()
    """Labels that mean "none of the classes", such as No Finding."""
    ignore: Names = ()
    """Labels that are no class and whose pixels are ignored in masks; void and unlabelled are by themselves."""
    keep: Names = ()
    """Labels that are classes although they look like a word for "ignored"."""
    crowd: Literal["ignore", "object"] | None = None
    """What COCO annotations marked as crowds are: ignored pixels or objects. None: as the file shows."""
    unlisted: Literal["absent", "unknown"] = "absent"
    """What it means that an image does not list a class: absent, or unknown (the class is not trained on there)."""
    uncertain: Literal["0", "1", "drop"] | None = None
    """What -1 means in 0/1 tables: absent (0), present (1) or unknown (drop). None: such tables are refused."""
    columns: Names = ()
    """Columns of a table by their use: image=NAME,labels=NAME,split=NAME."""
    levels: Annotated[str, Field(pattern=r"^(auto|[0-9]{1,5},[0-9]{1,5})$")] = "auto"
    """Values of 16-bit images that are black and white: LOW,HIGH, e.g. 0,4095 for 12 bits; auto takes the bits in use.

    auto looks at all images of the split that is trained on, and a run keeps what was found."""
    bands: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=3)] = ()
    """Bands of GeoTIFF files that are red, green and blue, e.g. 4,3,2, or a single one, from 1 (wsss[geo]).

    None given: the colours that the file has."""
    encoding: str = "utf-8"
    """Character encoding of tables and lists of names."""
    annotators: Literal["newest", "union"] = "newest"
    """Which annotation counts where several people annotated an image: the newest, or the labels of all."""
    mask_offset: Annotated[int, Field(ge=0)] = 0
    """Added to the values of mask files: 1 where the first class is 0."""
    mask_ignore: Annotated[int, Field(ge=0, le=255)] | None = None
    """Value of mask files, before the offset, whose pixels are ignored. 255 always is."""

    @field_validator("bands")
    @classmethod
    def _bands_are_one_or_three(cls, bands: tuple[int, ...]) -> tuple[int, ...]:
        if len(bands) == 2:
            raise ValueError("one band or three")
        return bands

    @field_validator("levels")
    @classmethod
    def _levels_are_ordered(cls, text: str) -> str:
        low, _, high = text.partition(",")
        if high and not int(low) < int(high) < 2**16:
            raise ValueError(f"black must be below white, and white at most {2**16 - 1}, got {text}")
        return text
