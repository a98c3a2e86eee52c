"""Formulas fitted to measured covariances: exact where the formula holds, finite elsewhere, in the plan."""

import math
from typing import Literal

import pytest
import torch
import yaml

import mimetic
from mimetic.config.registry import registered
from mimetic.covariance.atlas import find_entry
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.components import covariance_of
from mimetic.covariance.config import AtlasEntry, ClosedForm, ClosedFormFit, Fit, V1Fit
from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.covariance.formula import fit_layers, fit_table, fitted, width_over_depth
from mimetic.covariance.receptive_fields import v1_matrix
from mimetic.covariance.store import load_harvest
from mimetic.errors import UserError
from mimetic.graph.sites import find_sites

CONVMIXER = "convmixer-64-8-k7-p2-cifar10"


@pytest.mark.parametrize("side", range(3, 10))
@pytest.mark.parametrize("width", [0.15, 0.8, 3.0])
def test_the_closed_form_is_found(side: int, width: float) -> None:
    """Width and scale come back, whatever the kernel."""
    found = fitted(ClosedFormFit(), closed_form((side, side), width).scale_by(1.3))
    assert found.parameters["width"] == pytest.approx(width, rel=1e-3)
    assert found.scale == pytest.approx(1.69, rel=1e-3)
    assert found.explained == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("options", [{"padding": "zero"}, {"convention": "std"}, {"psd": "clip"}])
