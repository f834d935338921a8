"""Exercises: the right answer passes, every wrong one is told what is wrong, in one line."""

import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch

import attncore as ac
from attncore import attention, exercises
from attncore.exercises import EXERCISES, check, verdict
from attncore.exercises.exercise import Exercise
from attncore.models.ops import gelu

ALL = pytest.mark.parametrize("number", EXERCISES)


def answer_of(exercise, function):
    return function if exercise.wants_function else function()


@ALL
def test_the_solution_is_correct(number, capsys):
    exercise = EXERCISES[number]
    check(number, answer_of(exercise, exercise.solve))

    assert capsys.readouterr().out == f"{number} correct\n"


@ALL
def test_each_known_mistake_gets_its_own_hint(number):
    exercise = EXERCISES[number]
    hints = [hint for _, hint in exercise.mistakes]

    assert exercise.mistakes
    assert len(set(hints)) == len(hints)
    for mistake, hint in exercise.mistakes:
        assert verdict(exercise, answer_of(exercise, mistake)) == f"not yet: {hint}."


@ALL
@pytest.mark.parametrize("nothing", [None, ...])
def test_no_answer_yet(number, nothing):
    exercise = EXERCISES[number]

    assert verdict(exercise, nothing) == "not yet: put your answer in place of the dots."
    if exercise.wants_function:
        assert "the function returns nothing" in verdict(exercise, lambda *_: nothing)


@ALL
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("text", "a number or an array is wanted, not a str"),
        (np.zeros((9, 9, 9)), "is wanted, yours is an array of shape (9, 9, 9)"),
    ],
)
def test_the_wrong_kind_of_answer(number, wrong, told):
    exercise = EXERCISES[number]

    assert told in verdict(exercise, answer_of(exercise, lambda *_: wrong))
    swapped = 1.0 if exercise.wants_function else len
    told_off = "give the function itself" if exercise.wants_function else "give a value"
    assert told_off in verdict(exercise, swapped)


@ALL
def test_nan_and_a_slightly_wrong_number_are_told_apart(number):
    exercise = EXERCISES[number]

    def nan(*case):
        return np.asarray(exercise.solve(*case)) * np.nan

    def off(*case):
        return np.asarray(exercise.solve(*case)) + 0.01

    assert "NaN in your result" in verdict(exercise, answer_of(exercise, nan))
    told = verdict(exercise, answer_of(exercise, off))
    if np.asarray(exercise.solve(*exercise.cases[0])).dtype == bool:
        assert told == "not yet: a mask is boolean, yours is float64."
    else:
        assert told.startswith("not yet: the value ")
        assert "is not right." in told


def test_an_exception_becomes_a_line():
    def broken(*_):
        raise IndexError("no such row")

    for exercise in EXERCISES.values():
        if exercise.wants_function:
            told = verdict(exercise, broken)
            assert told == "not yet: your function raised IndexError: no such row."


def test_a_reader_cannot_damage_the_inputs():
    exercise = EXERCISES["1.3"]

    def careless(x, keys, values, h):
        answer = exercise.solve(x, keys, values, h)
        x[:], keys[:], values[:] = 0, 0, 0
        return answer

    assert verdict(exercise, careless) == "correct"
    assert verdict(exercise, careless) == "correct"


@pytest.mark.parametrize(
    "convert", [list, tuple, torch.tensor, lambda a: np.asarray(a, dtype=np.float32)]
)
def test_any_kind_of_array_will_do(convert):
    exercise = EXERCISES["1.1"]

    assert verdict(exercise, convert(exercise.solve())) == "correct"


def test_every_verdict_is_one_line():
    hints = [h for e in EXERCISES.values() for _, h in e.mistakes]

    assert all("\n" not in hint and not hint.endswith(".") for hint in hints)


def test_a_long_error_is_still_one_line():
    def broken():
        raise ValueError("one\ntwo")

    exercise = Exercise(solve=lambda x: x, mistakes=(), cases=((1.0,),))
    told = verdict(exercise, lambda x: broken())

    assert inspect.cleandoc(told).count("\n") == 0


