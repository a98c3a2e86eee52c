"""Covariance files: exact round trips, atomic writing, and refusal of what is not right."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mimetic.covariance import store
from mimetic.covariance.closed_form import closed_form
from mimetic.covariance.harvest import Harvest, Harvested
from mimetic.covariance.weights import nfm
from mimetic.errors import RunError, UserError
from mimetic.graph.site import Geometry


@pytest.fixture
def harvested(make: SimpleNamespace) -> dict[str, object]:
    """Return covariances of three layers in an order that is not alphabetical."""
    return {
        "features.3": nfm(make.lcg((4, 3, 3, 3), 2), source="nfm of features.3"),
        "features.0": nfm(make.lcg((3, 2, 3, 3), 1), source="nfm of features.0"),
        "blocks.0": closed_form((7, 7), 0.4).noted("by hand"),
    }


def test_round_trip(tmp_path: Path, harvested: dict[str, object]) -> None:
    """Factors come back to the bit, with patch, provenance and order."""
    path = tmp_path / "deep" / "cov.safetensors"
    store.save(path, harvested, about={"model": "tiny"})
    found = store.load(path)
    assert list(found) == list(harvested)
    for name, cov in harvested.items():
        assert torch.equal(cov.factor_RD, found[name].factor_RD)
        assert (cov.patch, cov.provenance) == (found[name].patch, found[name].provenance)
    assert store.read_header(path)["about"] == {"model": "tiny"}
    assert [entry.name for entry in path.parent.iterdir()] == ["cov.safetensors"]


def test_shared_factors(tmp_path: Path) -> None:
    """Layers that share a factor, or parts of one, are written like any others."""
    cov = closed_form((3, 3), 0.4)
    half = replace(cov, factor_RD=cov.factor_RD[:4])
    shared = {"a": cov, "b": cov, "c": half, "d": replace(cov, factor_RD=cov.factor_RD[2:])}
    store.save(tmp_path / "shared", shared)
    found = store.load(tmp_path / "shared")
    assert all(torch.equal(cov.factor_RD, found[name].factor_RD) for name, cov in shared.items())


def test_header_has_a_digest(tmp_path: Path, harvest: Harvest) -> None:
    """A header of which one value changed is refused, also where the value itself would be right."""
    store.save_harvest(tmp_path / "whole", harvest)
    content = (tmp_path / "whole").read_bytes()
    for before, after in ((b'depth\\": 0', b'depth\\": 1'), (b"kind", b"kinb"), (b"digest", b"dogest")):
        assert before in content
        (tmp_path / "changed").write_bytes(content.replace(before, after, 1))
        with pytest.raises(UserError, check=lambda error: error.code == "MIM-V238"):
            store.load_harvest(tmp_path / "changed")


def test_nothing_is_half_written(tmp_path: Path, harvested: dict[str, object]) -> None:
    """Without covariances the old file stays, and no other appears."""
    path = tmp_path / "cov.safetensors"
    store.save(path, harvested)
    before = path.read_bytes()
    with pytest.raises(RunError, check=lambda error: error.code == "MIM-V231"):
        store.save(path, {})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """A missing file, a pickle and a plain checkpoint each end in a message that names the file."""
    pickled, checkpoint = tmp_path / "weights.pt", tmp_path / "weights.safetensors"
    pickled.write_bytes(pickle.dumps({"weight": [1.0]}))
    save_file({"weight": torch.zeros(2)}, checkpoint)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V234"):
        store.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(UserError, match=r"weights\.pt: not a safetensors file"):
        store.load(pickled)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V236"):
        store.load(checkpoint)


def rewritten(path: Path, change: dict[str, object], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Return a copy of a file whose one layer's header or tensors are changed."""
    header = store.read_header(path)
    header["layers"]["blocks.0"].update(change)
    other = path.with_name("changed.safetensors")
    kept = {name: cov.factor_RD for name, cov in store.load(path).items()}
    save_file({**kept, **(tensors or {})}, other, metadata=store.metadata_of(header))
    return other


def test_damaged_files_are_refused(tmp_path: Path, harvested: dict[str, object]) -> None:
    """Changed numbers, shapes, NaN, missing layers and cut files are found before anything is used."""
    path = tmp_path / "cov.safetensors"
    store.save(path, harvested)
    nudged = harvested["blocks.0"].factor_RD * 1.0000001
    with pytest.raises(UserError, match=r"numbers of `blocks\.0` are not those"):
        store.load(rewritten(path, {}, {"blocks.0": nudged}))
    with pytest.raises(UserError, match=r"`blocks\.0`: .*NaN"):
        store.load(rewritten(path, {}, {"blocks.0": nudged * torch.nan}))
    with pytest.raises(UserError, match=r"`blocks\.0`: .*needs"):
        store.load(rewritten(path, {"kernel_size": [5, 5]}))
    with pytest.raises(UserError, match=r"header of `blocks\.0` is not readable"):
        store.load(rewritten(path, {"provenance": {"nonsense": 1}}))
    with pytest.raises(UserError, match=r"disagree about `extra`"):
        store.load(rewritten(path, {}, {"extra": torch.zeros(1)}))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a safetensors file"):
        store.load(path)


