"""Optimizers against torch's plain ones, and what they leave alone."""

import pytest
import torch
from torch import nn

from mimetic.errors import RunError
from mimetic.train.config import Adam, AdamW, Optimizer, RmsProp, Sgd
from mimetic.train.optimizers import exempt_from_decay, make_optimizer, set_learning_rate

PLAIN = [
    (
        Sgd(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
    ),
    (Sgd(lr=0.1, momentum=0.0), torch.optim.SGD, {}),
    (
        Adam(lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.01),
        torch.optim.Adam,
        {"betas": (0.8, 0.9), "eps": 1e-6},
    ),
    (AdamW(lr=0.1, betas=(0.8, 0.9)), torch.optim.AdamW, {"betas": (0.8, 0.9)}),
    (RmsProp(lr=0.1, alpha=0.9, momentum=0.5), torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.5}),
]


def _trained(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> torch.Tensor:
    for number in range(1, 4):
        weight.grad = torch.linspace(-1.0, 1.0, 12).view(3, 4) * number
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize(("spec", "plain", "settings"), PLAIN, ids=lambda value: str(value)[:30])
def test_fused_equals_plain(
    spec: Optimizer, plain: type[torch.optim.Optimizer], settings: dict[str, object]
) -> None:
    """Three steps of ours equal three steps of torch's single-tensor form."""
    ours, theirs = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    reference = plain([theirs], lr=spec.lr, weight_decay=spec.weight_decay, foreach=False, **settings)
    torch.testing.assert_close(
        _trained(make_optimizer(spec, nn.ParameterList([ours])), ours), _trained(reference, theirs)
    )


def test_only_trained_parameters_are_handed_over() -> None:
    """A frozen parameter is in no group."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    groups = make_optimizer(AdamW(), model).param_groups
    expected = [id(model[0].bias), id(model[1].weight), id(model[1].bias)]
    assert expected == [id(parameter) for group in groups for parameter in group["params"]]


def test_decay_of_weights_spares_vectors() -> None:
    """`decay: weights` decays tensors of two or more dimensions only."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    groups = make_optimizer(AdamW(weight_decay=0.3, decay="weights"), model).param_groups
    found = [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups]
    assert found == [(0.3, [(3, 2)]), (0.0, [(3,), (3,), (3,)])]


def test_nothing_to_train_is_an_error() -> None:
    """A plan that freezes everything is told so."""
    with pytest.raises(RunError) as caught:
        make_optimizer(AdamW(), nn.Linear(1, 1).requires_grad_(False))
    assert caught.value.code == "MIM-T040"


def test_rate_is_set_in_every_group() -> None:
    """Groups with and without decay share the learning rate."""
    optimizer = make_optimizer(Sgd(decay="weights"), nn.Linear(2, 2))
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


class Table(nn.Module):
    """Exempts a table, and one that other sizes of it have, as timm's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.ones(1, 3, 2))

    def no_weight_decay(self) -> set[str]:
        """Return the exempt parameters."""
        return {"pos_embed", "dist_token"}


@pytest.mark.parametrize("decay", ["all", "weights"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_architecture_exempts_does_not_decay(decay: str, wrapped: bool) -> None:
    """Attributes of parameters and methods of modules both count, inside wrappers too."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), Table(), nn.Linear(2, 2, bias=False))
    model[0].weight._no_weight_decay = True
    spec = AdamW(weight_decay=0.3, decay=decay)

    decaying, exempt = make_optimizer(spec, nn.DataParallel(model) if wrapped else model).param_groups

    assert (decaying["weight_decay"], exempt["weight_decay"]) == (0.3, 0.0)
    assert [id(p) for p in decaying["params"]] == [id(model[2].weight)]
    assert list(exempt_from_decay(model)) == ["0.weight", "1.pos_embed"]


@pytest.mark.parametrize("version", [1, 2])
def test_mamba_exempts_its_recurrence(version: int) -> None:
    """A_log, D and the bias of the step, as in the published networks, and of transformers' too."""
    from mimetic.models.build import build
    from mimetic.models.config import Mamba

    model = build(Mamba(version=version, dim=64, depth=1), in_channels=4, num_classes=4, seed=0)
    published = {"A_log", "D"} if version == 1 else {"A_log", "D", "dt_bias"}

    assert {name.rpartition(".")[2] for name in exempt_from_decay(model)} == published
