"""Scores and kernel regression: against loops, known numbers, real data."""

import hashlib
import math
import re
from importlib.resources import files

import numpy as np
import oracle
import pytest
import torch

import attncore as ac

KEYS, VALUES = np.array([51.0, 56.0, 58.0]), np.array([40.0, 43.0, 48.0])
KING = np.array([[1.0, 2.0, 3.0]])
WORDS = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [1.0, 1.0, 1.0]])


def pair(q_width=5, k_width=5):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 3, q_width)), rng.normal(size=(2, 7, k_width)), rng


def by_loop(score, q, k):
    return [[[score(a, b) for b in k[n]] for a in q[n]] for n in range(len(q))]


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("dot", lambda a, b: sum(a * b)),
        ("scaled_dot", lambda a, b: sum(a * b) / math.sqrt(5)),
        ("cosine", lambda a, b: sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))),
        ("neg_sq_distance", lambda a, b: -sum((a - b) ** 2) / 2),
    ],
)
def test_scores_equal_their_loops_on_both_libraries(name, definition):
    q, k, _ = pair()
    score = getattr(ac.scores, name)
    found = score(torch.from_numpy(q), torch.from_numpy(k))

    assert np.allclose(score(q, k), by_loop(definition, q, k))
    assert np.allclose(found.numpy(), score(q, k))


def test_scores_with_parameters_equal_their_loops():
    q, k, rng = pair(5, 3)
    W, Wq, Wk, w = (rng.normal(size=s) for s in ((5, 3), (5, 11), (3, 11), (11,)))
    bilinear = by_loop(lambda a, b: a @ W @ b, q, k)
    additive = by_loop(lambda a, b: w @ np.tanh(a @ Wq + b @ Wk), q, k)
    t = [torch.from_numpy(x) for x in (q, k, W, Wq, Wk, w)]

    assert np.allclose(ac.scores.bilinear(q, k, W), bilinear)
    assert np.allclose(ac.scores.bilinear(*t[:3]).numpy(), bilinear)
    assert np.allclose(ac.scores.additive(q, k, Wq, Wk, w), additive)
    assert np.allclose(ac.scores.additive(*t[:2], *t[3:]).numpy(), additive)
    assert np.allclose(
        ac.scores.neg_sq_distance(q, q, bandwidth=3.0), ac.scores.neg_sq_distance(q / 3, q / 3)
    )


def test_the_king_and_the_queen():
    assert (ac.scores.dot(KING, WORDS) == [14, -14, 6]).all()
    assert np.allclose(ac.scores.cosine(KING, WORDS), [[1, -1, 0.9258]], atol=1e-4)
    assert np.allclose(ac.softmax(ac.scores.dot(KING, WORDS)), [[0.99966, 0, 0.00034]], atol=1e-5)
    assert np.allclose(ac.attention_weights(KING, WORDS), [[0.9902, 0, 0.0098]], atol=1e-4)


def test_cosine_of_extreme_and_zero_vectors():
    q = torch.tensor([[0.0, 0.0], [3e-300, 4e-300], [3e200, 4e200]], dtype=torch.float64)
    q.requires_grad_()
    k = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    found = ac.scores.cosine(q, k)
    found.sum().backward()

    assert np.allclose(found.detach().numpy()[:, 0], [0, 1, 1])
    assert torch.isfinite(q.grad).all()


def test_scores_broadcast_their_leading_axes():
    q, k, _ = pair()

    assert ac.scores.dot(q[:, None], k).shape == (2, 2, 3, 7)


@pytest.mark.parametrize("name", sorted(ac.kernels.KERNELS))
def test_kernels_have_their_shape_and_enclose_the_area_one(name):
    kernel = ac.kernels.KERNELS[name]
    u = np.linspace(-12, 12, 240_001)
    K = kernel(u)

    assert np.allclose(K, kernel(torch.from_numpy(u)).numpy())
    assert (K >= 0).all()
    assert (kernel(-u) == K).all()
    ratio = oracle.KERNELS[name](0.5) / oracle.KERNELS[name](0.25)
    assert np.isclose(kernel(np.array(0.5)) / kernel(np.array(0.25)), ratio)
    if name != "inverse_distance":
        assert np.isclose(K.sum() * (u[1] - u[0]), 1, atol=1e-3)


