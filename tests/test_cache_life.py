"""Whatever a cache goes through, it holds what a plain list of rows would."""

import copy
import pickle

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attncore as ac

G, D, E, C, W = 2, 2, 1, 7, 3
COPIES = [
    lambda cache: cache.copy(),
    copy.copy,
    copy.deepcopy,
    lambda cache: pickle.loads(pickle.dumps(cache)),  # noqa: S301
]


class Rows:
    """A cache beside the tokens `(B, G, T, D)` and `(B, G, T, E)` it was given, in NumPy."""

    def __init__(self, kind, batch):
        self.torch, self.static = kind != "numpy", kind == "static"
        self.window = None
        self.k, self.v = np.zeros((batch, G, 0, D)), np.zeros((batch, G, 0, E))
        self.cache = None

    @classmethod
    def new(cls, kind, batch, window):
        self = cls(kind, batch)
        self.window = window
        like = torch.zeros(1, dtype=torch.float64) if self.torch else np.zeros(1)
        sizes = (batch, G, C, D)
        if self.static:
            self.cache = ac.StaticKVCache(*sizes, value_dim=E, like=like)
        else:
            self.cache = ac.KVCache(*sizes, value_dim=E, window=window, like=like)
            self.cache._k[...] = self.cache._v[...] = np.nan  # what nobody may read
        return self

    def twin(self, how):
        other = copy.copy(self)
        other.cache = how(self.cache)
        return other

    def __len__(self):
        return self.k.shape[2]

    def given(self, array):
        return torch.from_numpy(array) if self.torch else array

    def append(self, n, seed):
        if self.static and len(self) + n > C:
            return  # it would be full, which it tells by NaN
        q, k, v = (
            np.random.default_rng(seed).normal(size=(len(self.k), G, n, width))
            for width in (D, D, E)
        )
        if self.window is None and len(self) + n > C:
            with pytest.raises(ValueError, match="cache full"):
                self.cache.append(self.given(k), self.given(v))
            return
        seen = self.cache.append(self.given(k), self.given(v))
        self.k, self.v = np.concatenate([self.k, k], 2), np.concatenate([self.v, v], 2)
        options = {"causal": True, "window": self.window}
        expected = oracle.attention(q, self.k, self.v, **options)
        if self.static:
            options = {"mask": self.cache.mask(n, window=self.window)}
        found = np.asarray(ac.attention(self.given(q), *seen, **options))
        np.testing.assert_allclose(found, expected, 0, 1e-12)

    def draft(self, n):
        """Append NaN and take it back."""
        if len(self) + n > (W if self.window and not self.static else C):
            return
        new = [self.given(np.full((len(self.k), G, n, width), np.nan)) for width in (D, E)]
        self.cache.append(*new)
        self.cache.crop(self.cache.length - n)

    def crop(self, back, convert):
        length = len(self) - back
        if length < 0 or (back and not self.static and self.window and len(self) > W):
            with pytest.raises(ValueError, match="cannot crop to"):
                self.cache.crop(convert(length))
            return
        self.cache.crop(convert(length))
        self.k, self.v = self.k[:, :, :length], self.v[:, :, :length]

    def select(self, picks, convert):
        rows = [pick % len(self.k) for pick in picks]
        self.cache.select(convert(rows))
        self.k, self.v = self.k[rows], self.v[rows]

    def reset(self):
        self.cache.reset()
        self.k, self.v = self.k[:, :, :0], self.v[:, :, :0]

    def refuse(self):
        batch = len(self.k)
        for rows in ([batch], [-1], []):
            with pytest.raises(ValueError, match="rows must"):
                self.cache.select(rows)
        with pytest.raises(ValueError, match="cannot crop to"):
            self.cache.crop(len(self) + 1)
        with pytest.raises(ValueError, match=r"v must be \(B, G, n, E\)"):
            self.cache.append(
                self.given(np.ones((batch, G, 1, D))), self.given(np.ones((batch, G, 1, E + 1)))
            )

    def check(self):
        held = min(len(self), W) if self.window and not self.static else len(self)
        assert (self.cache.length, self.cache.held) == (len(self), held)
        order = [i % self.cache.slots for i in range(len(self) - held, len(self))]
        for memory, rows in ((self.cache._k, self.k), (self.cache._v, self.v)):
            assert np.array_equal(np.asarray(memory)[:, :, order], rows[:, :, len(self) - held :])


NUMBERS = st.sampled_from([int, np.int32, np.array, torch.tensor])
ROWS = st.sampled_from([list, tuple, np.array, torch.tensor, lambda rows: np.array(rows, ">i2")])
STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 4), st.integers(0, 99)),
    st.tuples(st.just("append"), st.just(1), st.integers(0, 99)),
    st.tuples(st.just("draft"), st.integers(1, 3)),
    st.tuples(st.just("crop"), st.integers(0, 5), NUMBERS),
    st.tuples(st.just("select"), st.lists(st.integers(0, 5), min_size=1, max_size=4), ROWS),
    st.tuples(st.just("copy"), st.sampled_from(COPIES)),
    st.tuples(st.sampled_from(["reset", "refuse"])),
)


@pytest.mark.parametrize("window", [None, W])
@pytest.mark.parametrize("kind", ["numpy", "torch", "static"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    life=st.lists(st.tuples(st.integers(0, 9), STEPS), min_size=1, max_size=20),
)
def test_a_cache_and_its_copies_hold_what_lists_would(kind, window, batch, life):
    every = [Rows.new(kind, batch, window)]
    for which, (step, *arguments) in life:
        one = every[which % len(every)]
        if step == "copy":
            every.append(one.twin(*arguments))
        else:
            getattr(one, step)(*arguments)
        for rows in every:  # a copy is never changed by what its original goes through
            rows.check()