def test_an_attention_that_overflows_is_refused():
    def naive(q, k, v):
        power = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        return power / power.sum(axis=1, keepdims=True) @ v

    def one_maximum(q, k, v):
        scores = q @ k.T / np.sqrt(q.shape[1])
        power = np.exp(scores - scores.max())
        return power / power.sum(axis=1, keepdims=True) @ v

    def one_width(q, k, v):
        return EXERCISES["2.3"].solve(q, k, v) if q.shape[1] == 4 else 2 * v[: len(q)]

    with np.errstate(all="ignore"):
        for wrong in (naive, one_maximum):
            assert "NaN in your result" in verdict(EXERCISES["2.3"], wrong)
    assert verdict(EXERCISES["2.3"], one_width) != "correct"


def test_a_cache_that_maps_rows_again_is_refused():
    def anew(x, maps, steps):
        rows = x
        for _ in range(steps):
            q, k, v = maps(rows)
            rows = np.concatenate([rows, attention(q[-1:], k, v)])
        return rows[len(x) :]

    def with_lists(x, maps, steps):  # another way to keep what is needed
        keys, values, new = [], [], x
        for _ in range(steps):
            q, k, v = maps(new)
            keys, values = [*keys, *k], [*values, *v]
            new = attention(q[-1:], np.array(keys), np.array(values))
            yield new

    exercise = EXERCISES["8.7"]
    assert "mapped a second time: keep its key and its value" in verdict(exercise, anew)
    assert "maps takes rows (n, 4), got (4,)" in verdict(exercise, lambda x, m, n: m(x[0]))
    told = verdict(exercise, lambda *case: np.concatenate(list(with_lists(*case))))
    assert told == "correct"


def test_a_merge_that_overflows_is_refused():
    def onto(first):
        def merge(m1, total1, out1, m2, total2, out2):
            a, b = (1, np.exp(m2 - m1)) if first else (np.exp(m1 - m2), 1)
            return (a * out1 + b * out2) / (a * total1 + b * total2)

        return merge

    with np.errstate(all="ignore"):
        for first in (True, False):
            assert "NaN in your result" in verdict(EXERCISES["10.4"], onto(first))


def test_a_known_mistake_that_gives_nan_gets_its_hint():
    def features(x):
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    def before(S, z, q, k, v):
        return features(q) @ S / (features(q) @ z)

    with np.errstate(all="ignore"):
        assert "first add it" in verdict(EXERCISES["10.6"], before)


def test_a_rounded_answer_is_told_not_to_round():
    assert "do not round it" in verdict(EXERCISES["1.1"], [0.0, 0.269, 0.731])
    assert "do not round it" in verdict(EXERCISES["1.4"], 43.667)


def test_a_straight_line_is_not_the_nearest_value():
    told = verdict(EXERCISES["1.2"], lambda q, k, v: np.interp(q, np.sort(k), v[np.argsort(k)]))

    assert told.startswith("not yet: the value 41.2 ")


@pytest.mark.parametrize("number", ["3.3", "3.4", "3.6"])
@pytest.mark.parametrize(
    ("convert", "yours"),
    [
        (lambda a: a.astype(float), "float64"),
        (lambda a: a.astype(np.int8).tolist(), "int64"),
        (lambda a: torch.from_numpy(a).float(), "float32"),
    ],
)
def test_a_mask_must_be_boolean(number, convert, yours):
    solve = EXERCISES[number].solve

    told = verdict(EXERCISES[number], lambda *case: convert(solve(*case)))
    assert told == f"not yet: a mask is boolean, yours is {yours}."
    assert verdict(EXERCISES[number], lambda *case: solve(*case).tolist()) == "correct"
    tensor = verdict(EXERCISES[number], lambda *case: torch.from_numpy(solve(*case)))
    assert tensor == "correct"