@pytest.mark.parametrize("kernel", sorted(ac.kernels.KERNELS))
@pytest.mark.parametrize("bandwidth", [0.3, 1.5, 20.0])
def test_regression_equals_the_loop(kernel, bandwidth):
    rng = np.random.default_rng(3)
    x_train = np.concatenate([rng.uniform(0, 9, 13), [4.0, 4.0]])
    y_train, x = rng.normal(size=15), np.array([0.0, 4.0, 5.5, 30.0])
    expected = [oracle.regression(q, x_train, y_train, kernel, bandwidth) for q in x]
    options = {"kernel": kernel, "bandwidth": bandwidth}
    if kernel == "gaussian" and bandwidth < 1:
        expected[-1] = y_train[x_train.argmax()]  # the loop underflows to 0 / 0; softmax does not
    found = ac.nadaraya_watson(x, x_train, y_train, **options)
    t = ac.nadaraya_watson(*(torch.from_numpy(a) for a in (x, x_train, y_train)), **options)

    assert np.allclose(found, expected, equal_nan=True)
    assert np.allclose(t.numpy(), expected, equal_nan=True)


@pytest.mark.parametrize(("bandwidth", "loaves"), [(1, 45.5), (2, 45.466), (5, 44.406)])
def test_fifty_seven_guests(bandwidth, loaves):
    found = ac.nadaraya_watson([57.0], KEYS, VALUES, bandwidth=bandwidth)

    assert np.allclose(found, loaves, atol=5e-4)


def test_a_lonely_point_is_nan_not_zero():
    x = [57.0, 70.0]
    for y in (VALUES, np.stack([VALUES, VALUES], axis=1)):
        found = ac.nadaraya_watson(x, KEYS, y, kernel="triangular", bandwidth=2.0)
        assert np.isfinite(found[0]).all()
        assert np.isnan(found[1]).all()
    assert (ac.kernel_weights(x, KEYS, kernel="triangular", bandwidth=2.0)[1] == 0).all()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("kernel", sorted(ac.kernels.KERNELS))
@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_a_key_out_of_reach_may_hold_anything(convert, kernel, lost):
    x = np.array([0.0, 0.75, 1.5, 1e3])
    y, poisoned = np.array([0.0, 1.0, 4.0, 9.0]), np.array([0.0, 1.0, 4.0, lost])
    exact = kernel == "inverse_distance"  # its weights are 0 beside an exact match only
    at = np.array([0.0, 1.5, 1e3]) if exact else np.array([0.25, 1.5, 1e3])
    options = {"kernel": kernel, "bandwidth": 1.0}
    for values in (y, np.stack([2 * y, y], axis=1)):
        broken = values.copy()
        broken[-1, ...] = poisoned[-1]
        a, b = (
            ac.nadaraya_watson(*map(convert, (at, x, some)), **options) for some in (values, broken)
        )
        assert np.allclose(a[:2], b[:2], rtol=0, atol=0)
        assert np.array_equal(np.asarray(b[2]), np.full(values.shape[1:], lost), equal_nan=True)
    left = np.asarray(ac.leave_one_out(convert(x), convert(poisoned), **options))
    if not exact:
        assert np.isfinite(left[:3]).all()
        assert np.array_equal(left[:3], ac.leave_one_out(x, y, **options)[:3])


def test_opposite_infinities_have_no_average_and_hidden_values_have_no_gradient():
    keys, at = torch.tensor([0.0, 0.5, 9.0]), torch.tensor([0.25, 9.0])
    y = torch.tensor([math.inf, -math.inf, 3.0], requires_grad=True)
    found = ac.nadaraya_watson(at, keys, y, kernel="boxcar", bandwidth=1.0)
    found[1].backward()

    assert np.array_equal(found.detach(), [math.nan, 3], equal_nan=True)
    assert y.grad.tolist() == [0, 0, 1]


