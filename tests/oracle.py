"""The definitions as loops in float64, to be checked by eye. Imports nothing of attncore."""

import cmath
import math
from fractions import Fraction

import numpy as np


def softmax(scores, allowed=None, sink=None):
    """Softmax of a list; weight 0 where not allowed, all 0 where nothing is.

    With a sink it is that of one score more, whose weight is left out.
    """
    allowed = [True] * len(scores) if allowed is None else allowed
    if sink is not None:
        return softmax([*scores, sink], [*allowed, True])[:-1]
    kept = [s for s, ok in zip(scores, allowed, strict=True) if ok and s != -math.inf]
    if not kept:
        return [0.0] * len(scores)
    total = sum(math.exp(s - max(kept)) for s in kept)
    return [
        math.exp(s - max(kept)) / total if ok and s != -math.inf else 0.0
        for s, ok in zip(scores, allowed, strict=True)
    ]


def sees(i, j, Tq, Tk, causal, window):
    """Tell whether query i may attend to key j: lower-right, W keys with its own."""
    position = Tk - Tq + i
    if window is not None:
        return position - window < j <= position
    return j <= position if causal else True


def log_sum_exp(scores, allowed, sink=None):
    """Logarithm of the sum of the exponentials of what is allowed, and of the sink."""
    kept = [s for s, ok in zip(scores, allowed, strict=True) if ok]
    kept = [s for s in (kept if sink is None else [*kept, sink]) if s != -math.inf]
    if not kept:
        return -math.inf
    return max(kept) + math.log(sum(math.exp(s - max(kept)) for s in kept))


def weights(q, k, **options):
    """Attention weights (..., H, Tq, Tk), one number at a time."""
    return weights_and_lse(q, k, **options)[0]


def weights_and_lse(
    q, k, mask=None, causal=False, window=None, bias=None, scale=None,
    softcap=None, sinks=None, kept=None, dropout=0.0,
):  # fmt: skip
    """The weights, of which only the `kept` are not dropped, and the log-sum-exp (..., H, Tq)."""
    *lead, heads, Tq, D = q.shape if q.ndim > 2 else (1, *q.shape)
    groups = k.shape[-3] if k.ndim > 2 else 1
    Tk = k.shape[-2]
    shape = (*lead, heads, Tq, Tk)
    q, k = q.reshape(*lead, heads, Tq, D), k.reshape(*lead, groups, Tk, D)
    mask = np.broadcast_to(True if mask is None else mask, shape)
    bias = np.broadcast_to(0.0 if bias is None else bias, shape)
    scale = 1 / math.sqrt(D) if scale is None else scale
    kept = np.broadcast_to(True if kept is None else kept, shape)
    out, lse = np.zeros(shape), np.zeros(shape[:-1])
    for b in np.ndindex(*lead):
        for h in range(heads):
            g = h // (heads // groups)
            sink = None if sinks is None else float(sinks[h])
            for i in range(Tq):
                scores, allowed = [], []
                for j in range(Tk):
                    product = sum(
                        float(q[(*b, h, i, d)]) * float(k[(*b, g, j, d)]) for d in range(D)
                    )
                    score = product * scale
                    if softcap is not None:
                        score = softcap * math.tanh(score / softcap)
                    scores.append(score + float(bias[(*b, h, i, j)]))
                    ok = sees(i, j, Tq, Tk, causal, window)
                    allowed.append(ok and bool(mask[(*b, h, i, j)]))
                row = softmax(scores, allowed, sink)
                lse[(*b, h, i)] = log_sum_exp(scores, allowed, sink)
                for j in range(Tk):
                    out[(*b, h, i, j)] = row[j] / (1 - dropout) if kept[(*b, h, i, j)] else 0.0
    return out, lse


def attention(q, k, v, **options):
    """Attention (..., H, Tq, E): each output is a sum over keys."""
    return attention_and_lse(q, k, v, **options)[0]


