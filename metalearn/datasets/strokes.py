"""Made-up characters that look hand-drawn: many classes to train on without any download.

A character is one to three curved strokes (cubic Bezier curves through random control points, each beginning where the
last ended or somewhere else); a drawing of it moves the control points a little, slants, turns and stretches the whole
and takes a pen of its own. Like scikit-learn's digits, drawings fill a 32x32 bitmap, of which each 4x4 block
becomes one pixel.
"""

import numpy as np

CLASSES, DRAWINGS, SIDE, CURVE_POINTS = 600, 20, 32, 30


def draw(classes: int = CLASSES, drawings: int = DRAWINGS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(x, y): x uint8 (classes * drawings, 8, 8), 0 paper to 16 ink; y the character of each."""
    rng = np.random.default_rng(seed)
    num, N = 3, classes * drawings
    control_C = rng.uniform(0, 1, (classes, num, 4, 2))
    joined_C = rng.uniform(size=(classes, num)) < 0.6
    for s in range(1, num):
        start = np.where(joined_C[:, s, None], control_C[:, s - 1, 3], control_C[:, s, 0])
        control_C[:, s, 0] = start
    strokes_C = rng.integers(1, num + 1, classes)
    used_N = np.repeat(np.arange(num) < strokes_C[:, None], drawings, 0)

    control_N = np.repeat(control_C, drawings, 0) + rng.normal(0, 0.06, (N, num, 4, 2))
    t = np.linspace(0, 1, CURVE_POINTS)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    curve_N = np.einsum("pk,nskd->nspd", weights, control_N).reshape(N, -1, 2)
    used_N = np.repeat(used_N, CURVE_POINTS, 1)

    turn, slant = rng.normal(0, 0.15, N), rng.normal(0, 0.2, N)
    rows = np.stack([np.cos(turn), np.sin(turn)], 1), np.stack([slant - np.sin(turn), np.cos(turn)], 1)
    matrix_N = np.stack(rows, 1)
    curve_N = np.einsum("npd,nde->npe", curve_N, matrix_N) * np.exp(rng.normal(0, 0.12, (N, 1, 2)))
    # fill the bitmap in height, no wider than high; points that a character does not use move onto used ones
    curve_N = np.where(used_N[..., None], curve_N, curve_N[:, :1])
    low, high = curve_N.min(1, keepdims=True), curve_N.max(1, keepdims=True)
    scale = (SIDE - 4) / np.maximum(high - low, 1e-6)
    scale[..., 1] = np.minimum(scale[..., 1], scale[..., 0])
    curve_N = (curve_N - (low + high) / 2) * scale + (SIDE - 1) / 2

    bitmap_N = np.zeros((N, SIDE, SIDE), bool)
    row_N, pen_N = np.arange(N)[:, None], rng.uniform(1.2, 2.2, N)
    for angle in np.arange(6) * np.pi / 3:  # the pen is round
        spot_N = curve_N + pen_N[:, None, None] * np.array([np.sin(angle), np.cos(angle)])
        at = np.clip(np.rint(spot_N).astype(int), 0, SIDE - 1)
        bitmap_N[row_N, at[..., 0], at[..., 1]] = True
    blocks = bitmap_N.reshape(N, SIDE // 4, 4, SIDE // 4, 4).sum((2, 4))
    return blocks.astype(np.uint8), np.repeat(np.arange(classes), drawings)
