"""Weights from files: every form that is written, all or nothing, and no code from a file."""

import copy
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mimetic.data.config import Cifar10
from mimetic.data.load import load_dataset
from mimetic.errors import UserError
from mimetic.models.build import build
from mimetic.models.checkpoint import fit_weights, load_weights
from mimetic.models.config import CifarResNet, ConvMixer, Timm, Torchvision
from mimetic.models.published import import_library, load_published

Tensors = dict[str, torch.Tensor]


class Net(nn.Module):
    """A layer, a norm with buffers, and a head tied to an embedding."""

    def __init__(self, classes: int = 4) -> None:
        """Build the layers."""
        super().__init__()
        self.layer = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)
        self.table = nn.Embedding(classes, 5)
        self.head = nn.Linear(5, classes, bias=False)
        self.head.weight = self.table.weight


@pytest.fixture
def trained() -> Tensors:
    """Return the state of a trained network."""
    torch.manual_seed(1)
    net = Net()
    net.norm.running_mean.normal_()
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(net: nn.Module, expected: Tensors) -> bool:
    """Tell whether a network holds given values."""
    return all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


FORMS: dict[str, Any] = {
    "plain": lambda state: state,
    "nested": lambda state: {"epoch": 3, "state_dict": state},
    "nested twice": lambda state: {"model": {"state_dict": state}},
    "distributed": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "both": lambda state: {"model": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
    "one segment in front": lambda state: {f"backbone.{name}": tensor for name, tensor in state.items()},
    "tied once": lambda state: {name: tensor for name, tensor in state.items() if name != "table.weight"},
    "lightning": lambda state: {
        "state_dict": {
            **{f"model.{name}": tensor for name, tensor in state.items()},
            "criterion.weight": torch.ones(4),
            "train_acc.tp": torch.zeros(4, dtype=torch.long),
        },
        "hyper_parameters": {"lr": 0.1},
    },
    "with its loss": lambda state: {**state, "criterion.weight": torch.ones(4), "best_acc": torch.ones(())},
    "averaged": lambda state: {
        "n_averaged": torch.tensor(3),
        **{f"module.{name}": tensor for name, tensor in state.items()},
    },
    "distilled": lambda state: {
        **{f"student.{name}": tensor for name, tensor in state.items()},
        **{f"teacher.{name}": torch.zeros_like(tensor) for name, tensor in state.items()},
    },
    "two segments in front": lambda state: {f"learner.net.{name}": t for name, t in state.items()},
    "beside averaged ones": lambda state: {
        "model_ema": {name: torch.zeros_like(tensor) for name, tensor in state.items()},
        "model": state,
    },
    **{
        f"under {key}": lambda state, key=key: {key: state, "epoch": 3}
        for key in ("network", "weights", "params", "params_ema", "student", "ema_model")
    },
    "without counters": lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
    "half precision": lambda state: {
        name: t.half() if t.is_floating_point() else t for name, t in state.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_state_dict_is_read(tmp_path: Path, trained: Tensors, form: str) -> None:
    """Nested, wrapped, tied, in other precision: the values arrive under the model's own names."""
    net, path = Net(), tmp_path / "weights.pt"
    torch.save(FORMS[form](trained), path)
    load_weights(net, path)
    expected = trained
    if form == "half precision":
        expected = {name: t.half().to(t.dtype) if t.is_floating_point() else t for name, t in trained.items()}
    assert same(net, expected)


def test_a_larger_network_is_not_cut_to_fit(trained: Tensors) -> None:
    """What is unknown is ignored only beside the known prefix of a network."""
    extra = {"layers.0.weight": torch.zeros(1)}
    for prefix, others in (
        ("", extra),
        ("model.", {"model.layers.0.weight": torch.zeros(1)}),
        ("trunk.", extra),
    ):
        with pytest.raises(UserError, check=lambda error: error.code == "MIM-M020"):
            fit_weights(Net(), {f"{prefix}{name}": t for name, t in trained.items()} | others, where="w.pt")


OTHER_NUMBERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "complex": lambda tensor: tensor.to(torch.cfloat),
    "integers": lambda tensor: tensor.int(),
    "booleans": lambda tensor: tensor.bool(),
    "sparse": lambda tensor: tensor.to_sparse(),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "without values": lambda tensor: tensor.to("meta"),
}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization|.*quantiz")
@pytest.mark.parametrize("numbers", OTHER_NUMBERS)
@pytest.mark.parametrize("name", ["layer.weight", "norm.running_mean"])
def test_numbers_that_a_copy_would_change_are_refused(numbers: str, name: str, trained: Tensors) -> None:
    """No cast drops an imaginary part, or makes weights of integers; nothing is written."""
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M027"):
        fit_weights(net, {**trained, name: OTHER_NUMBERS[numbers](trained[name])}, where="w.pt")
    assert same(net, before)


def test_safetensors_are_told_by_their_content(tmp_path: Path, trained: Tensors) -> None:
    """Whatever the file is called; also the unfinished trial of ours, whose optimizer is left alone."""
    net, path = Net(), tmp_path / "weights.bin"
    save_file({name: t.clone() for name, t in trained.items()}, path)
    load_weights(net, path)
    assert same(net, trained)
    other = tmp_path / "checkpoint"
    mine = {f"model/{name}": t.clone() for name, t in trained.items()}
    save_file({**mine, "optimizer/0/exp_avg": torch.zeros(3)}, other)
    net = Net()
    load_weights(net, other)
    assert same(net, trained)


def test_a_layer_that_is_called_module_keeps_its_name(tmp_path: Path) -> None:
    """The model's own names are tried before anything is removed from those in the file."""
    inner, path = nn.Linear(2, 2), tmp_path / "weights.pt"
    model = nn.ModuleDict({"module": inner})
    torch.save({name: tensor + 1.0 for name, tensor in model.state_dict().items()}, path)
    expected = inner.weight + 1.0
    load_weights(model, path)
    assert torch.equal(inner.weight, expected)


def test_another_architecture_is_refused_and_nothing_written(trained: Tensors) -> None:
    """What is missing, unknown or of another shape is named, a few of each."""
    del trained["layer.bias"], trained["norm.weight"]
    odd = {f"layers.{index}.weight": torch.zeros(1) for index in range(5)}
    net = Net(classes=7)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UserError) as raised:
        fit_weights(net, {**trained, **odd}, where="w.pt")
    assert str(raised.value) == (
        "w.pt: a checkpoint of another architecture: 2 of the model's 9 tensors missing (`layer.bias`, "
        "`norm.weight`); 5 unknown to it (`layers.0.weight`, `layers.1.weight`, `layers.2.weight`, …); 1 "
        "of another shape (`table.weight` 4×5 instead of 7×5); build the network it was saved from "
        "(`model`, with its width, depth, `num_classes` and `in_channels`)"
    )
    assert same(net, before)


def test_weights_that_diverged_are_refused_and_nothing_written(trained: Tensors) -> None:
    """Parameters by name and shape; a buffer may hold a mask of -∞."""
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    diverged = {**trained, "layer.bias": torch.full((5,), torch.inf)}
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M021"):
        fit_weights(net, diverged, where="w.pt")
    assert same(net, before)

    masked = {**trained, "norm.running_mean": torch.full((5,), -torch.inf)}
    fit_weights(net, masked, where="w.pt")
    assert same(net, masked)


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    """A pickle that would write a file is refused before it does."""
    path, proof = tmp_path / "weights.pt", tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(proof),))

    for write, culprit in (
        (torch.save, ".mkdir)"),
        (lambda content, file: file.write_bytes(pickle.dumps(content)), ""),  # torch does not say which
    ):
        write({"layer.weight": Evil()}, path)
        with pytest.raises(UserError) as caught:
            load_weights(Net(), path)
        assert caught.value.code == "MIM-M026"
        assert culprit in str(caught.value)
        assert not proof.exists()


