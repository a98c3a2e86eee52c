"""Suggest similar names."""

from collections.abc import Iterable
from difflib import SequenceMatcher

_CLOSE = 0.6


def similarity_ratio(word: str, other: str) -> float:
    """Return the similarity of two names, from 0 to 1, ignoring case and the kind of dash."""
    one, two = (w[:80].lower().replace("-", "_") for w in (word, other))
    matcher = SequenceMatcher(None, one, two)
    # the bounds from above are cheap, and most names are far from each other
    bound = min(matcher.real_quick_ratio(), matcher.quick_ratio())
    return bound if bound < _CLOSE else matcher.ratio()


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name most similar to a word, or None if none is close."""
    scored = [(similarity_ratio(word, name), name) for name in names]
    best = max(scored, key=lambda pair: pair[0], default=(0.0, ""))
    return best[1] if best[0] >= _CLOSE else None


def did_you_mean(word: str, names: Iterable[str], *, count: int = 1) -> str | None:
    """Return the hint "did you mean …?" with the nearest names, or None if none is close."""
    scored = ((similarity_ratio(word, name), name) for name in names)
    close = sorted((pair for pair in scored if pair[0] >= _CLOSE), key=lambda pair: -pair[0])[:count]
    return f"did you mean {' or '.join(f'`{name}`' for _, name in close)}?" if close else None


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