def test_a_masked_softmax_that_does_not_survive_is_refused():
    def divide(power, keep, extra=0.0):
        power = np.where(keep, power, 0)
        total = power.sum(axis=-1, keepdims=True)
        return power / (total + extra if extra else np.where(total == 0, 1, total))

    def no_maximum(scores, keep):
        return divide(np.exp(scores), keep)

    def extra(scores, keep):
        return divide(np.exp(scores), keep, 1e-9)

    def high_only(scores, keep):  # exp cannot overflow, but underflows
        return divide(
            np.exp(scores - max(scores[np.broadcast_to(keep, scores.shape)].max(), 0)), keep, 1e-9
        )

    def one_maximum(scores, keep):
        return divide(np.exp(scores - scores[np.broadcast_to(keep, scores.shape)].max()), keep)

    def hidden_maximum(scores, keep):
        return divide(np.exp(scores - scores.max(axis=-1, keepdims=True)), keep)

    def low_fill(scores, keep):
        filled = np.where(keep, scores, -100)
        power = np.exp(filled - filled.max(axis=-1, keepdims=True))
        return power / power.sum(axis=-1, keepdims=True) * keep.any(axis=-1, keepdims=True)

    def float32_fill(scores, keep):
        low = np.finfo(np.float32).min
        top = np.where(keep, scores, low).max(axis=-1, keepdims=True)
        return divide(np.exp(np.where(keep, scores - top, 0)), keep)

    exercise = EXERCISES["3.7"]
    with np.errstate(all="ignore"):
        for wrong in (no_maximum, extra, high_only, one_maximum, hidden_maximum, low_fill):
            assert verdict(exercise, wrong) != "correct", wrong.__name__
    assert verdict(exercise, float32_fill) == "correct"


def test_rows_or_documents_found_by_luck_are_refused():
    def from_the_left(outputs, lengths):
        return outputs[0, lengths - 1]

    def first_document(lengths):
        T, n = lengths.sum(), lengths[0]
        return (np.tril(np.ones((T, T))) > 0) & ((np.arange(T) < n)[:, None] == (np.arange(T) < n))

    assert verdict(EXERCISES["3.5"], from_the_left) != "correct"
    assert verdict(EXERCISES["3.6"], first_document) != "correct"


def test_a_polarity_that_guesses_the_number_of_keys_is_refused():
    def padded(lengths, Tk):
        return (np.arange(Tk) < lengths[:, None])[:, None, None]

    def five(drop, lengths):
        return ~drop & padded(lengths, 5)

    def longest(drop, lengths):
        return ~drop & padded(lengths, lengths.max())

    def queries(drop, lengths):
        return ~drop & padded(lengths, len(drop))

    def at_least_one(drop, lengths):
        return ~drop & padded(np.maximum(lengths, 1), drop.shape[1])

    for wrong in (five, longest, queries, at_least_one):
        assert verdict(EXERCISES["3.4"], wrong) != "correct", wrong.__name__
    right = verdict(EXERCISES["3.4"], lambda d, n: ~d & padded(n, d.shape[1]))
    assert right == "correct"