def test_unreadable_files_are_named(
    tmp_path: Path, trained: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, cut, foreign, empty of tensors, too large: each says so, and what to do."""
    path = tmp_path / "weights.pt"
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M022"):
        load_weights(Net(), path)
    for content in (b"", b"hello", b"PK\x03\x04 cut", b"\x80\x02 cut"):
        path.write_bytes(content)
        with pytest.raises(UserError, check=lambda error: error.code in ("MIM-M024", "MIM-M026")):
            load_weights(Net(), path)
    for nothing in ({"epoch": 3}, [1, 2]):
        torch.save(nothing, path)
        with pytest.raises(UserError, check=lambda error: error.code == "MIM-M025"):
            load_weights(Net(), path)
    torch.save(trained, path)
    monkeypatch.setenv("MIMETIC_MAX_CHECKPOINT_BYTES", "100")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M023"):
        load_weights(Net(), path)


def test_archives_that_expand_are_refused(tmp_path: Path, trained: Tensors) -> None:
    """Before anything is read: megabytes of zeros take a few kilobytes in a compressed archive."""
    stored, path = tmp_path / "stored.pt", tmp_path / "weights.pt"
    torch.save(trained | {"norm.bias": torch.zeros(2**20)}, stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M028"):
        load_weights(Net(), path)


def test_odd_keys_are_left_out(tmp_path: Path, trained: Tensors) -> None:
    """Keys that are no text name no parameter; a dict may contain itself."""
    net, path = Net(), tmp_path / "weights.pt"
    torch.save({0: torch.ones(1), None: 1, ("a",): 2} | trained, path)
    load_weights(net, path)
    assert same(net, trained)
    cycle: dict[str, Any] = {}
    cycle["model"] = cycle
    torch.save(cycle, path)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M025"):
        load_weights(Net(), path)


def entries(state: Tensors, error: Exception | None = None) -> SimpleNamespace:
    """Return what torchvision knows of the weights of a model."""

    def get(**options: Any) -> Tensors:
        assert options["check_hash"]
        if error is not None:
            raise error
        return state

    return SimpleNamespace(__members__={"DEFAULT": SimpleNamespace(get_state_dict=get)})


def test_published_weights_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, with auxiliary classifiers left out; without a network the message says so."""
    models = import_library("torchvision").models
    section = Torchvision(name="squeezenet1_0")
    net = build(section, in_channels=3, num_classes=1000, seed=0)
    state = {name: torch.full_like(tensor, 2.0) for name, tensor in net.state_dict().items()}
    published = entries({**state, "AuxLogits.fc.weight": torch.zeros(1)})
    monkeypatch.setattr(models, "get_model_weights", lambda _: published)
    load_published(net, section, "DEFAULT")
    assert same(net, state)
    offline = OSError("<urlopen error [Errno -2] Name or service not known>\nmore")
    monkeypatch.setattr(models, "get_model_weights", lambda _: entries(state, offline))
    with pytest.raises(UserError) as raised:
        load_published(net, section, "DEFAULT")
    assert str(raised.value) == (
        "the weights DEFAULT of `torchvision:squeezenet1_0` cannot be downloaded (<urlopen error [Errno -2] "
        "Name or service not known>); go online once, or give their file with `checkpoint`"
    )


def test_weights_nobody_published() -> None:
    """The names there are are listed; our own models have none."""
    net = nn.Linear(1, 1)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M008"):
        load_published(net, Torchvision(name="squeezenet1_0"), "V9")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M007"):
        load_published(net, ConvMixer(), "DEFAULT")


def test_published_weights_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag chooses among them, DEFAULT takes the first; a failing download is the user's to mend."""
    library, asked = import_library("timm"), []
    section = Timm(name="some_net")
    source = Net()

    def create(name: str, *, pretrained: bool) -> nn.Module:
        assert pretrained
        asked.append(name)
        if len(asked) > 2:
            raise ConnectionError("no route")
        return source

    monkeypatch.setattr(library, "list_pretrained", lambda _: ["some_net.in1k", "some_net.in22k"])
    monkeypatch.setattr(library, "create_model", create)
    net = Net()
    load_published(net, section, "DEFAULT")
    load_published(net, section, "in22k")
    assert asked == ["some_net", "some_net.in22k"]
    assert same(net, source.state_dict())
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M009"):
        load_published(net, section, "in1k")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M008"):
        load_published(net, section, "in21k")
    monkeypatch.setattr(library, "list_pretrained", lambda _: [])
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M008"):
        load_published(net, section, "DEFAULT")


def weights(name: str) -> Path:
    """Return a shared checkpoint, or skip."""
    path = Path(os.environ["MIMETIC_DATA"]) / "weights" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.mark.data
def test_a_published_resnet_classifies_as_measured() -> None:
    """The CIFAR ResNet-20 checkpoint fits our model and reaches its accuracy on test images."""
    net = build(CifarResNet(depth=20), in_channels=3, num_classes=10, seed=0)
    load_weights(net, weights("cifar10_resnet20-4118986f.pt"))
    images = load_dataset(Cifar10(train_size=1, test_size=300)).test
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    normalized = (images.pixels_NCHW / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        right = net.eval()(normalized).argmax(dim=1) == images.labels_N
    assert float(right.float().mean()) > 0.88
    with pytest.raises(UserError, match=r"216 unknown to it \(`layer1\.3\.conv1\.weight`"):
        load_weights(net, weights("cifar10_resnet56-187c023a.pt"))


@pytest.mark.data
def test_a_published_squeezenet_fits() -> None:
    """Its safetensors carry torchvision's own names."""
    net = build(Torchvision(name="squeezenet1_0"), in_channels=3, num_classes=1000, seed=0)
    before = net.features[0].weight.clone()
    load_weights(net, weights("squeezenet1_0-imagenet.safetensors"))
    assert not torch.equal(before, net.features[0].weight)
    small = build(Torchvision(name="squeezenet1_0"), in_channels=3, num_classes=10, seed=0)
    with pytest.raises(UserError, match=r"`classifier\.1\.weight` 1000×512×1×1 instead of 10×512×1×1"):
        load_weights(small, weights("squeezenet1_0-imagenet.safetensors"))
    head = small.classifier[1].weight.clone()
    load_weights(small, weights("squeezenet1_0-imagenet.safetensors"), own_head=True)
    assert torch.equal(small.features[0].weight, net.features[0].weight)
    assert torch.equal(small.classifier[1].weight, head)


@pytest.mark.parametrize("head", [nn.Linear, partial(nn.Conv2d, kernel_size=1)])
def test_a_file_below_an_untrained_head(tmp_path: Path, head: Callable[..., nn.Module]) -> None:
    """The last layer stays the model's own, linear or a convolution; names of wrappers are removed."""
    source = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 3), head(3, 5))
    file = tmp_path / "net.pt"
    torch.save({f"module.{name}": tensor for name, tensor in source.state_dict().items()}, file)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 3), head(3, 2))
    own = net[2].weight.clone()
    load_weights(copy.deepcopy(net).to("meta"), file, own_head=True)  # as a plan checks it
    load_weights(net, file, own_head=True)

    assert torch.equal(net[0].weight, source[0].weight)
    assert torch.equal(net[1].weight, source[1].weight)
    assert torch.equal(net[2].weight, own)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M020"):
        load_weights(net, file)


def test_published_weights_below_an_untrained_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last linear layer stays the model's own, of any size; all other layers must fit."""
    library = import_library("timm")
    source = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5))
    monkeypatch.setattr(library, "list_pretrained", lambda _: ["some_net.in1k"])
    monkeypatch.setattr(library, "create_model", lambda *_, **__: source)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    own = net[2].weight.clone()
    load_published(net, Timm(name="some_net"), "DEFAULT", own_head=True)

    assert torch.equal(net[0].weight, source[0].weight)
    assert torch.equal(net[2].weight, own)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-M020"):
        load_published(net, Timm(name="some_net"), "DEFAULT")
