"""Covariances of filters in factor form: sources, measurements, transfer, algebra, scales, files."""

from mimetic.covariance.agop import agop, agop_per_group
from mimetic.covariance.algebra import bures_wasserstein, correlation, cosine, mixed, powered, truncated
from mimetic.covariance.carry import Pending, carried
from mimetic.covariance.closed_form import closed_form, closed_form_matrix
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance, derived, measured
from mimetic.covariance.filters import filter_covariance
from mimetic.covariance.gradients import Gram, gradient_grams
from mimetic.covariance.harvest import Harvest, Harvested, averaged
from mimetic.covariance.heads import linear_head, output_basis
from mimetic.covariance.measure import measure
from mimetic.covariance.needs import harvest_key, harvests_needed, kinds_needed
from mimetic.covariance.network import Network, TrainingImages, trained_network, training_images
from mimetic.covariance.nfm import entry_centered_nfm, nfm, nfm_per_group
from mimetic.covariance.patches import patch_covariance, whitening_filters
from mimetic.covariance.prospect import prospect
from mimetic.covariance.scale import fans, filter_trace, repeats, scaled
from mimetic.covariance.shrinkage import shrunk, spiked
from mimetic.covariance.sources import NO_HARVESTS, Harvests, source
from mimetic.covariance.store import load_harvest, save_harvest
from mimetic.covariance.transfer import resized

__all__ = [
    "NO_HARVESTS",
    "Covariance",
    "Gram",
    "Harvest",
    "Harvested",
    "Harvests",
    "Network",
    "PatchGeometry",
    "Pending",
    "Provenance",
    "TrainingImages",
    "agop",
    "agop_per_group",
    "averaged",
    "bures_wasserstein",
    "carried",
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
    "harvest_key",
    "harvests_needed",
    "kinds_needed",
    "linear_head",
    "load_harvest",
    "measure",
    "measured",
    "mixed",
    "nfm",
    "nfm_per_group",
    "output_basis",
    "patch_covariance",
    "powered",
    "prospect",
    "repeats",
    "resized",
    "save_harvest",
    "scaled",
    "shrunk",
    "source",
    "spiked",
    "trained_network",
    "training_images",
    "truncated",
    "whitening_filters",
]