def test_a_roofline_that_rounds_or_looks_at_the_flops_alone_is_refused():
    for wrong in (
        lambda f, b, peak, read: max(f // peak, b / read),
        lambda f, b, peak, read: max(int(f / peak), b / read),
        lambda f, b, peak, read: f / peak if f > 8 else b / read,
    ):
        assert verdict(EXERCISES["12.4"], wrong) != "correct"


def test_a_merge_or_a_filter_that_works_by_luck_is_refused():
    def everywhere(ids, a, b, new):  # overlapping pairs twice
        return [new if pair == (a, b) else pair[0] for pair in pairwise(ids)]

    def as_text(ids, a, b, new):  # 11, 2 holds the digits of 1, 2
        return [int(n) for n in " ".join(map(str, ids)).replace(f"{a} {b}", str(new)).split()]

    def round_the_end(ids, a, b, new):
        out, n = [], 0
        while n < len(ids):
            pair = (ids[n], ids[(n + 1) % len(ids)]) == (a, b)
            out.append(new if pair else ids[n])
            n += 1 + pair
        return out

    def fixed(p, least):
        q = np.where(p >= 0.2, p, 0)
        return q / q.sum()

    def strictly(p, least):  # one too many when the sum is just reached
        order = np.argsort(-p)
        kept = order[np.cumsum(p[order]) - p[order] <= least]
        return np.where(np.isin(np.arange(len(p)), kept), p, 0) / p[kept].sum()

    for wrong in (everywhere, as_text, round_the_end):
        assert verdict(EXERCISES["13.3"], wrong) != "correct", wrong.__name__
    for wrong in (fixed, strictly):
        assert verdict(EXERCISES["13.4"], wrong) != "correct", wrong.__name__


def test_a_block_that_works_by_luck_is_refused():
    def normed(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def block(split, join):
        def answer(x, W_Q, W_K, W_V, W_O, W_1, W_2, heads):
            n = normed(x)
            q, k, v = (split(n @ W, heads) for W in (W_Q, W_K, W_V))
            x = x + join(ac.attention(q, k, v, causal=True), x.shape) @ W_O
            return x + gelu(normed(x) @ W_1) @ W_2

        return answer

    def cut(rows, heads):
        return rows.reshape(len(rows), heads, -1).swapaxes(0, 1)

    def two(rows, heads):
        return cut(rows, 2)

    def interleaved(rows, heads):
        return rows.reshape(len(rows), -1, heads).transpose(2, 0, 1)

    def join(mixed, shape):
        return mixed.swapaxes(0, 1).reshape(shape)

    def unswapped(mixed, shape):
        return mixed.reshape(shape)

    assert verdict(EXERCISES["7.6"], block(cut, join)) == "correct"
    for wrong in (block(two, join), block(interleaved, join), block(cut, unswapped)):
        assert verdict(EXERCISES["7.6"], wrong).startswith("not yet: the value ")


def test_a_filter_may_add_up_from_either_end():
    def from_the_unlikeliest(p, least):
        order = np.argsort(p)
        keep = order[np.cumsum(p[order]) > 1 - least]
        return np.where(np.isin(np.arange(len(p)), keep), p, 0) / p[keep].sum()

    def by_what_is_likelier(p, least):
        before = np.array([p[p > x].sum() for x in p])
        return np.where(before < least, p, 0) / p[before < least].sum()

    for right in (from_the_unlikeliest, by_what_is_likelier):
        assert verdict(EXERCISES["13.4"], right) == "correct", right.__name__


def test_a_layer_of_heads_that_works_by_luck_is_refused():
    exercise = EXERCISES["6.8"]

    def layer(x, W_Q, W_K, W_V, W_O, heads, *, wide=False, naive=False, axis=-1):
        def split(rows, count):
            return rows.reshape(len(rows), count, -1).swapaxes(0, 1)

        D = W_Q.shape[1] // heads
        groups = W_K.shape[1] // D
        q, k, v = split(x @ W_Q, heads), split(x @ W_K, groups), split(x @ W_V, groups)
        k, v = (rows.repeat(heads // groups, axis=0) for rows in (k, v))
        scores = q @ k.swapaxes(1, 2) / np.sqrt(D)
        power = np.exp(scores if naive else scores - scores.max(axis=-1, keepdims=True))
        out = power / power.sum(axis=axis, keepdims=True) @ v
        if wide:  # as if values were as wide as keys
            return out.swapaxes(0, 1).reshape(-1, heads * D) @ W_O
        return out.swapaxes(0, 1).reshape(len(x), -1) @ W_O

    assert verdict(exercise, layer) == "correct"
    with np.errstate(all="ignore"):
        for wrong in ({"naive": True}, {"wide": True}, {"axis": -2}):
            assert verdict(exercise, lambda *a, w=wrong: layer(*a, **w)) != "correct", wrong
        assert "NaN in your result" in verdict(exercise, lambda *a: layer(*a, naive=True))


def test_a_summary_tells_what_is_done(capsys, monkeypatch):
    monkeypatch.setattr(exercises, "_solved", {})
    check.summary()
    check("1.4", 131 / 3)
    check("1.4", 0.0)
    check("2.1", ...)
    check("1.4", 131 / 3)
    capsys_before = capsys.readouterr().out.splitlines()
    exercises.summary()
    first, done, todo, second, *rest = capsys.readouterr().out.splitlines()
    one = [number for number in EXERCISES if number.startswith("1.")]
    two = [number for number in EXERCISES if number.startswith("2.")]

    assert capsys_before[0] == "no exercise has been checked yet"
    assert first == f"chapter 1: 1 of {len(one)} done"
    assert done == "  done    1.4"
    assert todo.split() == ["to", "do", *(number for number in one if number != "1.4")]
    assert second == f"chapter 2: 0 of {len(two)} done"
    assert rest[0] == "  not yet 2.1"
    assert rest[1].split() == ["to", "do", *two[1:]]
    assert len(rest) == 2