def attention_and_lse(q, k, v, **options):
    """The same, and the log-sum-exp (..., H, Tq)."""
    A, lse = weights_and_lse(q, k, **options)
    *lead, heads, Tq, Tk = A.shape
    groups = v.shape[-3] if v.ndim > 2 else 1
    E = v.shape[-1]
    values = v.reshape(*lead, groups, Tk, E)
    out = np.zeros((*lead, heads, Tq, E))
    for b in np.ndindex(*lead):
        for h in range(heads):
            for i in range(Tq):
                for j in range(Tk):
                    weight = A[(*b, h, i, j)]
                    out[(*b, h, i)] += weight * values[(*b, h // (heads // groups), j)]
    return out.reshape(*q.shape[:-1], E), lse.reshape(q.shape[:-1])


KERNELS = {
    "gaussian": lambda u: math.exp(-u * u / 2),
    "boxcar": lambda u: 1.0 if u <= 1 else 0.0,
    "epanechnikov": lambda u: max(0.0, 1 - u * u),
    "triangular": lambda u: max(0.0, 1 - u),
    "inverse_distance": lambda u: 1 / u,
}


def regression(x, x_train, y_train, kernel, bandwidth):
    """Kernel regression at one number; NaN where no point is in reach."""
    distance = [abs(x - other) / bandwidth for other in x_train]
    if kernel == "inverse_distance" and 0 in distance:
        exact = [y for u, y in zip(distance, y_train, strict=True) if u == 0]
        return sum(exact) / len(exact)
    weight = [KERNELS[kernel](u) for u in distance]
    if sum(weight) == 0:
        return math.nan
    return sum(w * y for w, y in zip(weight, y_train, strict=True)) / sum(weight)


def speed(i, D, base):
    """Turning speed of pair i, in radians per token."""
    return base ** (-2 * i / D)


def sinusoidal(positions, D, base=10000.0):
    """Positions as rows of sines and cosines, (T, D)."""
    out = np.zeros((len(positions), D))
    for row, t in enumerate(positions):
        for i in range(D // 2):
            out[row, 2 * i] = math.sin(t * speed(i, D, base))
            out[row, 2 * i + 1] = math.cos(t * speed(i, D, base))
    return out


def rope(row, t, base=10000.0, pairing="half"):
    """Turn one vector: each pair is a complex number, times e to the i times angle."""
    D = len(row)
    out = np.zeros(D)
    for i in range(D // 2):
        a, b = (i, i + D // 2) if pairing == "half" else (2 * i, 2 * i + 1)
        z = complex(row[a], row[b]) * cmath.exp(1j * t * speed(i, D, base))
        out[a], out[b] = z.real, z.imag
    return out


def alibi_slopes(H):
    """Slopes of H heads, by the recursion of the authors' program."""
    if math.log2(H).is_integer():
        start = 2 ** (-8 / H)
        return [start ** (h + 1) for h in range(H)]
    below = 2 ** math.floor(math.log2(H))
    return alibi_slopes(below) + alibi_slopes(2 * below)[0::2][: H - below]


def t5_bucket(d, buckets, max_distance, causal):
    """Bucket of one distance; exact, for no logarithm is taken."""
    n = buckets if causal else buckets // 2
    future = n if d < 0 and not causal else 0
    d = max(d, 0) if causal else abs(d)
    m = n // 2
    if d < m:
        return future + d
    step = 0  # the largest with (d / m) ** (n - m) >= (max_distance / m) ** step
    while step < n - m - 1 and Fraction(d, m) ** (n - m) >= Fraction(max_distance, m) ** (step + 1):
        step += 1
    return future + m + step


def xl_scores(q, k, rows, u, v):
    """Transformer-XL's scores of one head; `rows` maps a distance to its row."""
    (Tq, D), Tk = q.shape, len(k)
    out = np.zeros((Tq, Tk))
    for i in range(Tq):
        for j in range(Tk):
            r = rows[Tk - Tq + i - j]
            for c in range(D):
                out[i, j] += (q[i, c] + u[c]) * k[j, c] + (q[i, c] + v[c]) * r[c]
    return out / math.sqrt(D)
