"""What all caches share: the memory for keys and values, and what may be put into it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

import numpy as np

from attncore.base.arrays import (
    Array,
    check_dense,
    check_device,
    check_readable,
    check_real,
    dtype_name,
    is_bool,
    is_tensor,
    namespace,
    shape_of,
)
from attncore.base.integers import check_integer
from attncore.base.tracing import is_traced


class Memory:
    """Memory for keys and for values, of one library, dtype and device."""

    _k: Array
    _v: Array
    _xp: Any

    @property
    def dtype(self) -> Any:
        """What keys and values must be of, and are stored in."""
        return self._k.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of memory the cache holds, used or not."""
        return int(self._k.nbytes + self._v.nbytes)

    def copy(self) -> Self:
        """Return a cache of its own that holds the same, such as a prefix that is to be reused."""
        return deepcopy(self)

    __copy__ = copy

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_xp"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._xp = namespace(cache=self._k)  # a module can be neither copied nor pickled

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self._told().items())
        return f"{type(self).__name__}({told}, dtype={dtype_name(self._k)})"

    def _told(self) -> dict[str, Any]:
        """Return what is printed of the cache: its sizes, and how full it is."""
        raise NotImplementedError

    def _mark(self) -> Any:
        """Return what :meth:`_undo_to` needs to take back what will be appended."""

    def _undo_to(self, mark: Any) -> None:
        """Take back what was appended since; a cache that is never appended to has nothing."""

    def _allocate(
        self, lead: tuple[int, ...], head_dim: int, value_dim: int, like: Array | None
    ) -> None:
        """Make room for keys `(*lead, head_dim)` and values `(*lead, value_dim)`."""
        if not (like is None or is_tensor(like) or isinstance(like, np.ndarray)):
            raise TypeError(f"like must be an array, got {type(like).__name__}")
        if like is not None:
            check_real("like", like)
        self._xp = np if like is None else namespace(like=like)
        options = {"dtype": np.float64 if like is None else like.dtype}
        if is_tensor(like):
            options["device"] = like.device  # type: ignore[union-attr]
        self._k = self._xp.empty((*lead, head_dim), **options)
        self._v = self._xp.empty((*lead, value_dim), **options)

    def _reorder(self, chosen: list[int], used: int) -> None:
        """Keep these of the sequences, of which the first `used` slots may hold something."""
        if len(chosen) != len(self._k):
            self._k, self._v = self._k[chosen], self._v[chosen]
            return
        kept = [memory[chosen, :, :used] for memory in (self._k, self._v)]
        self._k[:, :, :used], self._v[:, :, :used] = kept

    def _refuse_recording(self) -> None:
        """Raise if torch is recording: the lengths of now would be those of every later run."""
        if is_traced():
            raise ValueError(
                f"a {type(self).__name__} counts its tokens outside of torch, which therefore "
                "cannot record or compile a step with it: take a StaticKVCache, or call it "
                "outside of what is compiled"
            )

    def _here(self, *arrays: Array) -> tuple[Array, ...]:
        """Return small NumPy arrays in the library and on the device of the memory."""
        if self._xp is np:
            return arrays
        return tuple(self._xp.from_numpy(array).to(self._k.device) for array in arrays)

    def _no_values(self, k: Array) -> Array:
        """Return values of no width, for keys that are given alone; raise if values are kept."""
        E = self._v.shape[-1]
        if E:
            raise TypeError(
                f"v is missing: this cache keeps values of width {E}; "
                "for keys alone make it with value_dim=0"
            )
        if not (is_tensor(k) or isinstance(k, np.ndarray)):
            raise TypeError(f"k must be an array, got {type(k).__name__}")
        check_dense("k", k)
        return k[..., :0] if k.ndim else k

    def _check(self, k: Array, v: Array, B: int, G: int) -> None:
        """Raise if these are no keys and values of B sequences and G heads for this memory."""
        namespace(cache=self._k, k=k, v=v)
        check_device(cache=self._k, k=k, v=v)
        D, E = self._k.shape[-1], self._v.shape[-1]
        for name, new, width in (("k", k, D), ("v", v, E)):
            if not (is_tensor(new) or isinstance(new, np.ndarray)):
                raise TypeError(f"{name} must be an array, got {type(new).__name__}")
            check_dense(name, new)
            if dtype_name(new) != dtype_name(self._k):
                raise TypeError(
                    f"{name} is {dtype_name(new)}, the cache {dtype_name(self._k)}: "
                    "make the cache with like=k"
                )
            if new.ndim != 4 or (*new.shape[:2], new.shape[3]) != (B, G, width):
                raise ValueError(
                    f"{name} must be (B, G, n, {'DE'[name == 'v']}) = ({B}, {G}, n, {width}), "
                    f"got {shape_of(new)}"
                )
            check_no_gradient(name, new)
        if k.shape[2] != v.shape[2]:
            raise ValueError(f"k and v must have one row per key: k {shape_of(k)}, v {shape_of(v)}")


