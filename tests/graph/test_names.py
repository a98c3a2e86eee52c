"""Canonical names: whole segments go, nothing else does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mimetic.errors import UserError
from mimetic.graph.names import (
    MODULE_WRAPPERS,
    WRAPPER_SEGMENTS,
    canonical_buffers,
    canonical_modules,
    canonical_name,
    canonical_parameters,
    owners,
    walk,
)

segments = st.one_of(
    st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]),
    st.sampled_from(["module_x", "submodule", "modules", "mod", "orig_mod", "0", "weight"]),
    st.text("module._", min_size=1, max_size=8).filter(lambda text: "." not in text),
)
names = st.lists(segments, max_size=6).map(".".join)


def small() -> nn.Sequential:
    """Return a model with a convolution, a norm with buffers and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


@given(names)
def test_canonical_name_is_idempotent(name: str) -> None:
    """Taking wrappers off twice takes no more off."""
    assert canonical_name(name) == canonical_name(canonical_name(name))


@given(names)
def test_canonical_name_keeps_every_other_segment(name: str) -> None:
    """What is left are the segments that are no wrapper's, whole and in order; `module` only leads."""
    kept = [segment for segment in name.split(".") if segment not in WRAPPER_SEGMENTS]
    while kept and kept[0] == "module":
        kept = kept[1:]
    assert ".".join(kept) == canonical_name(name)


@given(names, st.lists(st.sampled_from(["module", *sorted(WRAPPER_SEGMENTS)]), max_size=4))
def test_canonical_name_ignores_wrappers_in_front(name: str, wrappers: list[str]) -> None:
    """Any stack of wrappers gives the bare name."""
    assert canonical_name(name) == canonical_name(".".join([*wrappers, name]))


@pytest.mark.parametrize(
    ("expected", "name"),
    [
        ("", ""),
        ("module_x.weight", "module_x.weight"),
        ("submodule.weight", "module.submodule.weight"),
        ("blocks.0.weight", "_orig_mod.module.blocks.0._fsdp_wrapped_module.weight"),
        ("encoder.module.weight", "module.encoder.module.weight"),
        ("ule.mod.weight", "module.ule.mod.weight"),
    ],
)
def test_canonical_name_of_examples(expected: str, name: str) -> None:
    """Letters are never eaten, and an inner layer called `module` stays."""
    assert expected == canonical_name(name)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, AveragedModel, lambda m: AveragedModel(nn.DataParallel(m))]
)
def test_wrappers_leave_names_as_they_are(wrap: type[nn.Module]) -> None:
    """A wrapped model has the parameters and layers of the bare one, under the same names."""
    bare = small()
    wrapped = wrap(bare)
    assert list(canonical_parameters(bare)) == list(canonical_parameters(wrapped))
    assert list(canonical_modules(bare)) == list(canonical_modules(wrapped))


def test_canonical_modules_gives_what_the_wrapper_holds() -> None:
    """The empty name means the model, not its wrapper."""
    bare = small()
    assert bare is canonical_modules(nn.DataParallel(nn.DataParallel(bare)))[""]


def test_canonical_modules_names_every_module() -> None:
    """Without wrappers it is torch's own listing."""
    bare = small()
    assert dict(bare.named_modules()) == canonical_modules(bare)


class Honest(nn.Module):
    """A model whose first layer is honestly called `module`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.inner = nn.Sequential()
        self.inner.add_module("module", nn.Linear(2, 2))


def test_an_honest_module_keeps_its_name() -> None:
    """Seeing the model, `module` is removed only where a wrapper class owns it."""
    expected = ["module.weight", "module.bias", "inner.module.weight", "inner.module.bias"]
    assert expected == list(canonical_parameters(Honest()))
    assert expected == list(canonical_parameters(nn.DataParallel(Honest())))


class Doubled(nn.DataParallel):
    """A wrapper with a layer of its own that is called like one of the model's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.add_module("0", nn.Linear(5, 5))


@pytest.mark.parametrize("ask", [canonical_modules, canonical_parameters])
def test_two_things_of_one_name_are_an_error(ask: object) -> None:
    """Different parameters are never merged under one canonical name."""
    with pytest.raises(UserError, match=r"`(module\.)?0(\.weight)?` has the canonical name `0(\.weight)?`"):
        ask(Doubled(small()))


class Tied(nn.Module):
    """An embedding whose weight is also that of the head, and a layer registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.body = nn.Linear(3, 3)
        self.again = self.body
        self.head = nn.Linear(3, 7)
        self.head.weight = self.embed.weight


def test_tied_parameters_come_once_with_their_aliases() -> None:
    """The first owner names the tensor; the others are aliases."""
    model = Tied()
    found = owners(walk(nn.DataParallel(model)))
    assert {name: aliases for name, (_, aliases) in found.items()} == {
        "embed.weight": ("head.weight",),
        "body.weight": ("again.weight",),
        "body.bias": ("again.bias",),
        "head.bias": (),
    }
    assert found["embed.weight"][0] is model.head.weight


def test_canonical_parameters_are_the_live_ones() -> None:
    """Writing to what is returned writes to the model."""
    model = small()
    assert model[4].weight is canonical_parameters(nn.DataParallel(model))["4.weight"]


def test_canonical_buffers_are_the_live_ones() -> None:
    """Buffers are named as parameters are."""
    model = small()
    buffers = canonical_buffers(nn.DataParallel(model))
    assert list(buffers) == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert model[1].running_var is buffers["1.running_var"]


def test_a_module_registered_below_itself_ends() -> None:
    """A cycle is walked once."""
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].add_module("parent", model)
    assert list(canonical_parameters(model)) == ["0.weight", "0.bias"]


def test_torch_compile_leaves_names_as_they_are() -> None:
    """A compiled model, and one with a compiled part, has the bare model's names."""
    bare, part = small(), small()
    part[4] = torch.compile(part[4])
    assert list(canonical_parameters(bare)) == list(
        canonical_parameters(torch.compile(nn.DataParallel(bare)))
    )
    assert list(canonical_parameters(bare)) == list(canonical_parameters(part))


def test_wrapper_classes_are_torchs() -> None:
    """Each class that is unwrapped keeps what it wraps under `module`."""
    assert {"DataParallel", "DistributedDataParallel", "AveragedModel"} == {
        c.__name__ for c in MODULE_WRAPPERS
    }
