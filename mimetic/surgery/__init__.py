"""Rewrites of a network, applied before its sites are found."""

from mimetic.surgery import factorised, fold, linear_combination, shared_filters  # register their sections
from mimetic.surgery.fold import fold_combinations
from mimetic.surgery.network import Network, build_network
from mimetic.surgery.operate import operate
from mimetic.surgery.replacement import Replacement, replacements

__all__ = [
    "Network",
    "Replacement",
    "build_network",
    "factorised",
    "fold",
    "fold_combinations",
    "linear_combination",
    "operate",
    "replacements",
    "shared_filters",
]
