"""Carrying a harvest to another network: which layers, what becomes of them, the notes, the refusals."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimetic.covariance.carry import PendingCovariance, transfer_covariance
from mimetic.covariance.config import CovarianceFile, Filters, Nfm, Transferred
from mimetic.covariance.covariance import Covariance, PatchGeometry, Provenance
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.covariance.transfer import interpolation, symmetrized
from mimetic.errors import UserError
from mimetic.graph.site import Geometry, Parameter, Site

STAGE = {"from": {"stage": "small"}}


def geometry(kind: str, width: int, side: int, channels: int | None = None) -> Geometry:
    """Return the geometry of a layer of a kind."""
    if kind == "linear":
        return Geometry(width if channels is None else channels, width)
    kernel = (1, 1) if kind == "pointwise_conv" else (side, side)
    groups = width if kind == "depthwise_conv" else 1
    return Geometry(width if channels is None else channels, width, kernel, (1, 1), groups)


def harvest(
    *sides: int, kind: str = "depthwise_conv", width: int = 6, statistic: str = "filters", **options: Any
) -> Harvest:
    """Return random covariances of layers `a`, `b`, … with kernels of given sides."""
    layers = []
    for index, side in enumerate(sides):
        shape = geometry(kind, width, side, **options)
        channels = 1 if statistic == "filters" else shape.patch_channels
        patch = PatchGeometry(channels, shape.kernel_size)
        stream = torch.Generator().manual_seed(index)
        factor = torch.randn(4, patch.size, generator=stream, dtype=torch.float64) * (1 + index)
        cov = Covariance(factor, patch, Provenance(f"{statistic} of layer", notes=("measured",)))
        layers.append(Harvested("abcdefgh"[index], kind, 0.0, shape, cov))
    return Harvest("stage small", statistic, tuple(layers), statistic == "filters")


def blank(found: Harvest) -> Harvest:
    """Return the same harvest before it was measured."""
    layers = tuple(Harvested(h.layer, h.kind, h.depth, h.geometry) for h in found.layers)
    return Harvest(found.origin, found.statistic, layers, found.spatial)


def site(kind: str = "depthwise_conv", side: int = 5, depth: float = 0.0, **options: Any) -> Site:
    """Return the layer `blocks.0` of our network."""
    shape = geometry(kind, options.pop("width", 8), side, **options)
    return Site(
        "blocks.0", kind, ("Layer",), shape, (Parameter("blocks.0.weight", "weight", (), "float32"),), depth
    )


def filters(**options: Any) -> Filters:
    """Return a `filters` section."""
    return Filters.model_validate({**STAGE, **options})


def bigger(side: int, source: int, *, align_corners: bool = False) -> torch.Tensor:
    """Return R ⊗ R of the resize."""
    one = interpolation(side, source, align_corners=align_corners)
    return torch.kron(one, one)


@pytest.mark.parametrize(
    ("depth", "shares", "place"),
    [
        (0.0, (1.0, 0.0, 0.0), "depth 0.00 at a of stage small"),
        (0.25, (0.5, 0.5, 0.0), "depth 0.25 between a and b of stage small"),
        (0.5, (0.0, 1.0, 0.0), "depth 0.50 at b of stage small"),
        (0.9, (0.0, 0.2, 0.8), "depth 0.90 between b and c of stage small"),
        (1.0, (0.0, 0.0, 1.0), "depth 1.00 at c of stage small"),
    ],
)
def test_depth_interpolates(depth: float, shares: tuple[float, ...], place: str) -> None:
    """Linearly between the two neighbors, by the layers' order among those of the kind."""
    source = harvest(5, 5, 5)
    found = transfer_covariance(filters(), source, site(depth=depth))
    dense = sum(share * h.covariance.dense() for share, h in zip(shares, source.layers, strict=True))
    torch.testing.assert_close(found.dense(), dense)
    assert found.provenance.notes == ("measured", place)
    assert found.provenance.source == "filters of stage small"


