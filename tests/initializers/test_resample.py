"""Resampling whole networks: permuted copies are undone, norms folded exactly, widths change."""

import copy

import pytest
import torch
from torch import nn

from mimetic.covariance.covariance import Covariance, PatchGeometry
from mimetic.errors import UserError
from mimetic.graph.names import canonical_modules
from mimetic.initializers.config import Rainbow
from mimetic.initializers.resample import Pair, Resampled, dense_geometry, orthogonal_rows, resample
from mimetic.streams import generator

IMAGES = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def spec(**options: object) -> Rainbow:
    """Return a section; what it says of the network is not looked at."""
    return Rainbow.model_validate({"from": {"stage": "here"}, **options})


def net(width: int, *, norm: str = "none", seed: int = 0, flat: bool = False) -> nn.Sequential:
    """Return a network of two convolutions and a classifier, its norms with statistics of their own."""
    torch.manual_seed(seed)

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=norm != "after")]
        if norm == "before":
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
        if norm == "after":
            layers.append(nn.BatchNorm2d(outputs, affine=False))
        return layers

    head = [] if flat else [nn.AdaptiveAvgPool2d(1)]
    last = nn.Linear(2 * width * (4 if flat else 1), 5)
    model = nn.Sequential(*block(3, width), *block(width, 2 * width), *head, nn.Flatten(), last)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                module.weight.data[0] *= -1.0
                nn.init.normal_(module.bias)
    return model.eval()


def layers(model: nn.Module) -> list[str]:
    """Return every layer that can be claimed."""
    return [name for name, module in canonical_modules(model).items() if module._parameters]


def filled(new: nn.Module, trained: nn.Module, **options: object) -> tuple[Resampled, ...]:
    """Resample every layer of a network from another."""
    pair = Pair(trained=trained, new=new, images_NCHW=IMAGES, origin="the trained one")
    return resample(pair, spec(**options), layers(new), lambda name, slot: generator(0, name, slot))


def outputs(model: nn.Module) -> torch.Tensor:
    """Return what a network says of the images."""
    with torch.no_grad():
        return model.eval()(IMAGES)


def likeness(one: nn.Module, other: nn.Module) -> float:
    """Return the correlation of two networks' outputs, classes centered."""
    a, b = (outputs(model) - outputs(model).mean(0) for model in (one, other))
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_a_permuted_copy_gets_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the drawn filters are the trained ones in another order, alignment undoes the order exactly."""
    trained, new = net(6), net(6, seed=1)
    orders = iter((torch.randperm(6), torch.randperm(12)))
    monkeypatch.setattr(
        "mimetic.covariance.covariance.Covariance.sample",
        lambda cov, count, _stream: (cov.factor_RD * count**0.5)[next(orders)],
    )
    done = filled(new, trained)

    assert torch.allclose(outputs(trained), outputs(new), atol=1e-5)
    assert [d.explained for d in done[1:]] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert [str(d) for d in done] == [
        "resampled",
        "resampled, 100.0% of the features at its input explained",
        "copied, 100.0% of the features at its input explained",
    ]


@pytest.mark.parametrize("norm", ["before", "after"])
def test_norms_are_part_of_what_is_drawn(monkeypatch: pytest.MonkeyPatch, norm: str) -> None:
    """Behind the same filters, statistics measured anew give the same function where they are folded in.

    A norm behind the ReLU keeps what it does to the features: its statistics are those of the images.
    """
    trained, new = net(4, norm=norm), net(4, norm=norm, seed=1)
    if norm == "after":
        filled(trained, copy.deepcopy(trained), rows="orthogonal")  # statistics of these images
    monkeypatch.setattr(
        "mimetic.covariance.covariance.Covariance.sample",
        lambda cov, count, _stream: cov.factor_RD * count**0.5,
    )
    filled(new, trained)

    assert torch.allclose(outputs(trained), outputs(new), atol=2e-4)
    stds = [m.running_var.sqrt() for m in new if isinstance(m, nn.BatchNorm2d)]
    assert not torch.allclose(torch.ones(4), stds[0], atol=1e-3)


@pytest.mark.parametrize("norm", ["none", "before", "after"])
@pytest.mark.parametrize("flat", [False, True])
def test_wide_networks_of_gaussian_filters_compute_the_same(norm: str, *, flat: bool) -> None:
    """Filters that are Gaussian, as a random network's, make one function at width; in random bases not."""
    trained = net(64, norm=norm, flat=flat)
    wide, lost = net(96, norm=norm, flat=flat, seed=1), net(96, norm=norm, flat=flat, seed=1)
    filled(wide, trained)
    filled(lost, trained, align=False)

    assert likeness(trained, wide) > 0.6
    assert likeness(trained, wide) > likeness(trained, lost) + 0.25


