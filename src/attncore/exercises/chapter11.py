"""Exercises of chapter 11: serving many."""

from __future__ import annotations

from attncore.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