@pytest.mark.parametrize(("depth", "name"), [(0.2, "a"), (0.3, "b"), (0.7, "b"), (0.8, "c"), (1.0, "c")])
def test_nearest_takes_one_layer(depth: float, name: str) -> None:
    """Whole, without a mixture."""
    source = harvest(5, 5, 5)
    found = transfer_covariance(filters(depth_matching="nearest"), source, site(depth=depth))
    assert torch.equal(source.layer(name).covariance.factor_RD, found.factor_RD)
    assert found.provenance.notes[-1] == f"depth {depth:.2f} at {name} of stage small"


def test_other_kinds_do_not_count() -> None:
    """Candidates are the layers of our kind, or of the kind asked for."""
    spatial, mixing = harvest(3, 3), harvest(3, kind="conv", statistic="filters")
    both = Harvest("stage small", "filters", (*mixing.layers, *spatial.layers), spatial=True)
    plain = transfer_covariance(filters(), both, site(side=3))
    other = transfer_covariance(filters(kind="conv"), both, site(side=3))
    assert torch.equal(spatial.layers[0].covariance.factor_RD, plain.factor_RD)
    assert torch.equal(mixing.layers[0].covariance.factor_RD, other.factor_RD)


@pytest.mark.parametrize("align_corners", [False, True])
def test_kernels_are_resized(align_corners: bool) -> None:
    """(R⊗R)Σ(R⊗R)ᵀ, then the energy of a filter is kept, and the note says so."""
    source = harvest(5)
    spec = filters(align_corners=align_corners)
    found = transfer_covariance(spec, source, site(side=9))
    matrix = bigger(9, 5, align_corners=align_corners)
    before = source.layers[0].covariance
    dense = matrix @ before.dense() @ matrix.T
    torch.testing.assert_close(found.dense(), dense * before.trace / dense.trace())
    corners = " by corners" if align_corners else ""
    assert found.provenance.notes[1:] == (
        "depth 0.00 at a of stage small",
        f"resized 5×5→9×9{corners}, trace kept",
    )


def test_channels_are_repeated_where_asked() -> None:
    """`channels: tile` repeats them in turn and keeps the energy; the default keeps their mean alone."""
    source = harvest(3, kind="conv", width=4, statistic="nfm")
    ours = site("conv", 3, width=8)
    tiled = transfer_covariance(Nfm.model_validate({**STAGE, "channels": "tile"}), source, ours)
    assert tiled.patch == PatchGeometry(8, (3, 3))
    before = source.layers[0].covariance
    torch.testing.assert_close(tiled.dense()[:36, :36], 0.5 * before.dense())
    assert math.isclose(tiled.trace, before.trace)
    assert tiled.provenance.notes[-1] == "4 input channels tiled to 8"
    marginal = transfer_covariance(Nfm.model_validate(STAGE), source, ours)
    assert marginal.patch == PatchGeometry(1, (3, 3))


def test_neighbors_of_other_kernels_are_brought_together() -> None:
    """Each is resized to our kernel first, and keeps its own energy in the mixture."""
    source = harvest(3, 7)
    found = transfer_covariance(filters(), source, site(side=5, depth=0.25))
    dense = []
    for h in source.layers:
        matrix = bigger(5, h.geometry.kernel_size[0])
        one = matrix @ h.covariance.dense() @ matrix.T
        dense.append(one * h.covariance.trace / one.trace())
    torch.testing.assert_close(found.dense(), 0.75 * dense[0] + 0.25 * dense[1])
    assert found.provenance.notes[2:] == ("resized 3×3→5×5, trace kept", "resized 7×7→5×5, trace kept")


