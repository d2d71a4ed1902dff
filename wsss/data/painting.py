"""How a scene is painted: grounds, animals and stones, the light on them, and the camera that takes the picture.

An animal is a plain shaded body in a random colour; its class shows only in a textured cap at one end of it, as the
class of a dog shows in its head. Every random choice is drawn from the generator that is passed, in the order of the
calls.
Colours are RGB in about [0, 1] until ``photograph`` makes them bytes.

Shape suffixes: H rows, W columns, 3 RGB; h, w the rows and columns of the box around one body.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MIN_SEEN = 0.7
"""Share of an animal that must stay visible; a body that would hide more of it is placed elsewhere."""
TELLING_SHARE = (0.12, 0.5)
"""Bounds on the share of the visible part of an animal that the texture of its class covers."""
FINEST_PERIOD = 4.5
"""Shortest period of the texture of a class, in pixels."""
FINE = 4
"""Outlines are drawn on a grid this much finer than the pixels."""
ANIMAL_SCALE = (0.2, 0.36)
STONE_SCALE = (0.12, 0.22)
"""Ranges of the half-length of a body, in shorter sides of the image."""
CAP_START = (0.05, 0.25)
"""Range of where the cap begins on the axis, in half-lengths; 0 is the middle of the body."""
CAP_BEND = 0.3
"""How much further down the flanks the cap reaches."""
CAP_MIDDLE = 0.6
"""Where the middle of the cap lies on the axis, in half-lengths."""


def _soft(steep: Floats | NDArray[np.float64]) -> Floats:
    """Squeeze into -1 to 1."""
    marks: Floats = np.tanh(steep)
    return marks


def _stripes(u: Floats, v: Floats) -> Floats:
    """Bands across the body; like all patterns, from -1 to 1 with soft edges and a period of 2 pi."""
    return _soft(4 * np.sin(u))


def _spots(u: Floats, v: Floats) -> Floats:
    """Dots on a square grid."""
    return _soft(3 * (np.cos(u) + np.cos(v) - 0.5))


def _rings(u: Floats, v: Floats) -> Floats:
    """Circles around the middle of the cap."""
    ripples: Floats = np.cos(np.sqrt(u * u + v * v))
    return _soft(3 * ripples)


def _checks(u: Floats, v: Floats) -> Floats:
    """A chessboard."""
    return _soft(5 * np.sin(u) * np.sin(v))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Texture:
    """The texture of a class: a pattern in an RGB colour, in [0, 1], on the skin of the animal."""

    pattern: Callable[[Floats, Floats], Floats]
    colour: tuple[float, float, float]


TEXTURES = (
    _Texture(pattern=_stripes, colour=(0.10, 0.08, 0.06)),
    _Texture(pattern=_spots, colour=(0.88, 0.06, 0.04)),
    _Texture(pattern=_rings, colour=(0.08, 0.25, 0.78)),
    _Texture(pattern=_checks, colour=(0.65, 0.08, 0.65)),
    _Texture(pattern=_stripes, colour=(1.00, 1.00, 1.00)),
    _Texture(pattern=_spots, colour=(0.05, 0.30, 0.10)),
    _Texture(pattern=_rings, colour=(1.00, 0.75, 0.00)),
    _Texture(pattern=_checks, colour=(0.00, 0.75, 0.80)),
)
"""Class ``k`` (from 0) has texture ``k``, whatever its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Where an animal or a stone lies, before it is painted.

    Attributes:
        label: class index; 0 for a stone.
        box: rows and columns that hold it.
        alpha_hw: opacity in [0, 1], fractional on the outline.
        u_hw: coordinate along the axis, in half-lengths; the cap is at the end where it is 1.
        v_hw: coordinate across it, in half-lengths.
        half_length: of the body, in pixels.
        cap_hw: opacity of the texture of the class, in [0, 1].
        area: of the whole outline in pixels, in or out of the frame.
    """

    label: int
    box: tuple[slice, slice]
    alpha_hw: Floats
    u_hw: Floats
    v_hw: Floats
    half_length: float
    cap_hw: Floats
    area: float


class Canvas:
    """The picture, and the body that each pixel shows."""

    def __init__(self, image_HW3: Floats) -> None:
        self.image_HW3 = image_HW3
        self.owner_HW = np.zeros(image_HW3.shape[:2], dtype=np.int64)  # 0 background, then bodies in order
        self.telling_HW = np.zeros(image_HW3.shape[:2], dtype=np.bool_)
        self.bodies: list[Body] = []

    def accepts(self, body: Body) -> bool:
        """Put the body on top, unless too little of it, of one below, or of their textures would stay visible."""
        owner_HW, telling_HW = self.owner_HW.copy(), self.telling_HW.copy()
        inside_hw = body.alpha_hw > 0.5
        owner_HW[body.box][inside_hw] = len(self.bodies) + 1
        telling_HW[body.box][inside_hw] = (body.cap_hw > 0.5)[inside_hw]
        bodies = [*self.bodies, body]
        seen = np.bincount(owner_HW.ravel(), minlength=len(bodies) + 1)[1:]
        told = np.bincount(owner_HW[telling_HW], minlength=len(bodies) + 1)[1:]
        for other, pixels, telling in zip(bodies, seen, told, strict=True):
            if other.label == 0:
                continue
            if pixels < MIN_SEEN * other.area:
                return False
            if not TELLING_SHARE[0] * pixels <= telling <= TELLING_SHARE[1] * pixels:
                return False
        self.owner_HW, self.telling_HW, self.bodies = owner_HW, telling_HW, bodies
        return True

    def paint(self, body: Body, colour_hw3: Floats) -> None:
        """Blend the colours of a body over the picture."""
        under_hw3 = self.image_HW3[body.box]
        under_hw3 += body.alpha_hw[..., None] * (colour_hw3 - under_hw3)

    def mask(self) -> NDArray[np.uint8]:
        """Class index of what each pixel shows: (H, W)."""
        labels = np.array([0, *(body.label for body in self.bodies)], dtype=np.uint8)
        return labels[self.owner_HW]


def _noise(rng: Generator, height: int, width: int, cells: tuple[int, int], octaves: int) -> Floats:
    """Smooth noise of several octaves, (H, W), around 0 within -1 to 1; ``cells`` of the coarsest."""
    total_HW = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        rows, columns = (min(cells[0] << octave, height), min(cells[1] << octave, width))
        grid = rng.random((rows + 1, columns + 1), dtype=np.float32) - np.float32(0.5)
        total_HW += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / (1 << octave)
    return total_HW


def _colour(rng: Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Floats:
    """A random RGB colour in [0, 1], (3,), of any hue."""
    hue, strength, light = rng.uniform((0.0, saturation[0], value[0]), (1.0, saturation[1], value[1]))
    return np.array(colorsys.hsv_to_rgb(hue, strength, light), dtype=np.float32)


def _mix(low_3: Floats, high_3: Floats, weight_HW: Floats) -> Floats:
    """From one colour (weight 0) to the other (weight 1): (H, W, 3)."""
    return np.stack([low + weight_HW * (high - low) for low, high in zip(low_3, high_3, strict=True)], axis=-1)


def _meadow(rng: Generator, height: int, width: int) -> Floats:
    """Weight in about [0, 1] of grass: noise stretched along the rows."""
    return 0.5 + 0.8 * _noise(rng, height, width, (3, 12), 3)


def _planks(rng: Generator, height: int, width: int) -> Floats:
    """Weight of soft parallel bands at any angle."""
    y_H1, x_1W = np.ogrid[:height, :width]
    angle, wavelength, phase = rng.uniform((0.0, 10.0, 0.0), (np.pi, 30.0, 2 * np.pi))
    along_HW = (x_1W * np.cos(angle) + y_H1 * np.sin(angle)) * (2 * np.pi / wavelength) + phase
    bands_HW: Floats = (0.5 + 0.25 * np.sin(along_HW)).astype(np.float32)
    bands_HW += 0.6 * _noise(rng, height, width, (4, 4), 3)
    return bands_HW


def _bricks(rng: Generator, height: int, width: int) -> Floats:
    """Weight of a wall: joints at 0, each brick of its own shade."""
    rows, columns = rng.uniform((9.0, 18.0), (15.0, 30.0))
    y_H1, x_1W = np.ogrid[:height, :width]
    row_H1 = (y_H1 / rows).astype(np.int64)
    shifted_HW = x_1W / columns + 0.5 * (row_H1 % 2)
    column_HW = shifted_HW.astype(np.int64)
    shade = rng.uniform(0.35, 0.85, (row_H1.max() + 1, column_HW.max() + 1))
    joint_HW = (y_H1 - row_H1 * rows < 1.5) | ((shifted_HW - column_HW) * columns < 1.5)
    wall_HW: Floats = np.where(joint_HW, 0.0, shade[row_H1, column_HW]).astype(np.float32)
    wall_HW += 0.3 * _noise(rng, height, width, (8, 8), 2)
    return wall_HW


def _haze(rng: Generator, height: int, width: int) -> Floats:
    """Weight of clouds, sand or water: noise over a gradient."""
    gradient_H1 = np.linspace(0.1, 0.9, height, dtype=np.float32)[:, None]
    return gradient_H1 + 0.8 * _noise(rng, height, width, (3, 3), 4)


GROUNDS = (_meadow, _planks, _bricks, _haze)


def background(rng: Generator, height: int, width: int) -> Floats:
    """A ground in two muted colours: (H, W, 3) in about [0, 1]."""
    weight_HW = GROUNDS[rng.integers(len(GROUNDS))](rng, height, width)
    value = float(rng.uniform(0.35, 0.75))
    dark_3 = _colour(rng, (0.05, 0.25), (value * 0.5, value * 0.75))
    bright_3 = 0.4 * dark_3 + 0.6 * _colour(rng, (0.05, 0.25), (value, value * 1.3))
    light_HW = 1 + 0.25 * _noise(rng, height, width, (1, 1), 1)
    return _mix(dark_3, bright_3, weight_HW) * light_HW[..., None]


def _outline(rng: Generator, stone: bool) -> NDArray[np.float64]:
    """Points (u, v) around a body of half-length 1, (points, 2): smooth, but angular for a stone."""
    if stone:
        angle = np.linspace(0, 2 * np.pi, int(rng.integers(5, 9)), endpoint=False)
        angle += rng.uniform(-0.2, 0.2, angle.shape)
        radius = rng.uniform(0.8, 1.1, angle.shape)
    else:
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        sway, phase = rng.uniform(0.0, 0.06, 3), rng.uniform(0, 2 * np.pi, 3)
        radius = 1 + np.cos(np.outer(angle, (2, 3, 4)) + phase) @ sway
    return np.stack([radius * np.cos(angle), radius * np.sin(angle) * rng.uniform(0.55, 0.8)], axis=1)


def place(rng: Generator, label: int, height: int, width: int) -> Body:
    """Draw the scale, place, turn and outline of a body."""
    half_length = float(rng.uniform(*(STONE_SCALE if label == 0 else ANIMAL_SCALE))) * min(height, width)
    turn = float(rng.uniform(0, 2 * np.pi))
    centre = rng.uniform(0.15, 0.85, 2) * (width, height)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # of u and v, in (x, y)
    points = centre + half_length * _outline(rng, stone=label == 0) @ axes
    left, top = (int(low) for low in np.maximum(np.floor(points.min(axis=0)) - 1, 0))
    right, bottom = (int(high) for high in np.minimum(np.ceil(points.max(axis=0)) + 2, (width, height)))
    x_1w = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(centre[0])) / half_length
    y_h1 = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre[1])) / half_length
    u_hw, v_hw = (x_1w * np.float32(x) + y_h1 * np.float32(y) for x, y in axes)
    start = float(rng.uniform(*CAP_START))
    cap_hw: Floats = np.clip((u_hw - start + CAP_BEND * v_hw**2) * half_length + 0.5, 0, 1)
    return Body(
        label=label,
        box=(slice(top, bottom), slice(left, right)),
        alpha_hw=fill(points - (left, top), bottom - top, right - left),
        u_hw=u_hw,
        v_hw=v_hw,
        half_length=half_length,
        cap_hw=cap_hw if label > 0 else np.zeros_like(cap_hw),
        area=float(cv2.contourArea(points.astype(np.float32))),
    )


def fill(points: NDArray[np.float64], height: int, width: int) -> Floats:
    """Share of each pixel that a polygon of (x, y) points covers, (H, W); pixel centres are whole numbers."""
    fine_HW = np.zeros((height * FINE, width * FINE), dtype=np.uint8)
    sixteenths = np.round((points * FINE + (FINE - 1) / 2) * 16).astype(np.int32)
    cv2.fillPoly(fine_HW, [sixteenths], (255,), shift=4)
    alpha_HW = cv2.resize(fine_HW, (width, height), interpolation=cv2.INTER_AREA)
    return alpha_HW.astype(np.float32) / np.float32(255)


def body_colour(rng: Generator, label: int) -> Floats:
    """RGB of the skin of an animal, vivid, in the hues that its class shares with one other; grey for a stone: (3,)."""
    if label == 0:
        return _colour(rng, (0.0, 0.15), (0.25, 0.95))
    hue = 0.12 + 0.43 * ((label - 1) // 2) + rng.uniform(-0.09, 0.09)
    strength, light = rng.uniform((0.55, 0.7), (0.85, 1.0))
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, strength, light), dtype=np.float32)


def wear(rng: Generator, body: Body, skin_3: Floats) -> Floats:
    """Colours of a body before shading: plain skin, and the texture of the class on the cap. (h, w, 3)."""
    if body.label == 0:
        return np.broadcast_to(skin_3, (*body.alpha_hw.shape, 3))
    texture = TEXTURES[body.label - 1]
    period = max(float(rng.uniform(0.32, 0.45)), FINEST_PERIOD / body.half_length)
    turns = np.float32(2 * np.pi / period)
    weight_hw = texture.pattern((body.u_hw - CAP_MIDDLE) * turns, body.v_hw * turns)
    return _mix(skin_3, np.array(texture.colour, dtype=np.float32), body.cap_hw * (0.5 + 0.5 * weight_hw))


def shade(rng: Generator, body: Body) -> Floats:
    """Brightness of a rounded body, about 1, with fine noise on skin and coarse noise on stone: (h, w)."""
    height, width = body.alpha_hw.shape
    angle = float(rng.uniform(0, 2 * np.pi))
    slope_hw = body.u_hw * np.float32(np.cos(angle)) + body.v_hw * np.float32(np.sin(angle))
    light_hw: Floats = 1 + 0.2 * slope_hw - 0.15 * (body.u_hw**2 + body.v_hw**2)
    grain = 0.05 if body.label else 0.3
    light_hw += grain * _noise(rng, height, width, (4, 4), 2)
    return light_hw


def photograph(rng: Generator, image_HW3: Floats) -> NDArray[np.uint8]:
    """Blur, exposure and sensor noise of a small camera: uint8."""
    sharp_HW3 = cv2.GaussianBlur(image_HW3, (0, 0), float(rng.uniform(0.3, 0.7)))
    exposure, grain = rng.uniform((0.85, 0.005), (1.15, 0.02))
    speckle_HW3 = rng.standard_normal(image_HW3.shape, dtype=np.float32) * np.float32(grain)
    exposed_HW3: Floats = sharp_HW3 * np.float32(exposure) + speckle_HW3
    return np.clip(exposed_HW3 * 255, 0, 255).astype(np.uint8)