@pytest.mark.parametrize("kernel", [(5, 5), (3, 7), (9,)])
def test_options_are_those_of_the_closed_form(options: dict[str, str], kernel: tuple[int, ...]) -> None:
    """The fitted covariance is the one that the section gives at the fitted width."""
    section = ClosedForm.model_validate(options)
    cov = closed_form(kernel, 0.9, padding=section.padding, convention=section.convention, psd=section.psd)
    found = fitted(ClosedFormFit.model_validate(options), cov)
    assert found.parameters["width"] == pytest.approx(0.9, rel=1e-3)
    torch.testing.assert_close(found.covariance.dense(), cov.dense(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("keep", ["nothing", "trace", "pixel"])
@pytest.mark.parametrize(("theirs", "ours"), [((5, 5), (7, 7)), ((9, 9), (7, 7)), ((3, 5), (5, 3))])
def test_a_formula_has_its_width_at_another_kernel(
    theirs: tuple[int, ...], ours: tuple[int, ...], keep: Literal["nothing", "trace", "pixel"]
) -> None:
    """Enlarging filters by interpolation would make narrow ones wide."""
    cov, wanted = closed_form(theirs, 0.4), closed_form(ours, 0.4)
    found = fitted(ClosedFormFit(), cov, kernel_size=ours, keep=keep).covariance
    pixels = math.prod(ours) / math.prod(theirs)
    trace = {"nothing": wanted.trace, "trace": cov.trace, "pixel": pixels * cov.trace}[keep]
    assert found.patch == PatchGeometry(1, ours)
    torch.testing.assert_close(found.dense(), wanted.dense() * (trace / wanted.trace), rtol=1e-2, atol=1e-4)


def test_random_receptive_fields_are_found() -> None:
    """Both parameters of `v1` come back."""
    root_DD = torch.linalg.cholesky(v1_matrix((7, 7), size=1.7, smoothness=0.9)).T
    found = fitted(V1Fit(), Covariance(root_DD, PatchGeometry(1, (7, 7))))
    assert found.parameters == pytest.approx({"size": 1.7, "smoothness": 0.9}, rel=2e-3)


@pytest.mark.parametrize("name", registered("fit"))
def test_any_covariance_has_a_fit(name: str) -> None:
    """That of independent weights, of one filter and of several channels give finite values."""
    spec = registered("fit")[name]()
    assert isinstance(spec, Fit)
    stream = torch.Generator().manual_seed(0)
    for channels, rank in ((1, 25), (1, 1), (3, 4)):
        factor = (
            torch.eye(25).double()
            if rank == 25
            else torch.randn(rank, 25 * channels, dtype=torch.float64, generator=stream)
        )
        found = fitted(spec, Covariance(factor, PatchGeometry(channels, (5, 5))))
        assert found.covariance.patch == PatchGeometry(1, (5, 5))
        assert 0.0 <= found.explained <= 1.0
        assert math.isfinite(found.covariance.trace)
        assert all(low <= found.parameters[p] <= high for p, (low, high) in spec.ranges.items())


@pytest.mark.parametrize(("kernel", "size"), [((3, 3), 0.0), ((1, 1), 1.0), ((), 1.0)])
def test_nothing_to_fit_is_an_error(kernel: tuple[int, ...], size: float) -> None:
    """A covariance of zero and one over a single pixel have no width."""
    pixels = math.prod(kernel)
    cov = Covariance(size * torch.eye(pixels, dtype=torch.float64), PatchGeometry(1, kernel))
    with pytest.raises(UserError) as caught:
        fitted(ClosedFormFit(), cov)
    assert caught.value.code == "MIM-V125"


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_widths_over_depth(count: int) -> None:
    """A schedule comes back from its own widths where there are enough, and is never negative."""
    depths = [k / max(count - 1, 1) for k in range(count)]
    widths = [0.3 + 0.5 * d + 0.2 * d * d if count > 2 else 0.3 + 0.5 * d for d in depths]
    found = width_over_depth(depths, widths)
    assert [found.at(d) for d in depths] == pytest.approx(widths, rel=1e-6)
    falling = width_over_depth([0.0, 0.5, 1.0], [4.0, 0.1, 0.1])
    assert min(falling.at(k / 50) for k in range(51)) >= -1e-12


def plan_of(**options: object) -> mimetic.Plan:
    """Return the plan of two depthwise layers of another kernel and channel count."""
    covariance = {"type": "atlas", "name": CONVMIXER, **options}
    rule = {"id": "filters", "match": {"kind": "depthwise_conv"}, "covariance": covariance}
    layers = [torch.nn.Conv2d(16, 16, 5, groups=16, bias=False) for _ in range(2)]
    return mimetic.initialize(torch.nn.Sequential(*layers), {"recipe": 1, "init": [rule]})


def test_the_plan_has_width_and_share() -> None:
    """Each layer has a note; a plan without a fit is another plan."""
    plan = plan_of(fit="closed_form")
    notes = [entry.notes[-2 if "negative" in entry.notes[-1] else -1] for entry in plan.entries]
    assert all("closed_form of width" in note and "explained" in note for note in notes), notes
    assert plan.hash != plan_of().hash
    assert plan_of(fit="v1").hash not in {plan.hash, plan_of().hash}


def test_the_filters_are_those_of_the_fit() -> None:
    """At the teacher's own kernel and depth, the layers' fits are those that `show` prints."""
    harvest = load_harvest(find_entry(CONVMIXER).path)
    fits = fit_layers(ClosedFormFit(), harvest)
    assert [found.fit.parameters["width"] for found in fits] == sorted(
        found.fit.parameters["width"] for found in fits
    )
    section = AtlasEntry.model_validate({"name": CONVMIXER, "fit": "closed_form"})
    assert isinstance(section.fit, ClosedFormFit)


def test_the_printed_section_is_one_of_a_recipe() -> None:
    """Its widths are those of the schedule, and the options those of the fit."""
    harvest = load_harvest(find_entry(CONVMIXER).path)
    spec = ClosedFormFit(psd="clip")
    table = fit_table(spec, harvest)
    (note,) = table.notes
    section = ClosedForm.model_validate(yaml.safe_load(note.removeprefix("depthwise_conv: "))["covariance"])
    fits = fit_layers(spec, harvest)
    widths = [found.fit.parameters["width"] for found in fits]
    found = width_over_depth([layer.depth for layer in fits], widths)
    assert section.psd == "clip"
    assert [section.width.at(d / 4) for d in range(5)] == pytest.approx(
        [found.at(d / 4) for d in range(5)], abs=1e-3
    )


def test_a_single_pixel_takes_no_fit() -> None:
    """The error names the layer."""
    section = AtlasEntry.model_validate({"name": CONVMIXER, "kind": "depthwise_conv", "fit": "v1"})
    (site,) = find_sites(torch.nn.Sequential(torch.nn.Conv2d(8, 8, 1))).sites
    with pytest.raises(UserError, match=r"^0 ") as caught:
        covariance_of(section, site)
    assert caught.value.code == "MIM-V126"
