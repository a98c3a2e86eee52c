"""Covariances of filters in factor form: sources, measurements, transfer, algebra, scales, files."""

from mimetic.covariance.agop import agop, agop_per_group
from mimetic.covariance.algebra import bures_wasserstein, correlation, cosine, mixed, powered, truncated
from mimetic.covariance.closed_form import closed_form, closed_form_matrix
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance, derived, measured
from mimetic.covariance.filters import filter_covariance
from mimetic.covariance.gradients import Gram, gradient_grams
from mimetic.covariance.heads import linear_head, output_basis
from mimetic.covariance.nfm import entry_centered_nfm, nfm, nfm_per_group
from mimetic.covariance.patches import patch_covariance, whitening_filters
from mimetic.covariance.scale import fans, filter_trace, repeats, scaled
from mimetic.covariance.shrinkage import shrunk, spiked
from mimetic.covariance.sources import source
from mimetic.covariance.transfer import adapted, at_depth, resized

__all__ = [
    "Covariance",
    "Gram",
    "PatchGeometry",
    "Provenance",
    "adapted",
    "agop",
    "agop_per_group",
    "at_depth",
    "bures_wasserstein",
    "closed_form",
    "closed_form_matrix",
    "correlation",
    "cosine",
    "derived",
    "entry_centered_nfm",
    "fans",
    "filter_covariance",
    "filter_trace",
    "gradient_grams",
    "linear_head",
    "measured",
    "mixed",
    "nfm",
    "nfm_per_group",
    "output_basis",
    "patch_covariance",
    "powered",
    "repeats",
    "resized",
    "scaled",
    "shrunk",
    "source",
    "spiked",
    "truncated",
    "whitening_filters",
]