@pytest.mark.parametrize("kernel", sorted(ac.kernels.KERNELS))
def test_a_distance_that_is_no_number_has_a_weight_that_is_none(kernel):
    u = np.array([math.nan, math.inf, -math.inf])

    assert np.array_equal(ac.kernels.KERNELS[kernel](u), [math.nan, 0, 0], equal_nan=True)
    options = {"kernel": kernel, "bandwidth": 1.0}
    assert np.isnan(ac.kernel_weights([0.25], [0.0, math.nan], **options)).all()
    assert (ac.kernel_weights([0.25], [0.0, math.inf], **options) == [[1, 0]]).all()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_choosing_says_where_the_nan_is(convert):
    x, y = np.arange(6.0), np.arange(6.0)
    y[5] = math.nan
    found = ac.nadaraya_watson(*map(convert, (np.array([0.5]), x, y)), kernel="boxcar", bandwidth=1)

    assert found[0] == 0.5
    with pytest.raises(ValueError, match=r"^y_train is nan at \[5\], and 1 of its .* leave these"):
        ac.choose_bandwidth(convert(x), convert(y), [1.0, 2.0])
    x[3] = math.inf
    with pytest.raises(ValueError, match=r"^x_train is inf at \[3, 0\]"):
        ac.choose_bandwidth(convert(x[:, None]), convert(y), [1.0, 2.0])


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_pooling_takes_nothing_from_a_hidden_key(convert, lost):
    q, k, v = np.random.default_rng(6).normal(size=(3, 2, 5, 4))
    mask = np.arange(5) < 4
    wanted = ac.attention_pooling(q, k, v, mask=mask)
    k[:, 4], v[:, 4] = math.nan, lost

    assert np.allclose(ac.attention_pooling(*map(convert, (q, k, v)), mask=convert(mask)), wanted)


def test_pooling_checks_what_the_scoring_function_returns():
    q, k, v = np.ones((3, 4)), np.ones((5, 4)), np.ones((2, 5, 1))
    with pytest.raises(TypeError, match="score must be a function of q and k, got str"):
        ac.attention_pooling(q, k, k, "dot")
    with pytest.raises(TypeError, match="do not mix: v NumPy, score torch"):
        ac.attention_pooling(q, k, k, lambda q, k: torch.ones(3, 5))
    with pytest.raises(ValueError, match=r"leading axes of score and v do not broadcast"):
        ac.attention_pooling(q, k, v, lambda q, k: np.ones((7, 3, 5)))


def test_a_bandwidth_is_one_number():
    row = [0.0, 1.0]
    for number in (np.float32(2), np.array(2.0), np.int64(2), 2):
        found = ac.kernel_weights(row, row, bandwidth=number)
        assert np.allclose(found, ac.kernel_weights(row, row, bandwidth=2.0))
    tensors = torch.tensor(row), torch.tensor(row)
    assert ac.kernel_weights(*tensors, bandwidth=torch.tensor([2.0])).dtype == torch.float32
    with pytest.raises(TypeError, match="do not mix: x NumPy, bandwidth torch"):
        ac.kernel_weights(np.zeros(2), np.zeros(2), bandwidth=torch.tensor(2.0))
    with pytest.raises(ValueError, match=r"bandwidth must be a single number, got \(2,\)"):
        ac.kernel_weights(*tensors, bandwidth=torch.ones(2))
    with pytest.raises(ValueError, match="bandwidth is on meta"):
        ac.kernel_weights(*tensors, bandwidth=torch.ones((), device="meta"))


def test_a_far_query_does_not_underflow():
    assert np.allclose(ac.nadaraya_watson([1e4], KEYS, VALUES, bandwidth=1.0), 48)


