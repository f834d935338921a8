"""Checks for the book's exercises: one line that says what is wrong, not only that it is."""

from __future__ import annotations

from attncore.exercises import (
    chapter1,
    chapter2,
    chapter3,
    chapter4,
    chapter5,
    chapter6,
    chapter7,
    chapter8,
    chapter9,
    chapter10,
    chapter11,
    chapter12,
    chapter13,
    chapter14,
    chapter15,
    front,
)
from attncore.exercises.exercise import Exercise, verdict

EXERCISES: dict[str, Exercise] = {
    **front.EXERCISES,
    **chapter1.EXERCISES,
    **chapter2.EXERCISES,
    **chapter3.EXERCISES,
    **chapter4.EXERCISES,
    **chapter5.EXERCISES,
    **chapter6.EXERCISES,
    **chapter7.EXERCISES,
    **chapter8.EXERCISES,
    **chapter9.EXERCISES,
    **chapter10.EXERCISES,
    **chapter11.EXERCISES,
    **chapter12.EXERCISES,
    **chapter13.EXERCISES,
    **chapter14.EXERCISES,
    **chapter15.EXERCISES,
}


def check(number: str, answer: object) -> None:
    """Print one line on an answer: correct, or what to look at.

    Where the exercise asks for a function it is called on several inputs, copies each
    time, and compared with a reference to 6 decimals. Common mistakes are recognised.

    Parameters
    ----------
    number
        The exercise, such as "1.2".
    answer
        Your number, array or function.

    Returns
    -------
    None

    Raises
    ------
    ValueError
        If there is no such exercise.

    References
    ----------
    The exercises are in the book's chapters.

    Examples
    --------
    >>> check("1.4", 0.0)
    1.4 not yet: the weights still sum to 1, so the average cannot vanish.
    >>> check("1.4", 131 / 3)
    1.4 correct
    """
    if not isinstance(number, str) or number not in EXERCISES:
        raise ValueError(f"there is no exercise {number!r}: choose from {', '.join(EXERCISES)}")
    print(f"{number} {verdict(EXERCISES[number], answer)}")


__all__ = ["EXERCISES", "Exercise", "check", "verdict"]
