"""How much do the label maps of two folders differ? For a change that should leave them as they were.

    python benchmarks/difference.py OLD NEW

OLD and NEW are folders of make-pseudo or predict, made by two versions of the program from the same images. Nothing is
scored: no mask is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from measuring import table

from wsss.data.masks import read_mask
from wsss.outputs.manifest import find_predictions


def main(
    old: Annotated[Path, typer.Argument(help="Folder of label maps.")],
    new: Annotated[Path, typer.Argument(help="The other one.")],
) -> None:
    """Print the share of pixels that differ, over all images that both folders have and in the worst one."""
    folders = [find_predictions(folder).labels for folder in (old, new)]
    names = [{path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} for folder in folders]
    shares, differing, pixels = {}, 0, 0
    for name in sorted(names[0] & names[1]):
        before_HW, now_HW = (read_mask(folder / name) for folder in folders)
        if before_HW.shape != now_HW.shape:
            raise typer.BadParameter(f"{name} has {before_HW.shape} pixels in {old} and {now_HW.shape} in {new}")
        changed = int((before_HW != now_HW).sum())
        shares[name] = changed / before_HW.size
        differing, pixels = differing + changed, pixels + before_HW.size
    if not shares:
        raise typer.BadParameter(f"{old} and {new} have no label map of the same name")
    worst = max(shares, key=lambda name: shares[name])
    row = [str(len(shares)), f"{100 * differing / pixels:.4f}", f"{100 * shares[worst]:.4f} ({worst})"]
    row += [str(sum(share == 0 for share in shares.values())), str(len(names[0] ^ names[1]))]
    print(table(["images", "pixels that differ, %", "worst image, %", "equal images", "only in one folder"], [row]))


if __name__ == "__main__":
    typer.run(main)
