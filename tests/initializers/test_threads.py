"""The same bits with one thread and with many, in processes of their own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import hashlib
import sys
import torch
import mimetic.recipe
from mimetic.covariance import Covariance, PatchGeometry, closed_form, scaled
from mimetic.covariance.algebra import powered
from mimetic.covariance.filters import filter_covariance
from mimetic.covariance.nfm import entry_centered_nfm, nfm
from mimetic.covariance.transfer import marginal, resized
from mimetic.recipe.scale import Trace
from mimetic.graph.site import Geometry, Parameter, Site
from mimetic.initializers import draw, draw_filters
from mimetic.recipe.rule import Rule
from mimetic.streams import generator

torch.set_num_threads(int(sys.argv[1]))
digest = hashlib.sha256()
factor = torch.randn(256, 1152, generator=generator("factor"), dtype=torch.float64)
cov = Covariance(factor, PatchGeometry(128, (3, 3)))
digest.update(draw_filters(cov, Geometry(128, 256, (3, 3)), generator("draw")).numpy().tobytes())
scaled_cov = scaled(cov, Trace(trace=3.0), Geometry(128, 256, (3, 3)))
for found in (scaled_cov, powered(cov, 0.5), resized(cov, (5, 5), keep="trace"), marginal(cov)):
    digest.update(found.factor_RD.numpy().tobytes())
weight = torch.randn(512, 64, 3, 3, generator=generator("weight"))
for found in (filter_covariance(weight, shrinkage="auto"), nfm(weight), entry_centered_nfm(weight[:32])):
    digest.update(found.factor_RD.numpy().tobytes())
for side in (5, 7, 9, 11):
    digest.update(closed_form((side, side), 0.7).factor_RD.numpy().tobytes())
for name, shape in (("orthogonal", (256, 576)), ("normal", (300, 300)), ("trunc_normal", (300, 300))):
    site = Site("l", "linear", (), None, (Parameter("l.weight", "weight", shape, "float32"),))
    rule = Rule.model_validate({"id": "a", "match": ".*", "init": name})
    drawn = draw(rule, site, ("weight",)).sample(lambda local, slot: generator(0, local, slot), None)
    digest.update(drawn["weight"].numpy().tobytes())
print(torch.get_num_threads(), digest.hexdigest())
"""


def run(threads: int) -> tuple[str, str]:
    """Return the number of threads and the digest of the draws of a fresh process."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(root)}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(threads)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found, digest = result.stdout.split()
    return found, digest


@pytest.mark.slow
def test_draws_do_not_depend_on_the_number_of_threads() -> None:
    """Products, roots and orthogonal matrices have the same bits with one thread and with three."""
    threads, digests = zip(*(run(count) for count in (1, 3)), strict=True)
    assert threads == ("1", "3")
    assert len(set(digests)) == 1
    assert len(digests[0]) == hashlib.sha256().digest_size * 2
