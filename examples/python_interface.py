"""The Python interface of wsss, step by step. Run the file, or its cells (``# %%``) in an editor or notebook.

    python examples/python_interface.py [SCENES]

It paints SCENES scenes with tags (600 by default, about three minutes on two cores), trains on the tags, labels and
segments. Everything is written to the folder ``interface-example``. Nothing is downloaded.
"""

# %% A data folder: any layout that `wsss data check` accepts. Here it is painted.
import sys
from pathlib import Path

import numpy as np

import wsss
from wsss.data.scenes import SceneSettings, write_scenes

OUT = Path("interface-example")
SCENES = int(sys.argv[1]) if len(sys.argv) > 1 else 600
write_scenes(OUT / "scenes", train=SCENES, val=20, seed=0, settings=SceneSettings())

data = wsss.open_dataset(OUT / "scenes")
print("splits", data.splits, "classes", data.classes)
record = data.records("val")[0]
print("first image", record.name, "with tags", [data.classes[tag] for tag in record.tags])

# %% A config is a preset or a file, then "key=value" settings, then values. It is what the command line makes of flags.
config = wsss.resolve_config(
    "demo",
    ["classify.epochs=3", "segment.epochs=2", "segment.rounds=1"],
    {"data.root": OUT / "scenes", "run.workers": 0},
)

# %% Training takes tags alone. Each run is a folder; the command line reads the same folders.
if not (OUT / "cls" / "last.pt").is_file():
    wsss.train_classifier(config, OUT / "cls")
if not (OUT / "seg" / "last.pt").is_file():
    wsss.train_segmenter(config, OUT / "seg", init=OUT / "cls")

# %% A labeller knows the tags of an image and gives its pseudo label.
labeller = wsss.Labeller.load(OUT / "cls", config="demo")
tags = [data.classes[tag] for tag in record.tags]
label_HW = labeller.label(record.image, tags)
print("pseudo label", label_HW.shape, label_HW.dtype, "holds class indices", np.unique(label_HW).tolist())
for name, score_hw in labeller.maps(record.image, tags).items():
    print("class scores of", name, "on a grid of", score_hw.shape, "from", score_hw.min(), "to", score_hw.max())

# %% A segmenter needs the image alone: an array (H, W, 3) of uint8, a PIL image or a path.
segmenter = wsss.Segmenter.load(OUT / "seg", device="auto")
prediction = segmenter.predict(record.image)
print("mask", prediction.label_HW.shape, "holds class indices", np.unique(prediction.label_HW).tolist())
probability_1HW = prediction.probabilities([tags[0]])
print("probability of", tags[0], "up to", round(float(probability_1HW.max()), 3))

# %% Many images: predictions come in order, in batches.
records = data.records("val")
for record, prediction in zip(records, segmenter.predict_many(record.image for record in records), strict=True):
    prediction.save(OUT / "masks" / f"{record.name}.png")

# %% The masks of the data set are for scoring alone.
from wsss.evaluation.confusion import ConfusionMatrix  # noqa: E402

matrix = ConfusionMatrix(len(data.classes) + 1)
for record, prediction in zip(records, segmenter.predict_many(record.image for record in records), strict=True):
    truth_HW = data.truth(record, "val")
    if truth_HW is not None:
        matrix.update(prediction.label_HW, truth_HW)
print("mIoU on unseen scenes", round(matrix.mean_iou(), 3))