def test_other_versions_are_refused(tmp_path: Path, harvested: dict[str, object]) -> None:
    """A file of a later format is not guessed at."""
    path = tmp_path / "later.safetensors"
    header = {"format": "mimetic.covariance/2", "layers": {}}
    save_file({"x": torch.zeros(1)}, path, metadata=store.metadata_of(header))
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V236"):
        store.load(path)


def test_huge_files_are_not_read(
    tmp_path: Path, harvested: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beyond the limit is refused before it is opened."""
    path = tmp_path / "cov.safetensors"
    store.save(path, harvested)
    monkeypatch.setenv("MIMETIC_MAX_COVARIANCE_BYTES", "10")
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V235"):
        store.load(path)


@pytest.fixture
def harvest(make: SimpleNamespace) -> Harvest:
    """Return a harvest of a grouped convolution and a linear layer."""
    conv, linear = Geometry(4, 8, (3, 3), (2, 2), 2), Geometry(5, 6, transposed=True)
    layers = (
        Harvested("stem", "conv", 0.25, conv, nfm(make.lcg((8, 2, 3, 3), 1), source="nfm of stem")),
        Harvested("head", "linear", 1.0, linear, nfm(make.lcg((6, 5), 2), source="nfm of head")),
    )
    return Harvest("stage small", "nfm", layers)


def test_harvests_come_back_whole(tmp_path: Path, harvest: Harvest) -> None:
    """Kinds, depths, geometries, factors, origin and statistic, and what else was to be told."""
    path = tmp_path / "cov.safetensors"
    store.save_harvest(path, harvest, about={"options": {"rank": 3}})
    found = store.load_harvest(path)
    assert (found.origin, found.statistic, found.digest) == ("stage small", "nfm", harvest.digest)
    assert [h.geometry for h in found.layers] == [h.geometry for h in harvest.layers]
    assert store.read_header(path)["about"]["options"] == {"rank": 3}


def test_pending_harvests_are_not_written(tmp_path: Path, harvest: Harvest) -> None:
    """Nothing half-measured appears on disk."""
    blank = replace(harvest, layers=(harvest.layers[0], replace(harvest.layers[1], covariance=None)))
    with pytest.raises(RunError, check=lambda error: error.code == "MIM-V232"):
        store.save_harvest(tmp_path / "cov.safetensors", blank)
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_know_their_layers_are_refused(
    tmp_path: Path, harvested: dict[str, object], harvest: Harvest
) -> None:
    """Covariances alone cannot be carried over; a geometry that denies its covariance is a lie."""
    path = tmp_path / "cov.safetensors"
    store.save(path, harvested)
    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V233"):
        store.load_harvest(path)
    store.save_harvest(path, harvest)
    header = store.read_header(path)
    header["about"]["harvest"]["layers"]["stem"]["in_channels"] = 99
    tensors = {name: cov.factor_RD for name, cov in store.load(path).items()}
    save_file(tensors, path, metadata=store.metadata_of(header))
    with pytest.raises(UserError, match="`stem` has a covariance over 2×3×3, which its filters do not see"):
        store.load_harvest(path)


ODD = (None, True, 0, -3, 2**70, 1e400, float("nan"), "x", [[]], {})


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in a header."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [
        *([path] if path else []),
        *(leaf for key, below in inner for leaf in _leaves(below, (*path, key))),
    ]


def test_odd_headers(tmp_path: Path, harvest: Harvest) -> None:
    """Each value of a header, replaced by each odd one, is either of no consequence or refused by name."""
    whole, odd = tmp_path / "whole", tmp_path / "odd"
    store.save_harvest(whole, harvest)
    with safe_open(whole, framework="pt") as opened:
        text = opened.metadata()["mimetic"]
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    refused = set()
    one = [path for path in _leaves(json.loads(text)) if "stem" in path or "layers" not in path[:-1]]
    for path in one:
        for value in ODD:
            header = json.loads(text)
            inner = header
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            save_file(tensors, odd, metadata=store.metadata_of(header))
            try:
                found = store.load_harvest(odd)
            except UserError:
                refused.add((path[-1], repr(value)))
                continue
            assert all(0.0 <= layer.depth <= 1.0 and layer.geometry.groups > 0 for layer in found.layers)
    expected = {("depth", "nan"), ("depth", "inf"), ("groups", "0"), ("groups", "-3"), ("about", "[[]]")}
    assert refused >= expected


def test_deep_header(tmp_path: Path) -> None:
    """A header nested thousands of times is no header of ours."""
    save_file({"a": torch.zeros(1)}, tmp_path / "deep", metadata={"mimetic": "[" * 100_000})

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-V236"):
        store.load(tmp_path / "deep")
