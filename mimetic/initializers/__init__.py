"""Initializers: pure functions from a rule, a layer and keyed streams to tensors."""

from mimetic.initializers import (  # register their draws
    attention_draws,
    bank,
    mimetic_mlp,
    mimetic_ssm,
    positions,
)
from mimetic.initializers.dispatch import draw, fills, made, named
from mimetic.initializers.draw import Draw, Joint, Moments, Streams
from mimetic.initializers.gaussian import draw_filters, gaussian_moments
from mimetic.initializers.laws import Law, law

__all__ = [
    "Draw",
    "Joint",
    "Law",
    "Moments",
    "Streams",
    "attention_draws",
    "bank",
    "draw",
    "draw_filters",
    "fills",
    "gaussian_moments",
    "law",
    "made",
    "mimetic_mlp",
    "mimetic_ssm",
    "named",
    "positions",
]