@pytest.mark.parametrize("kernel", sorted(ac.kernels.KERNELS))
def test_leave_one_out_really_leaves_the_point_out(kernel):
    rng = np.random.default_rng(4)
    x, y = np.concatenate([rng.uniform(0, 4, 9), [2.0, 2.0]]), rng.normal(size=11)
    expected = [
        oracle.regression(x[i], np.delete(x, i), np.delete(y, i), kernel, 1.3) for i in range(11)
    ]
    options = {"kernel": kernel, "bandwidth": 1.3}
    found = ac.leave_one_out(torch.from_numpy(x), torch.from_numpy(y), **options)

    assert np.allclose(ac.leave_one_out(x, y, **options), expected, equal_nan=True)
    assert np.allclose(found.numpy(), expected, equal_nan=True)


def test_the_motorcycle_data_and_their_bandwidth():
    times, accel = ac.data.motorcycle()
    best, rmse = ac.choose_bandwidth(times, accel, np.geomspace(0.2, 10, 60))
    folder = files("attncore.data")
    digest = hashlib.sha256((folder / "motorcycle.csv").read_bytes()).hexdigest()

    stated = re.search(r"`motorcycle.csv`.*`([0-9a-f]{64})`", (folder / "README.md").read_text())

    assert stated[1] == digest
    assert (np.diff(times) == 0).sum() == 39
    assert np.isclose(rmse.min(), 24.41, atol=0.01)
    assert 0.85 < best < 1.0
    times[0] = -1
    assert ac.data.motorcycle()[0][0] == 2.4


def test_a_bandwidth_without_neighbours_is_not_chosen():
    x, y = [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]
    best, rmse = ac.choose_bandwidth(x, y, [0.5, 1.5], kernel="boxcar")

    assert best == 1.5
    assert rmse[0] == math.inf


def test_points_without_features_are_refused():
    with pytest.raises(ValueError, match=r"need at least one feature \(axis 1\): x \(2, 0\)"):
        ac.kernel_weights(np.ones((2, 0)), np.ones((3, 0)), kernel="boxcar", bandwidth=1.0)


def test_two_dimensional_points_and_several_outputs():
    rng = np.random.default_rng(5)
    x, x_train, y = rng.normal(size=(3, 2)), rng.normal(size=(7, 2)), rng.normal(size=(7, 5))
    distance = np.sqrt(((x[:, None] - x_train) ** 2).sum(-1))
    A = np.array([oracle.softmax(row) for row in -(distance**2) / 2])
    triangle = np.maximum(0, 1 - distance / 4)

    assert np.allclose(ac.nadaraya_watson(x, x_train, y, bandwidth=1.0), A @ y)
    found = ac.kernel_weights(x, x_train, kernel="triangular", bandwidth=4.0)
    assert np.allclose(found, triangle / triangle.sum(axis=1, keepdims=True))


def test_a_bandwidth_can_be_learned():
    x, y = (torch.from_numpy(a) for a in ac.data.motorcycle())
    h = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def loss(h):
        return ((ac.leave_one_out(x, y, bandwidth=h) - y) ** 2).mean()

    assert torch.autograd.gradcheck(loss, h)
    loss(h).backward()
    assert h.grad > 0  # 2 ms is too wide


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_pooling_is_attention_or_regression_by_its_score(convert):
    q, k, v = (convert(x) for x in np.random.default_rng(6).normal(size=(3, 5, 4)))
    mask = convert(np.arange(5) < 4)

    assert np.allclose(ac.attention_pooling(q, k, v, mask=mask), ac.attention(q, k, v, mask))
    pooled = ac.attention_pooling(q, k, v, ac.scores.neg_sq_distance)
    assert np.allclose(pooled, ac.nadaraya_watson(q, k, v, bandwidth=1.0))


def test_gaussian_regression_is_attention_for_keys_of_one_length():
    rng = np.random.default_rng(7)
    k, v, q = rng.normal(size=(9, 3)), rng.normal(size=(9, 2)), rng.normal(size=(4, 3))
    k = k / np.linalg.norm(k, axis=1, keepdims=True)

    assert np.allclose(
        ac.nadaraya_watson(q, k, v, bandwidth=0.5), ac.attention(q, k, v, scale=1 / 0.5**2)
    )
