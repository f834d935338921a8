"""Pictures of attention: a heat map of weights, and the way from scores to an output.

Figures are drawn in dark ink on opaque white, in the colours of :mod:`attncore.draw`, which the
colour-blind can tell apart: queries are blue, keys orange, values green and weights purple. So
they read the same in any notebook; the book's style sheet inverts their lightness in dark mode
and keeps their hues. Each picture describes itself in words: :func:`alt_text`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.integers import check_integer
from attncore.base.reading import read_labels, read_numbers
from attncore.draw.colors import COLORS, ROLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP = "attncore.weights"  # from white, where the weight is 0, to the purple of weights
LINE_COLORS = (*(COLORS[name].light for name in (*ROLES, "ink")), "#a080e0")  # and lavender
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))

_texts: WeakKeyDictionary[Figure, list[str]] = WeakKeyDictionary()


def style() -> None:
    """Set matplotlib's defaults to the book's: white, readable, lines told apart twice.

    Lines are, in this order, blue as queries are, orange as keys, green as values, purple as
    weights, black and lavender, and differ by dash as well. Images go from white to the purple of
    weights. Call it once, before drawing.

    Returns
    -------
    None

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.

    References
    ----------
    Okabe and Ito (2008), *Color universal design*: colours that everybody can tell apart.

    Examples
    --------
    >>> style()
    >>> import matplotlib as mpl
    >>> mpl.rcParams["axes.spines.top"]
    False
    """
    mpl = _matplotlib()
    from cycler import cycler

    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=LINE_COLORS) + cycler(linestyle=LINE_STYLES),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "figure.figsize": (6.0, 3.2),
            "font.size": 10,
            "image.cmap": MAP,
            "lines.linewidth": 1.8,
            "savefig.facecolor": "white",
        }
    )


def heatmap(
    weights: Array,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    digits: int | None = 2,
) -> Axes:
    r"""Draw attention weights: one row per query, one column per key.

    .. math:: A_{ij} \in [0, 1] \mapsto \text{white to purple}

    Parameters
    ----------
    weights
        `(Tq, Tk)`, between 0 and 1, NumPy or torch on any device.
    queries, keys
        Labels, Tq and Tk of them; numbers from 0 unless given. A character that the font
        lacks is drawn as "?", with a warning that names it.
    ax
        Where to draw; a new figure unless given.
    digits
        Decimals printed in each cell; None prints nothing, as is best above 12 x 12.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on.

    Raises
    ------
    ValueError
        If `weights` is not `(Tq, Tk)` between 0 and 1, a label is missing, or `digits` is not
        from 0 to 17.
    TypeError
        If `weights` are not real numbers, labels are no row, `ax` is not Axes, or `digits` is
        no integer.
    ModuleNotFoundError
        If matplotlib is not installed.

    References
    ----------
    The picture goes back to Bahdanau et al. (2015), figure 3.

    Examples
    --------
    >>> import numpy as np
    >>> ax = heatmap(np.array([[0.75, 0.25]]), ["king"], ["queen", "car"])
    >>> alt_text(ax)
    'Heat map of attention weights, 1 query by 2 keys. king attends most to queen (0.75).'
    """
    matplotlib = _matplotlib()
    weights = read_numbers("weights", weights)
    if weights.ndim != 2 or 0 in weights.shape:
        raise ValueError(f"weights must be (Tq, Tk), got {shape_of(weights)}: pick one head")
    if not bool(((weights >= 0) & (weights <= 1 + 1e-6)).all()):
        raise ValueError("weights must lie between 0 and 1: apply softmax to scores first")
    if digits is not None and not 0 <= check_integer("digits", digits) <= 17:
        raise ValueError(f"digits must lie in 0 to 17, got {digits}; None prints nothing")
    if ax is not None and not isinstance(ax, matplotlib.axes.Axes):
        raise TypeError(f"ax must be matplotlib's Axes, got {type(ax).__name__}")
    rows = read_labels("queries", queries, weights.shape[0])
    columns = read_labels("keys", keys, weights.shape[1])
    if ax is None:
        size = (1.6 + 0.55 * len(columns), 1.2 + 0.45 * len(rows))
        ax = matplotlib.pyplot.subplots(figsize=size)[1]
    image = ax.imshow(weights, cmap=MAP, vmin=0, vmax=1, aspect="auto")
    ax.set(xlabel="key", ylabel="query")
    for axis, given, labels in ((ax.xaxis, keys, columns), (ax.yaxis, queries, rows)):
        if given is not None or len(labels) <= 12:  # more numbers than that would overlap
            axis.set_ticks(range(len(labels)), _drawable(labels))
    ax.spines[:].set_visible(False)
    if digits is None:
        ax.figure.colorbar(image, ax=ax, label="weight")
    else:
        for (i, j), weight in np.ndenumerate(weights):
            ink = _ink_on(image.cmap(image.norm(weight)))
            ax.text(j, i, f"{weight:.{digits}f}", ha="center", va="center", color=ink)
    _describe(ax, _heatmap_words(weights, rows, columns))
    return ax


def strip(
    scores: Array,
    weights: Array,
    values: Array,
    keys: Sequence[str] | None = None,
) -> Figure:
    r"""Draw one query's way from scores through weights to its output, as three bar rows.

    .. math:: s_j \;\to\; \alpha_j = \operatorname{softmax}(s)_j \;\to\; \sum_j \alpha_j v_j

    Parameters
    ----------
    scores, weights
        `(Tk,)` each: one query's row.
    values
        `(Tk, E)`, or `(Tk,)` for plain numbers.
    keys
        Labels, Tk of them; numbers from 0 unless given. A character that the font lacks is
        drawn as "?", with a warning that names it.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels: scores, weights, output.

    Raises
    ------
    ValueError
        If the lengths differ.
    TypeError
        If `scores`, `weights` or `values` are not real numbers, or labels are no row.
    ModuleNotFoundError
        If matplotlib is not installed.

    References
    ----------
    Vaswani et al. (2017), equation 1, read from left to right.

    Examples
    --------
    >>> import numpy as np
    >>> fig = strip([2.0, 0.0], [0.88, 0.12], [1.0, 0.0], keys=["a", "b"])
    >>> alt_text(fig)
    'Bars in three panels. Scores: a 2, b 0. Weights: a 0.88, b 0.12. Output: 0.88.'
    """
    matplotlib = _matplotlib()
    scores, weights, values = (
        read_numbers(name, array)
        for name, array in (("scores", scores), ("weights", weights), ("values", values))
    )
    if (
        scores.ndim != 1
        or weights.shape != scores.shape
        or values.ndim not in (1, 2)
        or len(values) != len(scores)
    ):
        raise ValueError(
            f"scores and weights must be (Tk,) and values (Tk, E): scores {shape_of(scores)}, "
            f"weights {shape_of(weights)}, values {shape_of(values)}"
        )
    names = read_labels("keys", keys, len(scores))
    shown = _drawable(names)
    output = np.atleast_1d(weights @ values)
    fig, axes = matplotlib.pyplot.subplots(1, 3, figsize=(6.4, 2.3))
    features = [str(i) for i in range(len(output))]
    panels = (
        ("score", scores, shown, "key"),
        ("weight", weights, shown, "key"),
        ("output", output, features, "feature"),
    )
    for ax, role, (title, heights, labels, axis) in zip(
        axes, ("weights", "weights", "ink"), panels, strict=True
    ):
        ax.bar(range(len(heights)), heights, color=COLORS[role].light)
        ax.axhline(0, color="black", linewidth=0.8, linestyle="-")
        ax.set(xticks=range(len(heights)), xticklabels=labels, title=title, xlabel=axis)
    axes[1].set_ylim(0, 1)
    pairs = [f"{n} {s:.4g}" for n, s in zip(names, scores, strict=True)]
    shares = [f"{n} {w:.2f}" for n, w in zip(names, weights, strict=True)]
    _describe(
        axes[0],
        f"Bars in three panels. Scores: {', '.join(pairs)}. Weights: {', '.join(shares)}. "
        f"Output: {', '.join(f'{x:.4g}' for x in output)}.",
    )
    return fig


def alt_text(drawn: Axes | Figure) -> str:
    """Return a description in words of what this module drew, to use as alternative text.

    Parameters
    ----------
    drawn
        A figure or axes that :func:`heatmap` or :func:`strip` drew on.

    Returns
    -------
    str
        One or more sentences; one description per picture on the figure.

    Raises
    ------
    ValueError
        If nothing of this module's is on the figure.
    TypeError
        If `drawn` is neither a figure nor axes.

    References
    ----------
    W3C, *Web content accessibility guidelines 2.2*, success criterion 1.1.1.

    Examples
    --------
    >>> import numpy as np
    >>> print(alt_text(heatmap(np.eye(2))))
    Heat map of attention weights, 2 queries by 2 keys. 0 attends most to 0 (1.00), 1 to 1 (1.00).
    """
    figure: Any = getattr(drawn, "figure", None)
    if not isinstance(figure, _matplotlib().figure.FigureBase):
        raise TypeError(f"drawn must be a figure or axes, got {type(drawn).__name__}")
    if figure not in _texts:
        raise ValueError("nothing on this figure was drawn by attncore.plot")
    return " ".join(_texts[figure])


def _heatmap_words(weights: np.ndarray, rows: list[str], columns: list[str]) -> str:
    queries = "1 query" if len(rows) == 1 else f"{len(rows)} queries"
    keys = "1 key" if len(columns) == 1 else f"{len(columns)} keys"
    words = f"Heat map of attention weights, {queries} by {keys}."
    if len(rows) > 12:
        return words
    best = weights.argmax(axis=1)
    targets = [
        f"{columns[j]} ({weights[i, j]:.2f})" if weights[i, j] > 0 else "nothing"
        for i, j in enumerate(best)
    ]
    first = f"{rows[0]} attends most to {targets[0]}"
    return (
        f"{words} {', '.join([first, *map(' to '.join, zip(rows[1:], targets[1:], strict=True))])}."
    )


def _ink_on(color: Any) -> str:
    """Return black or white, whichever stands out more by WCAG 2's contrast ratio."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def _drawable(labels: list[str]) -> list[str]:
    """Return labels without what the font lacks: it would be drawn as a box."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, get_font

    families = rcParams["font.family"]
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    missing = [
        character
        for character in dict.fromkeys("".join(labels))
        if character != "\n" and not any(font.get_char_index(ord(character)) for font in fonts)
    ]
    if missing:
        warnings.warn(
            f"the font {' or '.join(families)} has no {' '.join(missing)}, which is drawn as ?: "
            "add a font that has it, as in plt.rcParams['font.family'] = "
            "['DejaVu Sans', 'Noto Sans CJK SC']",
            stacklevel=3,
        )
    return [label.translate(dict.fromkeys(map(ord, missing), "?")) for label in labels]


def _describe(ax: Axes, words: str) -> None:
    figure: Any = ax.figure
    _texts.setdefault(figure, []).append(words)


def _matplotlib() -> Any:
    try:
        import matplotlib.pyplot
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "attncore.plot needs matplotlib, which is not installed: pip install matplotlib",
            name="matplotlib",
        ) from None
    if MAP not in matplotlib.colormaps:
        ends = ["white", COLORS["weights"].light]
        weights = matplotlib.colors.LinearSegmentedColormap.from_list(MAP, ends)
        matplotlib.colormaps.register(weights)
    return matplotlib
