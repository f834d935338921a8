"""Kernel regression: keys on an axis, values as heights, and one query's weights as bars."""

from __future__ import annotations

import math

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.reading import read_numbers
from attncore.base.settings import check_number, check_positive
from attncore.draw.picture import TALL, WIDE, Picture, check_finite
from attncore.draw.scene import Box, Scene
from attncore.draw.text import listed, number, numbers_of, width_of
from attncore.kernels import KERNELS
from attncore.regression import kernel_weights, nadaraya_watson

MOST = 8  # keys
BAND, BARS, LINE = 110, 84, 22  # heights of the two panels, and of a line of the table
BEFORE, AFTER = 92, 62  # widths: of the lines' names, and of the sums


def regression(
    query: float, keys: Array, values: Array, *, bandwidth: float, kernel: str = "gaussian"
) -> Picture:
    r"""Draw how one query is answered by an average of the values of the keys near it.

    .. math:: f(q) = \sum_j \alpha_j v_j, \qquad
        \alpha_j = \frac{K(|q - k_j| / h)}{\sum_l K(|q - k_l| / h)}

    The curve over the bars is the kernel, divided by the same sum: it meets the top of each bar.

    Parameters
    ----------
    query
        q, a number.
    keys, values
        `(n,)` each, NumPy or torch; at most 8.
    bandwidth
        h > 0, in the units of the keys.
    kernel
        A name in ``kernels.KERNELS``.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If there are no keys or too many, keys and values do not fit, a number is not finite, the
        bandwidth is not positive or the kernel is unknown.
    TypeError
        If something is not a real number.

    References
    ----------
    Nadaraya (1964); Watson (1964), drawn with numbers.

    Examples
    --------
    >>> drawn = regression(57, [51, 56, 58], [40, 43, 48], bandwidth=1)
    >>> drawn.words.split(". ")[-1]
    'The forecast is 45.50.'
    """
    q, h = check_number("query", query), check_positive("bandwidth", bandwidth)
    check_finite("query", np.array(q))
    keys, values = read_numbers("keys", keys), read_numbers("values", values)
    for name, array in (("keys", keys), ("values", values)):
        if array.ndim != 1 or not len(array):
            raise ValueError(f"{name} must be a row (n,) of numbers, got {shape_of(array)}")
        check_finite(name, array)
    if len(keys) != len(values):
        found = f"keys {len(keys)}, values {len(values)}"
        raise ValueError(f"there must be one value for each key: {found}")
    if len(keys) > MOST:
        raise ValueError(
            f"keys must be at most {MOST} to be read as a picture, got {len(keys)}: draw a part of "
            f"them, as keys[:{MOST}] and values[:{MOST}]"
        )
    weights = kernel_weights([q], keys, kernel=kernel, bandwidth=h)[0]
    forecast = float(nadaraya_watson([q], keys, values, kernel=kernel, bandwidth=h)[0])
    planes = [_Plane(q, keys, values, weights, width) for width in (WIDE, TALL)]
    wide, tall = (plane.draw(forecast, h, kernel) for plane in planes)
    shares = [
        f"key {k} has the value {v} and the weight {w:.2f}"
        for k, v, w in zip(numbers_of(keys), numbers_of(values), weights, strict=True)
    ]
    answer = "There is no forecast" if math.isnan(forecast) else f"The forecast is {forecast:.2f}"
    words = (
        f"The query {_text(q)} is compared with {len(keys)} key{'s' * (len(keys) > 1)} by the "
        f"{kernel.replace('_', ' ')} kernel of bandwidth {_text(h)}: {listed(shares)}. {answer}."
    )
    return Picture("Kernel regression", words, wide, tall)


