"""Made-up pictures in two styles that are no writing: many classes of each, drawn when asked for.

  textures   a class is three crossing waves; a drawing shifts, turns and stretches them
  blobs      a class is two to five soft spots, light or dark; a drawing moves and swells each of them

Every drawing has a contrast, a brightness, a slope of light and a grain of its own. The classes are divided: of ten in
a row the first six are to train on, two to validate on and two to test on.
"""

import numpy as np

CLASSES, DRAWINGS, SIDE = 300, 30, 8
SPLIT_V = tuple(("train",) * 6 + ("val",) * 2 + ("test",) * 2) * (CLASSES // 10)


def textures(classes: int = CLASSES, drawings: int = DRAWINGS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(x, y): x uint8 (classes * drawings, 8, 8), y the class of each."""
    rng, waves, N = np.random.default_rng(seed), 3, classes * drawings
    angle_C, length_C = rng.uniform(0, np.pi, (classes, waves)), rng.uniform(0.4, 1.8, (classes, waves))
    phase_C, height_C = rng.uniform(0, 2 * np.pi, (classes, waves)), rng.uniform(0.3, 1, (classes, waves))
    of = lambda a_C: np.repeat(a_C, drawings, 0)
    angle_N = of(angle_C) + rng.normal(0, 0.08, (N, 1))
    length_N = of(length_C) * np.exp(rng.normal(0, 0.08, (N, 1)))  # waves per picture
    wave_NWD = length_N[..., None] * np.stack([np.cos(angle_N), np.sin(angle_N)], -1)
    place_NPD = _places() - rng.normal(0, 0.07, (N, 1, 2))
    turn_NPW = 2 * np.pi * np.einsum("npd,nwd->npw", place_NPD, wave_NWD) + of(phase_C)[:, None]
    return _drawn(np.tanh(1.5 * (of(height_C)[:, None] * np.cos(turn_NPW)).sum(-1)), rng), of(np.arange(classes))


def blobs(classes: int = CLASSES, drawings: int = DRAWINGS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(x, y): x uint8 (classes * drawings, 8, 8), y the class of each."""
    rng, spots, N = np.random.default_rng(seed), 5, classes * drawings
    centre_C, width_C = rng.uniform(-0.45, 0.45, (classes, spots, 2)), rng.uniform(0.08, 0.25, (classes, spots))
    height_C = rng.choice([-1.0, 1.0], (classes, spots), p=[0.3, 0.7]) * rng.uniform(0.5, 1, (classes, spots))
    height_C *= np.arange(spots) < rng.integers(2, spots + 1, (classes, 1))
    of = lambda a_C: np.repeat(a_C, drawings, 0)
    centre_N = of(centre_C) + rng.normal(0, 0.07, (N, spots, 2))
    width_N, height_N = (of(a_C) * np.exp(rng.normal(0, 0.25, (N, spots))) for a_C in (width_C, height_C))
    away_NPS = ((_places()[:, None] - centre_N[:, None]) ** 2).sum(-1)
    return _drawn((height_N[:, None] * np.exp(-away_NPS / (2 * width_N[:, None] ** 2))).sum(-1), rng), of(
        np.arange(classes))


def _places() -> np.ndarray:
    """(64, 2): the pixels' places, from -.5 to .5."""
    line = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def _drawn(picture_NP: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures of heights around 0 as bytes, each under its own light."""
    N = len(picture_NP)
    contrast_N, brightness_N = np.exp(rng.normal(0, 0.2, (N, 1))), rng.normal(0, 0.2, (N, 1))
    slope_NP = rng.normal(0, 0.3, (N, 2)) @ _places().T
    grain_NP = rng.normal(0, 0.12, picture_NP.shape)
    light_NP = 0.5 + 0.25 * (contrast_N * picture_NP + brightness_N + slope_NP + grain_NP)
    return np.rint(255 * np.clip(light_NP, 0, 1)).astype(np.uint8).reshape(N, SIDE, SIDE)
