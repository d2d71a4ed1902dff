"""Peak memory and time of segmenting one large picture, whole and in windows.

    python benchmarks/tiles.py --sides 2048 4096 8192 --tile 1024

Each picture is segmented in a process of its own by an untrained network, of which memory and time do not depend on
its weights. Prints one line a side: peak resident memory (MiB) above that of the program before the picture exists, and
seconds, whole and in windows. "naive" is what the probabilities of all classes at the size of the picture would take.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

CLASSES = 20


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def segment(side: int, tile: int | None) -> None:
    """Segment one picture and print MiB and seconds."""
    import numpy as np
    import torch

    from wsss.config import Config
    from wsss.inference.segmenter import Segmenter
    from wsss.models.network import build_network

    names = tuple(f"class{k}" for k in range(CLASSES))
    network = build_network("deit_tiny_distilled_patch16_224", names, decoder=True).eval()
    config = Config.model_validate({"predict": {"scales": (224,), "tile": tile or 2 * side}})
    segmenter = Segmenter(network, config, torch.device("cpu"))
    rng = np.random.default_rng(0)
    segmenter.predict(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8))
    before = peak()
    image = np.repeat(np.repeat(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8), 8, 0), 8, 1)
    start = time.perf_counter()
    label = segmenter.predict(image).label_HW if tile is None else segmenter.label_large(image)
    assert label.shape == image.shape[:2]
    print(f"{peak() - before:.0f} {time.perf_counter() - start:.1f}")


def measured(side: int, tile: int | None) -> tuple[float, float]:
    """MiB and seconds of a process that segments one picture."""
    command = [sys.executable, __file__, "--one", str(side), *(["--tile", str(tile)] if tile else ["--tile", "0"])]
    mib, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(mib), float(seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096, 8192])
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        segment(options.one, options.tile or None)
        return
    print("side   picture   whole MiB, s   windows MiB, s   ratio   naive MiB")
    for side in options.sides:
        (whole, whole_s), (tiles, tiles_s) = measured(side, None), measured(side, options.tile)
        naive = 4 * (CLASSES + 1) * side**2 / 2**20
        picture = 3 * side**2 / 2**20
        print(
            f"{side}   {picture:.0f}   {whole:.0f}, {whole_s:.1f}   {tiles:.0f}, {tiles_s:.1f}"
            f"   {tiles / naive:.3f}   {naive:.0f}"
        )


if __name__ == "__main__":
    main()