@given(
    sides=st.lists(st.integers(2, 6), min_size=1, max_size=5),
    side=st.integers(2, 7),
    depth=st.floats(0.0, 1.0),
    keep=st.sampled_from(["trace", "pixel", "nothing"]),
    align_corners=st.booleans(),
    between=st.sampled_from(["interpolate", "nearest"]),
)
def test_carried_covariances_are_psd_and_follow_the_trace_rule(  # noqa: PLR0917 - one draw each
    sides: list[int], side: int, depth: float, keep: str, align_corners: bool, between: str
) -> None:
    """Whatever the geometries: the trace is the mixture of the neighbors', as `keep` says."""
    source = harvest(*sides)
    found = transfer_covariance(
        filters(preserve=keep, align_corners=align_corners, depth_matching=between),
        source,
        site(side=side, depth=depth),
    )
    dense = found.dense()
    place = depth * (len(sides) - 1)
    lower = min(math.floor(place + 1e-9), len(sides) - 1)
    share = max(0.0, place - lower)
    if between == "nearest":
        lower, share = lower + round(share), 0.0
    kept = [h.covariance.trace for h in source.layers]
    if keep == "pixel":
        kept = [trace * side**2 / own**2 for trace, own in zip(kept, sides, strict=True)]
    expected = (1 - share) * kept[lower] + (share * kept[lower + 1] if share > 0 else 0.0)
    assert float(torch.linalg.eigvalsh(dense).min()) >= -1e-10 * found.trace
    assert found.patch == PatchGeometry(1, (side, side))
    if keep != "nothing":
        assert math.isclose(found.trace, expected, rel_tol=1e-9)


@given(depth=st.floats(0.0, 1.0), side=st.integers(2, 6), layers=st.integers(1, 4))
def test_what_is_pending_says_the_same(depth: float, side: int, layers: int) -> None:
    """Before the network is trained, plans show the same notes and the same patch."""
    source = harvest(*[3, 5, 5, 4][:layers])
    ours = site(side=side, depth=depth)
    found, pending = (
        transfer_covariance(filters(), source, ours),
        transfer_covariance(filters(), blank(source), ours),
    )
    assert isinstance(pending, PendingCovariance)
    assert found.provenance.notes[1:] == pending.notes
    assert (found.patch, found.provenance.source) == (pending.patch, pending.source)


def test_whole_filters_stay_whole_where_channels_agree() -> None:
    """An NFM over four channels starts a layer of four channels as it is."""
    source = harvest(3, kind="conv", statistic="nfm", channels=4)
    found = transfer_covariance(Nfm.model_validate(STAGE), source, site("conv", 3, channels=4))
    assert torch.equal(source.layers[0].covariance.factor_RD, found.factor_RD)
    assert found.provenance.notes[1:] == ("depth 0.00 at a of stage small",)


def test_other_channels_leave_the_mean_spatial_covariance() -> None:
    """The mean of the diagonal blocks, which every input channel then draws from; the note says so."""
    source = harvest(3, kind="conv", statistic="nfm", channels=4)
    found = transfer_covariance(Nfm.model_validate(STAGE), source, site("conv", 3, channels=7))
    blocks = source.layers[0].covariance.dense().view(4, 9, 4, 9)
    torch.testing.assert_close(found.dense(), sum(blocks[c, :, c] for c in range(4)) / 4)
    assert found.provenance.notes[-1] == "4 input channels to their mean spatial covariance"


def test_neighbors_agree_on_their_channels() -> None:
    """Where one neighbor must become spatial, so does the other."""
    first = harvest(3, kind="conv", statistic="nfm", channels=4).layers[0]
    second = harvest(3, kind="conv", statistic="nfm", channels=5).layers[0]
    source = Harvest("stage small", "nfm", (first, second))
    found = transfer_covariance(Nfm.model_validate(STAGE), source, site("conv", 3, channels=5, depth=0.5))
    assert found.patch == PatchGeometry(1, (3, 3))
    assert found.provenance.notes[-2:] == (
        "4 input channels to their mean spatial covariance",
        "5 input channels to their mean spatial covariance",
    )


