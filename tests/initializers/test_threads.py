"""The same bits with one thread and with many, in processes of their own."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mimetic.threads import one_thread, side_by_side

SCRIPT = """
import hashlib
import sys
import torch
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.context import Context
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.scale import scaled
from mimetic.covariance.algebra import powered
from mimetic.covariance.weights import filter_covariance
from mimetic.covariance.weights import nfm
from mimetic.covariance.shrinkage import intensity, shrunk
from mimetic.covariance.transfer import marginal, resized
from mimetic.covariance.config import Trace
from mimetic.graph.site import Geometry, Parameter, Site
from mimetic.initializers.gaussian import draw_filters
from mimetic.initializers.resolved import Streams
from mimetic.plans.choose import resolve_init
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
alpha = intensity(weight.flatten(2).flatten(0, 1))
for found in (shrunk(filter_covariance(weight), alpha), nfm(weight)):
    digest.update(found.factor_RD.numpy().tobytes())
for side in (5, 7, 9, 11):
    digest.update(closed_form((side, side), 0.7).factor_RD.numpy().tobytes())
for name, shape in (("orthogonal", (256, 576)), ("normal", (300, 300)), ("trunc_normal", (300, 300))):
    site = Site("l", "linear", (), None, (Parameter("l.weight", "weight", shape, "float32"),))
    rule = Rule.model_validate({"id": "a", "match": ".*", "init": name})
    drawn = resolve_init(rule, site, Context()).sample(Streams(0, "l", {"weight": "weight"}), None)
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


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Let torch compute in three threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_work_side_by_side_may_ask_for_one_thread() -> None:
    """Decompositions inside such work, as a plug-in may have, do not wait for each other for ever."""

    def work(index: int) -> tuple[int, int]:
        with one_thread():
            return index, sum(side_by_side(lambda item: item * torch.get_num_threads(), range(4)))

    results: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: results.extend(side_by_side(work, range(8))), daemon=True)
    thread.start()
    thread.join(timeout=30.0)

    assert not thread.is_alive()
    assert results == [(index, 6) for index in range(8)]


@pytest.mark.usefixtures("three_threads")
def test_threads_are_restored_after_a_failure() -> None:
    """Work that fails, or a progress callback that raises, leaves torch's threads as they were."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda item: 1 // item, range(8))
    with pytest.raises(KeyboardInterrupt):
        side_by_side(lambda item: item, range(8), on_result=stop)
    assert torch.get_num_threads() == 3
