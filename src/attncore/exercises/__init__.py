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
    said = verdict(EXERCISES[number], answer)
    _solved[number] = said == "correct"
    print(f"{number} {said}")


def summary() -> None:
    """Print which exercises are done, for each chapter of which some were checked.

    It can be called as `check.summary()`, too. It knows what was checked since Python started,
    and of an exercise that was checked several times, the last verdict.

    Returns
    -------
    None

    References
    ----------
    The exercises are in the book's chapters.

    Examples
    --------
    >>> check("2.1", 3.0)  # doctest: +ELLIPSIS
    2.1 ...
    >>> check.summary()  # doctest: +ELLIPSIS
    chapter ...
    """
    if not _solved:
        print("no exercise has been checked yet")
    for chapter in dict.fromkeys(number.partition(".")[0] for number in EXERCISES):
        every = [number for number in EXERCISES if number.partition(".")[0] == chapter]
        known = [number for number in every if number in _solved]
        if known:
            done = [number for number in known if _solved[number]]
            print(f"chapter {chapter}: {len(done)} of {len(every)} done")
            for title, some in (
                ("done", done),
                ("not yet", [number for number in known if not _solved[number]]),
                ("to do", [number for number in every if number not in _solved]),
            ):
                if some:
                    print(f"  {title:8}{' '.join(some)}")


_solved: dict[str, bool] = {}
check.summary = summary  # type: ignore[attr-defined]

__all__ = ["EXERCISES", "Exercise", "check", "summary", "verdict"]
