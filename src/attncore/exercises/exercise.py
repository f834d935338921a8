"""What an exercise is, and how an answer is judged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from attncore.base.arrays import dtype_name, is_bool, is_tensor
from attncore.base.reading import to_numpy

_NAN = "there is NaN in your result: look for 0 / 0 or an overflow"


@dataclass(frozen=True)
class Exercise:
    """The right answer as a function, the inputs to try it on, and the known wrong answers.

    An exercise that asks for a number or an array has one case without arguments.
    """

    solve: Callable[..., Any]
    mistakes: tuple[tuple[Callable[..., Any], str], ...]
    cases: tuple[tuple[Any, ...], ...] = ((),)

    @property
    def wants_function(self) -> bool:
        """Tell whether the answer is a function of the cases."""
        return self.cases != ((),)


def verdict(exercise: Exercise, answer: object) -> str:
    """Return "correct", or "not yet: " and what is wrong."""
    problem = _problem(exercise, answer)
    return f"not yet: {problem}." if problem else "correct"


def _problem(exercise: Exercise, answer: Any) -> str:
    if answer is None or answer is ...:
        return "put your answer in place of the dots"
    if exercise.wants_function != callable(answer):
        if exercise.wants_function:
            return "give the function itself, without calling it"
        return "give a value, not a function"
    function = answer if exercise.wants_function else lambda: answer
    answers, nan = [], False
    for case in exercise.cases:
        try:
            given = function(*copy.deepcopy(case))
        except Exception as error:  # whatever the reader's code raises is what to report
            said = " ".join(str(error).split()).rstrip(".")
            return f"your function raised {type(error).__name__}: {said}"
        problem, array = _readable(given, np.asarray(exercise.solve(*case)))
        if problem and problem != _NAN:
            return problem
        nan = nan or problem == _NAN  # a known mistake may well give NaN: its hint says more
        answers.append(array)
    if _agrees(answers, exercise.solve, exercise.cases):
        return ""
    for mistake, hint in exercise.mistakes:
        if _agrees(answers, mistake, exercise.cases):
            return hint
    return _NAN if nan else _difference(answers, exercise)


def _readable(given: Any, right: np.ndarray) -> tuple[str, np.ndarray]:
    """Say what keeps `given` from being compared with `right`, or return it as floats."""
    expected = right.astype(float)
    if given is None or given is ...:
        return "the function returns nothing: put code in place of the dots", expected
    try:
        array = to_numpy(given)
    except (TypeError, ValueError):
        return f"a number or an array is wanted, not a {type(given).__name__}", expected
    if array.shape != expected.shape:
        return f"{_described(expected)} is wanted, yours is {_described(array)}", expected
    if np.isnan(array).any() and not np.isnan(expected).any():
        return _NAN, array
    own = given if is_tensor(given) else np.asarray(given)
    if is_bool(right) and not is_bool(own):
        return f"a mask is boolean, yours is {dtype_name(own)}", expected
    return "", array


def _described(array: np.ndarray) -> str:
    if array.ndim == 0:
        return "a single number"
    if array.ndim == 1:
        return f"a row of {len(array)} numbers"
    return f"an array of shape {array.shape}"


def _agrees(
    answers: list[np.ndarray], function: Callable[..., Any], cases: tuple[tuple[Any, ...], ...]
) -> bool:
    with np.errstate(all="ignore"):  # a mistake may well overflow: that is its point
        results = [np.asarray(function(*case), dtype=float) for case in cases]
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-6, equal_nan=True)
        for a, b in zip(answers, results, strict=True)
    )


def _difference(answers: list[np.ndarray], exercise: Exercise) -> str:
    for case, array in zip(exercise.cases, answers, strict=True):
        right = np.asarray(exercise.solve(*case), dtype=float)
        wrong = ~np.isclose(array, right, 1e-6, 1e-6)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            where = f" at {list(place)}" if place else ""
            value = f"{array[place]:.6g}"
            if np.allclose(array, right, rtol=0, atol=1e-3):
                return f"the value {value}{where} is right to about 3 decimals: do not round it"
            inputs = f" for the inputs {_short(case)}" if case else ""
            return f"the value {value}{where}{inputs} is not right"
    return "it is close, but not to 6 decimals"


def _short(case: tuple[Any, ...]) -> str:
    return ", ".join(
        f"array {a.shape}" if isinstance(a, np.ndarray) and a.size > 4 else str(a) for a in case
    )
