"""CVAT's auto-annotation: an object with ``spec`` and ``detect``, and the file that cvat-cli loads.

Needs the package ``cvat-sdk`` when it is made (``pip install 'wsss[cvat]'``).

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.data.outlines import Part, parts
from wsss.errors import MachineError, UsageError
from wsss.files import write_whole
from wsss.inference.segmenter import Segmenter

if TYPE_CHECKING:
    from PIL import Image

FILE = "wsss_function.py"
"""Name of the file for cvat-cli."""
TEMPLATE = '''"""A network of wsss for CVAT: cvat-cli task auto-annotate TASK --function-file FILE."""

from wsss.serve.cvat import CvatFunction

_function = CvatFunction.load({run!r}, device={device!r}, checkpoint={checkpoint!r})
spec = _function.spec
detect = _function.detect
'''


class CvatFunction:
    """A detection function of CVAT: one mask, or polygon, for each connected part of a class.

    Args:
        segmenter: the network.
        min_area: pixels of a part; smaller ones are left out.

    Attributes:
        spec: the labels, in the order of the classes; their ids are class indices.

    Raises:
        MachineError: ``cvat-sdk`` is not installed.
    """

    def __init__(self, segmenter: Segmenter, *, min_area: int = 1) -> None:
        self._sdk, self._segmenter, self._min_area = require_sdk(), segmenter, min_area
        labels = [self._sdk.label_spec(name, k, type="any") for k, name in enumerate(segmenter.classes, start=1)]
        self.spec = self._sdk.DetectionFunctionSpec(labels=labels)

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto", checkpoint: str = "last") -> CvatFunction:
        """The function of a run of ``train-seg``; the arguments are those of ``Segmenter.load``."""
        require_sdk()
        return cls(Segmenter.load(run, device=device, checkpoint=checkpoint))

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """The shapes of an image, each with the certainty of its class as its score.

        Args:
            context: CVAT's; classes below its ``conf_threshold`` are left out, and with ``conv_mask_to_poly`` the
                shapes are polygons, which have no holes.
            image: as CVAT reads it.
        """
        prediction = self._segmenter.predict(image)
        certainty, least = prediction.certainty(), context.conf_threshold or 0.0
        size = (prediction.label_HW.shape[0], prediction.label_HW.shape[1])
        made = []
        for part in parts(prediction.label_HW, len(self._segmenter.classes)):
            score = certainty.get(part.class_index, 0.0)
            if score < least or part.area < self._min_area:
                continue
            made.append(self._polygon(part, score) if context.conv_mask_to_poly else self._mask(part, score, size))
        return made

    def _polygon(self, part: Part, score: float) -> Any:
        """The outer outline of a part."""
        outer, _ = part.rings()
        points = [float(value) for corner in outer for value in corner]
        return self._sdk.polygon(part.class_index, points, score=score)

    def _mask(self, part: Part, score: float, size: tuple[int, int]) -> Any:
        """The pixels of a part: run lengths in its box, the first of zeros, and the box with its last pixels."""
        from wsss.data.writers.cvat import row_lengths

        left, top, width, height = part.box
        lengths = [float(length) for length in row_lengths(part.mask_hw).split(", ")]
        points = [*lengths, float(left), float(top), float(left + width - 1), float(top + height - 1)]
        return self._sdk.mask(part.class_index, points, score=score)


def require_sdk() -> Any:
    """The module ``cvat_sdk.auto_annotation``.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import cvat_sdk.auto_annotation as sdk
    except ImportError as error:
        raise MachineError("the package cvat-sdk is not installed", "pip install 'wsss[cvat]'") from error
    return sdk


def write_function(out: Path, run: Path, *, device: str = "auto", checkpoint: str = "last") -> Path:
    """Write the file for cvat-cli; it holds the path of the run.

    Raises:
        UsageError: there is one already.
    """
    path = out / FILE
    if path.exists():
        raise UsageError(f"{path} exists", "remove it, or choose another -o")
    write_whole(path, TEMPLATE.format(run=str(run.absolute()), device=device, checkpoint=checkpoint))
    return path
