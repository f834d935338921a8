"""What must hold for any input at all."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import attncore as ac

settings.register_profile("book", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("book")

NUMBER = st.floats(-50, 50, width=32)


@st.composite
def problems(draw):
    """Draw q, k, v and a mask of small sizes."""
    Tq, Tk, D = (draw(st.integers(1, 5)) for _ in range(3))
    q, k, v = (
        draw(arrays(np.float64, shape, elements=NUMBER)) for shape in ((Tq, D), (Tk, D), (Tk, D))
    )
    return q, k, v, draw(arrays(np.bool_, (Tq, Tk)))


@given(problems())
def test_rows_sum_to_one_or_to_zero(problem):
    q, k, _, mask = problem
    sums = ac.attention_weights(q, k, mask).sum(axis=-1)

    assert np.allclose(sums, mask.any(axis=-1))


@given(problems())
def test_weights_lie_between_zero_and_one_and_vanish_where_masked(problem):
    q, k, _, mask = problem
    A = ac.attention_weights(q, k, mask)

    assert ((A >= 0) & (A <= 1 + 1e-12)).all()
    assert (A[~mask] == 0).all()


@given(problems())
def test_outputs_lie_in_the_hull_of_the_values_allowed(problem):
    q, k, v, mask = problem
    out = ac.attention(q, k, v, mask)
    for i, row in enumerate(mask):
        seen = v[row] if row.any() else np.zeros((1, v.shape[1]))
        assert (out[i] >= seen.min(axis=0) - 1e-9).all()
        assert (out[i] <= seen.max(axis=0) + 1e-9).all()


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_does_not_matter(problem, random):
    q, k, v, mask = problem
    order = list(range(len(k)))
    random.shuffle(order)

    assert np.allclose(
        ac.attention(q, k, v, mask), ac.attention(q, k[order], v[order], mask[:, order])
    )


@given(problems(), st.randoms(use_true_random=False))
def test_queries_do_not_see_each_other(problem, random):
    q, k, v, mask = problem
    order = list(range(len(q)))
    random.shuffle(order)

    assert np.allclose(
        ac.attention(q, k, v, mask)[order], ac.attention(q[order], k, v, mask[order])
    )


@given(problems(), NUMBER)
def test_a_constant_bias_changes_nothing(problem, constant):
    q, k, v, mask = problem
    shifted = ac.attention(q, k, v, mask, bias=np.full((len(q), 1), constant))

    assert np.allclose(ac.attention(q, k, v, mask), shifted, atol=1e-6)


@given(st.integers(2, 6), st.integers(1, 5), st.sampled_from([None, 1, 2, 3]))
def test_the_past_does_not_depend_on_the_future(length, change_from, window):
    change_from = min(change_from, length - 1)
    q, k, v = np.random.default_rng(length).normal(size=(3, 2, length, 4))
    options = {"causal": True, "window": window}
    k2, v2 = k.copy(), v.copy()
    k2[:, change_from:] = 1e3
    v2[:, change_from:] = -1e3

    before, after = ac.attention(q, k, v, **options), ac.attention(q, k2, v2, **options)
    assert (before[:, :change_from] == after[:, :change_from]).all()
    t = [torch.from_numpy(x) for x in (q, k, v, k2, v2)]
    before, after = (ac.attention(t[0], *kv, **options) for kv in (t[1:3], t[3:]))
    assert torch.equal(before[:, :change_from], after[:, :change_from])


@given(st.integers(2, 7), st.integers(1, 6), st.sampled_from([None, 1, 2, 4]))
def test_prefill_in_chunks_equals_one_pass(length, split, window):
    split = min(split, length - 1)
    q, k, v = np.random.default_rng(length).normal(size=(3, 2, length, 4))
    whole = ac.attention(q, k, v, causal=True, window=window)
    first = ac.attention(q[:, :split], k[:, :split], v[:, :split], causal=True, window=window)
    rest = ac.attention(q[:, split:], k, v, causal=True, window=window)

    assert np.allclose(np.concatenate([first, rest], axis=1), whole)


@given(arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e300, 1e300)))
def test_softmax_is_finite_and_keeps_the_order(scores):
    p = ac.softmax(scores)

    assert np.isclose(p.sum(), 1)
    assert (np.diff(p[np.argsort(scores, kind="stable")]) >= 0).all()


@given(
    arrays(np.float64, 9, elements=st.floats(-10, 10), unique=True),
    arrays(np.float64, 9, elements=NUMBER),
    st.sampled_from(list(ac.kernels.KERNELS)),
    st.floats(0.1, 30),
)
def test_kernel_regression_interpolates_between_the_values(x, y, kernel, bandwidth):
    predicted = ac.nadaraya_watson(x, x, y, kernel=kernel, bandwidth=bandwidth)

    assert ((predicted >= y.min() - 1e-9) & (predicted <= y.max() + 1e-9)).all()