def check_no_gradient(name: str, array: Array) -> None:
    """Raise if a tensor wants a gradient, which what is written into memory cannot pass on."""
    if is_tensor(array) and array.requires_grad and namespace(array=array).is_grad_enabled():
        raise ValueError(
            f"{name} needs a gradient, which a cache cannot pass on: "
            "decode under torch.no_grad() or torch.inference_mode()"
        )


def scalar(name: str, value: Array) -> int:
    """Return an integer, or that of an array or tensor without an axis, as an int."""
    if isinstance(value, np.ndarray) or is_tensor(value):
        namespace(**{name: value})  # refuses a masked array
        check_dense(name, value)
        check_readable(name, value)
        value = value.item() if value.ndim == 0 else value
    return check_integer(name, value)


def integers(name: str, values: Array, axes: str, one: str, hint: str = "") -> list[int]:
    """Return a list, array or tensor `axes` of integers as ints; a message calls each `one`."""
    if isinstance(values, np.ndarray) or is_tensor(values):
        namespace(**{name: values})  # refuses a masked array
        check_dense(name, values)
        if is_bool(values):
            raise TypeError(f"{name} must be integers, got bool{hint}")
        if values.ndim != 1:
            raise ValueError(f"{name} must be {axes}, got {shape_of(values)}")
        check_readable(name, values)
        values = values.tolist()
    if not isinstance(values, (list, tuple, range)):
        kind = type(values).__name__
        raise TypeError(f"{name} must be a list or an array of integers, got {kind}")
    return [check_integer(one, value) for value in values]


def counts_of(counts: Array | None, n: int, batch: int) -> Array:
    """Return how many of the n rows given are real, of each sequence: int64 `(B,)` in NumPy."""
    if counts is None:
        return np.full(batch, n)
    found = integers("counts", counts, "(B,)", "a count")
    if len(found) != batch:
        raise ValueError(f"counts must hold one number per sequence, {batch}, got {len(found)}")
    if not all(0 <= count <= n for count in found):
        raise ValueError(f"counts must lie in 0 to n = {n}, the rows given, got {found}")
    return np.array(found, np.int64)


def real_rows(counts: Array) -> tuple[Array, Array]:
    """Return of each real row, one after another, its sequence and its place in what is given.

    Counts 2, 0, 1 give sequences 0, 0, 2 and places 0, 1, 0.
    """
    counts = counts.astype(np.intp)  # which is all that np.repeat takes, in the browser 32 bits
    before = np.cumsum(counts) - counts
    places = np.arange(counts.sum()) - np.repeat(before, counts)
    return np.repeat(np.arange(len(counts)), counts), places


def chosen_rows(rows: Array, batch: int) -> list[int]:
    """Return `rows` as ints, each a sequence of the batch."""
    places = "rows.nonzero()[:, 0]" if is_tensor(rows) else "np.flatnonzero(rows)"
    chosen = integers("rows", rows, "(B',)", "a row", f": name those to keep, {places}")
    if not chosen:
        raise ValueError("rows must name one sequence or more; reset() forgets all tokens")
    if not all(0 <= row < batch for row in chosen):
        raise ValueError(f"rows must lie in 0 to B - 1 = {batch - 1}, got {chosen}")
    return chosen