def _text(x: float) -> str:
    text = number(x, 2)
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Plane:
    """The two panels over one axis, and the table under it."""

    def __init__(
        self,
        q: float,
        keys: np.ndarray,
        values: np.ndarray,
        weights: np.ndarray,
        width: float,
    ) -> None:
        self.scene, self.q, self.keys = Scene(), q, keys
        self.heights, self.shares = values, weights
        self.lines = (
            ("key", "key", numbers_of(keys)),
            ("value", "value", numbers_of(values)),
            ("weight", "weights", [number(w, 2) for w in weights]),
            ("weight × value", "ink", [number(x, 2) for x in weights * values]),
        )
        self.column = 8 + max(width_of(text) for *_, texts in self.lines for text in texts)
        width = max(width, BEFORE + self.column * (len(keys) + 0.5) + AFTER)
        room = (float(np.ptp(keys)) or abs(q - keys[0]) or 1.0) / 4
        self.start = min(float(keys.min()) - room, q - room / 4)
        self.stop = max(float(keys.max()) + room, q + room / 4)
        self.left, self.right = BEFORE, width - AFTER - self.column / 2
        self.axis = BAND + 24 + BARS

    def draw(self, forecast: float, h: float, kernel: str) -> Scene:
        """Draw all of it."""
        self.draw_values(forecast)
        self.draw_weights(h, kernel)
        self.draw_table(forecast)
        return self.scene

    def across(self, x: float) -> float:
        """Return where a key stands."""
        return self.left + (x - self.start) / (self.stop - self.start) * (self.right - self.left)

    def up(self, v: float) -> float:
        """Return the height of a value."""
        low, high = float(self.heights.min()), float(self.heights.max())
        return BAND / 2 if low == high else 14 + (high - v) / (high - low) * (BAND - 28)

    def draw_values(self, forecast: float) -> None:
        """Draw the keys' values, and the query's line up to the forecast."""
        s, q = self.scene, self.across(self.q)
        low, high = float(self.heights.min()), float(self.heights.max())
        top = self.up(high)
        band = Box(self.left, top, self.right - self.left, self.up(low) - top)
        s.rect(band, "value", opacity=0.08)
        s.text((self.left - 8, 0), "values", "small end value")
        for v in sorted({low, high}):
            s.text((self.right + 8, self.up(v)), _text(v), "small start value")
        for j, (k, v) in enumerate(zip(self.keys, self.heights, strict=True)):
            x = self.across(k)
            with s.cell("key", j):
                s.line((x, self.up(v) + 6), (x, self.axis), role="value", dash=True)
                s.circle((x, self.up(v)), 5, "value", filled=True)
        s.text((q, -16), f"query {_text(self.q)}", "small bold query")
        s.line((q, -6), (q, self.axis), role="query")
        if math.isnan(forecast):
            s.text((q, self.axis - BARS / 2), "no key within reach", "small halo")
            return
        y = self.up(forecast)
        s.line((self.left, y), (q, y), role="ink", dash=True)
        s.circle((q, y), 6, "ink", filled=True)
        s.text((self.left - 8, y), number(forecast, 2), "end bold")

    def draw_weights(self, h: float, kernel: str) -> None:
        """Draw the weights, and the kernel whose height over each key they are."""
        s, axis = self.scene, self.axis
        s.text((self.left - 8, axis - BARS + 6), "weight 1", "small end weights")
        s.text((self.left - 8, axis), "0", "small end weights")
        s.line((self.left, axis - BARS), (self.right, axis - BARS), role="weights", dash=True)
        for j, (k, w) in enumerate(zip(self.keys, self.shares, strict=True)):
            high = max(BARS * float(w), 1)
            with s.cell("key", j):
                bar = Box(self.across(k) - 8, axis - high, 16, high)
                s.rect(bar, "weights", opacity=0.55, corner=1)
        xs = np.linspace(self.start, self.stop, 121)
        with np.errstate(all="ignore"):  # the sum is 0 far from all keys, and infinite at some
            total = KERNELS[kernel](abs(self.keys - self.q) / h).sum()
            curve = KERNELS[kernel](abs(xs - self.q) / h) / total
        for run in _runs(curve <= 1):
            points = [(self.across(xs[i]), axis - BARS * float(curve[i])) for i in run]
            s.curve(*points, role="weights")
        s.line((self.left, axis), (self.right, axis), role="ink")

    def draw_table(self, forecast: float) -> None:
        """Write key, value and weight of each, their products and the sum."""
        s = self.scene
        rows = [self.axis + 46 + LINE * line for line in range(len(self.lines))]
        for y, (name, role, _) in zip(rows, self.lines, strict=True):
            s.text((self.left - 8, y), name, f"small end {role}")
        order = [int(j) for j in np.argsort(self.keys, kind="stable")]
        ticks = [self.across(self.keys[j]) for j in order]
        places = _spread(ticks, self.column, self.left + self.column / 2, self.right)
        for j, tick, x in zip(order, ticks, places, strict=True):
            with s.cell("key", j):
                down = ((tick, self.axis + 2), (tick, self.axis + 8), (x, rows[0] - 14))
                s.line(*down, role="key")
                for y, (_, role, texts) in zip(rows, self.lines, strict=True):
                    s.text((x, y), texts[j], role)
        end = self.right + (self.column + AFTER) / 2
        s.text((end, rows[1]), "sum", "small soft")
        s.text((end, rows[2]), number(float(self.shares.sum()), 2), "weights")
        s.text((end, rows[3]), "none" if math.isnan(forecast) else number(forecast, 2), "bold")


def _spread(places: list[float], apart: float, left: float, right: float) -> list[float]:
    """Return rising places moved apart, each about where it was and none beyond the ends."""
    moved: list[float] = []
    for x in places:
        moved.append(max(x, moved[-1] + apart if moved else left))
    limit = right
    for n in reversed(range(len(moved))):
        moved[n] = min(moved[n], limit)
        limit = moved[n] - apart
    return moved


def _runs(holds: np.ndarray) -> list[list[int]]:
    """Return the runs of two or more places where a condition holds."""
    runs: list[list[int]] = [[]]
    for i, fine in enumerate(holds):
        if fine:
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]
