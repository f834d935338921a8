"""What turns text into token numbers and back."""

from __future__ import annotations

from typing import Any, Protocol


class Tokenizer(Protocol):
    """What a decoder needs of a tokenizer. Hugging Face's `tokenizers` have it."""

    def encode(self, text: str, /) -> Any:
        """Return the token numbers of a text, or something with them as its ``ids``."""

    def decode(self, ids: list[int], /) -> str:
        """Return the text of token numbers."""

    def get_vocab_size(self) -> int:
        """Return N: token numbers are below it."""


class Characters:
    """The simplest tokenizer: token n is the n-th character of a string."""

    def __init__(self, characters: str) -> None:
        if len(set(characters)) != len(characters) or not characters:
            raise ValueError("characters must all differ: a token is the place of its character")
        self.characters = characters
        self._places = {character: n for n, character in enumerate(characters)}

    def encode(self, text: str) -> list[int]:
        """Return the place of each character."""
        unknown = sorted(set(text) - self._places.keys())
        if unknown:
            raise ValueError(f"the model does not know {''.join(unknown)!r}")
        return [self._places[character] for character in text]

    def decode(self, ids: list[int]) -> str:
        """Return the characters at these places."""
        return "".join(self.characters[n] for n in ids)

    def get_vocab_size(self) -> int:
        """Return how many characters there are."""
        return len(self.characters)