def test_narrower_networks_are_possible() -> None:
    """Fewer filters than the trained network has."""
    trained, new = net(12), net(4, seed=1)
    done = filled(new, trained)

    assert bool(torch.isfinite(outputs(new)).all())
    assert [d.copied for d in done] == [False, False, True]


def test_filters_have_the_covariance_they_are_drawn_from() -> None:
    """The first layer has the trained one's second moment: nearly with Gaussian rows, or exactly."""
    trained = net(4)
    expected = trained[0].weight.detach().double().flatten(1)
    expected = expected.T @ expected / 4
    for rows, error in (("gaussian", 0.2), ("orthogonal", 1e-6)):
        new = net(400, seed=1)
        filled(new, trained, rows=rows)
        found = new[0].weight.detach().double().flatten(1)
        found = found.T @ found / 400
        assert float((found - expected).norm()) < error * float(expected.norm())


def test_orthogonal_rows_keep_the_energy_where_they_are_few() -> None:
    """√max(n, r): the mean energy is tr Σ for fewer rows than the rank, too."""
    factor = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cov = Covariance(factor, PatchGeometry(8))
    drawn = [orthogonal_rows(cov, 3, generator(seed, "w", "x")).square().sum() / 3 for seed in range(400)]

    assert float(torch.stack(drawn).mean()) == pytest.approx(cov.trace, rel=0.05)


def test_shrinkage_and_rank_leave_few_directions() -> None:
    """Both are applied to the trained covariance, and noted."""
    trained = net(16)
    few = net(16, seed=1)
    done = filled(few, trained, rank=2)
    assert torch.linalg.matrix_rank(few[0].weight.detach().flatten(1), rtol=1e-5) == 2
    assert "rank 2" in str(done[0])
    assert "noise of variance" in str(filled(net(16, seed=1), trained, shrink="spiked")[0])


def test_values_depend_on_seed_and_names_alone() -> None:
    """Earlier values, and the number of threads, change no bit."""
    trained, one, other = net(4, norm="before"), net(4, norm="before"), net(4, norm="before", seed=3)
    filled(one, trained)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    filled(other, trained)
    torch.set_num_threads(threads)

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def test_layers_left_out_keep_what_they_hold() -> None:
    """The alignment goes on behind them."""
    trained, new = net(4), net(4, seed=1)
    before = new[0].weight.clone()
    pair = Pair(trained=trained, new=new, images_NCHW=IMAGES, origin="t")
    done = resample(pair, spec(), ["2", "6"], lambda name, slot: generator(0, name, slot))

    assert torch.equal(before, new[0].weight)
    assert [d.layer for d in done] == ["2", "6"]
    assert done[0].explained < 1.0


def test_networks_of_other_layers_are_refused() -> None:
    """Order, repeated calls and pixels per channel are named with their layer."""
    twice = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 5))
    twice[1] = twice[0]
    with pytest.raises(UserError, match=r"the trained one: `[01]` is called more than once"):
        filled(copy.deepcopy(twice), twice)
    with pytest.raises(UserError, match="the trained one: `1` is not called at the same place"):
        filled(net(4, norm="before"), net(4))
    smaller = net(4, flat=True)
    smaller[-1] = nn.Linear(8, 5)
    smaller.insert(4, nn.AdaptiveAvgPool2d(1))
    deeper = nn.Sequential(*list(net(4, flat=True))[:4], nn.Identity(), nn.Flatten(), nn.Linear(32, 5))
    with pytest.raises(
        UserError, match=r"`6` sees 8 features behind 8 channels of `2` in the trained one, and 32"
    ):
        filled(deeper, smaller)


def test_kinds_of_layers() -> None:
    """Convolutions and linear layers have filters; norms and activations have none."""
    assert dense_geometry(nn.Conv2d(3, 4, 3)) is not None
    assert dense_geometry(nn.Linear(3, 4)) is not None
    assert dense_geometry(nn.BatchNorm2d(3)) is None
