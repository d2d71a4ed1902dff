"""Paint what the tutorials call photos: a folder with tags and masks, for a machine without data.

    python examples/paint_photos.py PHOTOS [NUMBER]

Scenes with four kinds of animals whose caps differ (``wsss.data.scenes``): NUMBER for training (1,500 by default), 100
of a split ``val``. The masks are for ``wsss evaluate`` alone.
"""

import sys
from pathlib import Path

from wsss.data.scenes import SceneSettings, write_scenes

out, number = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1500
write_scenes(out, train=number, val=100, seed=0, settings=SceneSettings())
print(f"{out}: {number} scenes to train on, 100 to validate on")