@pytest.mark.parametrize(
    ("before", "after", "note"), [(3, 1, "RGB summed to grey"), (1, 3, "grey spread over RGB")]
)
def test_colours_of_first_layers(before: int, after: int, note: str) -> None:
    """A grey filter is the sum of the colours', a colour filter a third of the grey one in each."""
    source = harvest(3, kind="conv", statistic="nfm", channels=before)
    found = transfer_covariance(Nfm.model_validate(STAGE), source, site("conv", 3, channels=after))
    weight = 1.0 if after == 1 else 1.0 / 3.0
    matrix = torch.kron(torch.full((after, before), weight), torch.eye(9)).double()
    torch.testing.assert_close(found.dense(), matrix @ source.layers[0].covariance.dense() @ matrix.T)
    assert found.provenance.notes[-1] == note


def test_layers_by_name_and_by_map() -> None:
    """A name wins over depth; a map says which of its layers stands for ours, whatever the kind."""
    source = harvest(3, 3)
    renamed = Harvest(
        "stage small",
        "filters",
        (
            Harvested("blocks.0", "conv", 0.0, source.layers[1].geometry, source.layers[1].covariance),
            source.layers[0],
        ),
    )
    named = transfer_covariance(filters(layers="name"), renamed, site(side=3))
    mapped = transfer_covariance(filters(layers={"blocks.0": "b"}), source, site(side=3))
    assert torch.equal(source.layer("b").covariance.factor_RD, named.factor_RD)
    assert torch.equal(named.factor_RD, mapped.factor_RD)
    assert named.provenance.notes[-1] == "from the same layer of stage small"
    assert mapped.provenance.notes[-1] == "from b of stage small"


def test_files_are_refined_when_they_are_used() -> None:
    """A file's covariance is shrunk and cut to a rank here, before it is resized."""
    source = harvest(3)
    spec = CovarianceFile(path="x", shrink=0.25, rank=2)
    found = transfer_covariance(spec, source, site(side=3))
    before = source.layers[0].covariance
    values, vectors = torch.linalg.eigh(
        0.75 * before.dense() + 0.25 * before.trace / 9 * torch.eye(9, dtype=torch.float64)
    )
    expected = vectors[:, -2:] @ torch.diag(values[-2:]) @ vectors[:, -2:].T
    torch.testing.assert_close(found.dense(), expected)
    assert found.provenance.notes == (
        "measured",
        "shrunk 0.25 toward its mean variance",
        "rank 2",
        "depth 0.00 at a of stage small",
    )


def test_digests_tell_transfers_apart() -> None:
    """What enters the plan's hash depends on the layer, the transfer and the factor."""
    source = harvest(3, 3, 5)
    digests = {
        transfer_covariance(spec, source, ours).provenance.digest
        for spec in (filters(), filters(preserve="nothing"), filters(depth_matching="nearest"))
        for ours in (site(side=5), site(side=5, depth=0.3), site(side=7, depth=0.3))
    }
    assert len(digests) == 8, "at depth 0 there is nothing between two layers, so `between` does not matter"


