"""Pseudo labels on which class maps and the decoder agree.

Class maps know which pixels made a class likely in one image: they mark its telling parts and bleed past its edge. A
decoder trained on many such labels has averaged their accidents out, but drifts if it teaches itself alone. Their
normalised geometric mean, a product of experts (Hinton, 2002), is sure only where both are.

Shape suffixes: C = K + 1 label channels with the background first, K classes, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.labels.completion import BackgroundBand, PowerBackground

LEAST = 1e-4
"""Smallest probability of either side: neither forbids what the other is sure of."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A background rule that hears the decoder.

    Attributes:
        scores_KHW: class scores in [0, 1].
        present_K: bool, the image-level labels.
        opinion_CHW: the decoder's probabilities.
        rule: gives the background a score to set against those of the classes.
        softness: difference of scores that changes the odds of the maps by a factor e.
        confidence: joint probability below which a pixel is ignored.
    """

    scores_KHW: Tensor
    present_K: Tensor
    opinion_CHW: Tensor
    rule: PowerBackground | BackgroundBand
    softness: float
    confidence: float

    def label(self, best_HW: Tensor, class_HW: Tensor) -> Tensor:
        """The class index, 0 or IGNORE_INDEX: (H, W) uint8."""
        sure_HW, index_HW = self.probabilities(best_HW).max(dim=0)
        return index_HW.to(torch.uint8).masked_fill(sure_HW < self.confidence, IGNORE_INDEX)

    def probabilities(self, best_HW: Tensor) -> Tensor:
        """(C, H, W): the geometric mean of both sides; 0 for absent classes, each pixel sums to 1."""
        evidence_CHW = torch.cat([self.rule.score(best_HW)[None], self.scores_KHW]).float() / self.softness
        maps_CHW = self._allowed(evidence_CHW).softmax(dim=0)
        opinion_CHW = self._allowed(self.opinion_CHW.float().clamp_min(LEAST).log()).softmax(dim=0)
        both_CHW = 0.5 * (maps_CHW.clamp_min(LEAST).log() + opinion_CHW.clamp_min(LEAST).log())
        return self._allowed(both_CHW).softmax(dim=0)

    def _allowed(self, logits_CHW: Tensor) -> Tensor:
        absent_K = ~self.present_K
        absent_C = torch.cat([absent_K.new_zeros(1), absent_K])
        return logits_CHW.masked_fill(absent_C[:, None, None], -torch.inf)
