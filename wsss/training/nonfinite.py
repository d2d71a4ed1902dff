"""Finds the module of a network in which the first value that is not finite arises, forward or backward.

Hooks look at the inputs and outputs of each module and at their gradients. What is computed between two modules is
named by the module after it. This synchronises the device at each module: it is for one step, not for a training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wsss.models.archive import tensors_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the first value that is not finite arises.

    Attributes:
        where: "batch", "weights", "forward", "class maps" (the backward within a forward that makes them), "loss" or
            "backward".
        module: its name in the network; of the batch, of the weights or of the loss the name of the value.
        of: the value that is not finite: "output", "input", "gradient of the input", ...
        inputs: smallest and largest finite value of each input of the module.
        images: rows of the batch where it arises; all of them where that cannot be told.
    """

    where: str
    module: str
    of: str
    inputs: tuple[tuple[float, float], ...]
    images: tuple[int, ...]


class Finder:
    """Keeps the first place.

    Args:
        images: rows of the batch.

    Attributes:
        place: the first one; None while all is finite.
        where: what is computed now: "forward" or "backward".
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self.place: Place | None = None
        self.where = "forward"
        self._takers: dict[int, tuple[str, tuple[tuple[float, float], ...]]] = {}
        self._kept: list[Tensor] = []

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Look at a network inside."""
        hooks: list[Any] = []
        for name, module in network.named_modules():
            look = partial(self._after, name or "network")
            hooks.append(module.register_forward_hook(look, with_kwargs=True))
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                owner, _, part = name.rpartition(".")
                hooks.append(_hook(parameter, partial(self._gradient, owner, f"gradient of its {part}", ())))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def note(self, where: str, module: str, of: str, values: Iterable[Tensor], inputs: Sequence[Tensor] = ()) -> None:
        """Keep a place if it is the first and one of its values is not finite."""
        bad = next((value for value in values if not bool(value.isfinite().all())), None)
        if bad is not None and self.place is None:
            self.place = Place(where=where, module=module, of=of, inputs=ranges(inputs), images=self._rows(bad))

    def _after(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """After a module: look at its inputs and outputs, and at their gradients once they are computed."""
        if self.place is not None:
            return
        inputs, outputs = _floats((*args, kwargs)), _floats([output])
        if not any(module.children()):
            self.note(self.where, name, "input", inputs, inputs)
        self.note(self.where, name, "output", outputs, inputs)
        for value in inputs:
            known = id(value) in self._takers
            self._takers.setdefault(id(value), (name, ranges(inputs)))
            if not known and value.requires_grad and not value.is_leaf:
                self._kept.append(value)
                _hook(value, partial(self._gradient, name, "gradient of its input", ranges(inputs)))
        for value in outputs:
            if value.requires_grad and not value.is_leaf:
                self._kept.append(value)
                _hook(value, self._of_output(id(value), name))

    def _of_output(self, key: int, name: str) -> Callable[[Tensor], None]:
        """Looks at the gradient of an output; it arises in the module that takes it, where there is one."""

        def look(gradient: Tensor) -> None:
            taker = self._takers.get(key)
            if taker is None:
                self._gradient(name, "gradient of its output", (), gradient)
            else:
                self._gradient(taker[0], "gradient of its input", taker[1], gradient)

        return look

    def _gradient(self, name: str, of: str, inputs: tuple[tuple[float, float], ...], gradient: Tensor) -> None:
        if self.place is None and not bool(gradient.isfinite().all()):
            where = "backward" if self.where == "backward" else "class maps"
            self.place = Place(where=where, module=name, of=of, inputs=inputs, images=self._rows(gradient))

    def _rows(self, value: Tensor) -> tuple[int, ...]:
        """The rows of the batch that are not finite, where the first axis is that of the images."""
        if value.ndim > 1 and len(value) == self.images:
            return tuple(int(row) for row in (~value.isfinite()).flatten(1).any(1).nonzero().flatten())
        return tuple(range(self.images))


def ranges(values: Sequence[Tensor]) -> tuple[tuple[float, float], ...]:
    """Smallest and largest finite value of each tensor that has one."""
    finite = [value.detach()[value.detach().isfinite()] for value in values]
    return tuple((float(value.min()), float(value.max())) for value in finite if value.numel())


def _floats(tree: Any) -> list[Tensor]:
    return [value for value in tensors_in(list(tree)) if torch.is_floating_point(value)]


def _hook(value: Tensor, look: Callable[..., None]) -> Any:
    """Call a function with the gradient of a value."""
    return value.register_hook(look)  # type: ignore[no-untyped-call]
