"""Covariances of filters in factor form: sources, scales, and what is done to them."""

from mimetic.covariance.closed_form import closed_form, closed_form_matrix
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance, measured
from mimetic.covariance.scale import fans, filter_trace, repeats, scaled
from mimetic.covariance.sources import source

__all__ = [
    "Covariance",
    "PatchGeometry",
    "Provenance",
    "closed_form",
    "closed_form_matrix",
    "fans",
    "filter_trace",
    "measured",
    "repeats",
    "scaled",
    "source",
]
