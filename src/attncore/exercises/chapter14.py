"""Exercises of chapter 14: many devices."""

from __future__ import annotations

from attncore.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {}
