"""Initializers: pure functions from a rule, a layer and keyed streams to tensors."""

from mimetic.initializers import bank  # registers its laws
from mimetic.initializers.dispatch import draw, fills, made, named
from mimetic.initializers.draw import Draw, Moments, Streams
from mimetic.initializers.gaussian import draw_filters, gaussian_moments
from mimetic.initializers.laws import Law, law

__all__ = [
    "Draw",
    "Law",
    "Moments",
    "Streams",
    "bank",
    "draw",
    "draw_filters",
    "fills",
    "gaussian_moments",
    "law",
    "made",
    "named",
]