WRONG: dict[str, tuple[Transferred, Harvest, Site, str]] = {
    "no such kind": (
        filters(),
        harvest(3),
        site("conv", 3, channels=4),
        "MIM-V134",
    ),
    "no such name": (
        filters(layers="name"),
        harvest(3, 3),
        site(),
        "MIM-V133",
    ),
    "a close name": (
        filters(layers={"blocks.0": "aa"}),
        harvest(3, 3),
        site(),
        "MIM-V133",
    ),
    "not in the map": (
        filters(layers={"blocks.1": "a"}),
        harvest(3),
        site(),
        "MIM-V132",
    ),
    "another kind by map": (
        filters(layers={"blocks.0": "a"}, kind="conv"),
        harvest(3),
        site(),
        "MIM-V131",
    ),
    "another number of sides": (
        Nfm.model_validate({**STAGE, "kind": "linear"}),
        harvest(0, kind="linear", statistic="nfm"),
        site("conv", 3, channels=4),
        "MIM-V122",
    ),
    "another width of linear layers": (
        Nfm.model_validate(STAGE),
        harvest(0, kind="linear", statistic="nfm"),
        site("linear", 0, width=9),
        "MIM-V123",
    ),
    "a spatial covariance for a single pixel": (
        filters(kind="depthwise_conv"),
        harvest(3),
        site("pointwise_conv", 1),
        "MIM-V123",
    ),
    "a layer without filters": (
        filters(),
        harvest(3),
        Site("blocks.0", "norm", ("BatchNorm2d",), None, ()),
        "MIM-V121",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("pending", [False, True])
def test_impossible_transfers_are_refused(name: str, pending: bool) -> None:
    """The error names our layer, also before anything is trained."""
    spec, source, ours, code = WRONG[name]
    with pytest.raises(UserError, match=ours.layer, check=lambda error: error.code == code):
        transfer_covariance(spec, blank(source) if pending else source, ours)


def test_files_hold_no_samples() -> None:
    """`auto` cannot be estimated from a file."""
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V124"):
        transfer_covariance(CovarianceFile(path="x", shrink="auto"), harvest(5), site())


def test_a_part_of_the_depth_is_used() -> None:
    """With `depths`, our last layer takes the layer at the second fraction, and the note says so."""
    found = harvest(5, 5, 5)
    for depth, name in ((0.0, "c"), (1.0, "b")):
        spec = filters(depths=[1.0, 0.5])
        cov = transfer_covariance(spec, found, site(depth=depth))
        assert isinstance(cov, Covariance)
        expected = found.layer(name)
        assert expected is not None
        assert expected.covariance is not None
        assert torch.equal(cov.factor_RD, expected.covariance.factor_RD)
        assert any(f"at {name} of stage small" in note for note in cov.provenance.notes)


def test_depth_is_smoothed_by_a_gaussian() -> None:
    """Weights are those of exp(−j²/2) over the layers, and sum to 1."""
    found = harvest(5, 5, 5)
    cov = transfer_covariance(filters(smooth=1.0), found, site(depth=0.5))
    assert isinstance(cov, Covariance)
    side = math.exp(-0.5)
    weights = [w / (1.0 + 2.0 * side) for w in (side, 1.0, side)]
    covariances = [h.covariance for h in found.layers if h.covariance is not None]
    expected = sum(w * c.dense() for w, c in zip(weights, covariances, strict=True))
    torch.testing.assert_close(cov.dense(), expected)
    assert "depth 0.50 averaged from a to c of stage small" in cov.provenance.notes


def test_depth_options_need_layers_by_depth() -> None:
    """`smooth` and `depths` beside `layers: name` would do nothing and are refused."""
    for options in ({"smooth": 1.0}, {"depths": [0.0, 0.5]}):
        with pytest.raises(ValueError, match="layers"):
            filters(layers="name", **options)


@pytest.mark.parametrize("sides", [(3, 3), (5, 5), (3, 5), (7,), (3, 3, 3)])
def test_symmetrized_is_the_mean_over_the_group(sides: tuple[int, ...]) -> None:
    """A symmetrized covariance is invariant and idempotent, its trace and invariant part as before."""
    stream = torch.Generator().manual_seed(0)
    patch = PatchGeometry(2, sides)
    cov = Covariance(torch.randn(4, patch.size, generator=stream, dtype=torch.float64), patch)
    found = symmetrized(cov)
    dense = found.dense().view(2, *sides, 2, *sides)
    count = len(sides)
    for axis in range(count):
        torch.testing.assert_close(dense.flip(1 + axis).flip(2 + count + axis), dense)
    if sides in {(3, 3), (5, 5)}:
        torch.testing.assert_close(dense.transpose(1, 2).transpose(4, 5), dense)
    assert found.trace == pytest.approx(cov.trace)
    torch.testing.assert_close(symmetrized(found).dense(), found.dense())
    constant = torch.ones(patch.size, dtype=torch.float64)
    assert float(constant @ found.dense() @ constant) == pytest.approx(
        float(constant @ cov.dense() @ constant)
    )
