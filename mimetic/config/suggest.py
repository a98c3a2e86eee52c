"""Suggest similar names."""

from collections.abc import Iterable
from difflib import SequenceMatcher

_CLOSE = 0.6


def similarity_ratio(word: str, other: str) -> float:
    """Return the similarity of two names, from 0 to 1, ignoring case and the kind of dash."""
    one, two = (w[:80].lower().replace("-", "_") for w in (word, other))
    return SequenceMatcher(None, one, two).ratio()


def nearest(word: str, names: Iterable[str], *, cutoff: float = _CLOSE) -> str | None:
    """Return the name most similar to a word, or None if none is close."""
    scored = [(similarity_ratio(word, name), name) for name in names]
    best = max(scored, key=lambda pair: pair[0], default=(0.0, ""))
    return best[1] if best[0] >= cutoff else None


def did_you_mean(word: str, names: Iterable[str]) -> str | None:
    """Return the hint "did you mean …?", or None if no name is close."""
    found = nearest(word, names)
    return None if found is None else f"did you mean `{found}`?"


def listed(names: Iterable[str], most: int | None = None) -> str:
    """List names for a message: the first so many, and their number where there are more."""
    quoted = [f"`{name}`" for name in names]
    more = "" if most is None or len(quoted) <= most else f" … ({len(quoted)} in all)"
    return ", ".join(quoted[:most]) + more


def choice(word: str, names: Iterable[str], *, label: str) -> str:
    """Return the nearest name as a hint, or else the list of all of them after a label."""
    names = list(names)
    found = did_you_mean(word, names)
    return f"{label}: {listed(names)}" if found is None else found
