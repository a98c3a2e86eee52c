"""Covariance files: exact round trips, atomic writing, and refusal of what is not right."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from mimetic.covariance import closed_form, store
from mimetic.covariance.nfm import nfm
from mimetic.errors import RunError, UserError


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
    assert store.describe(path)["about"] == {"model": "tiny"}
    assert [entry.name for entry in path.parent.iterdir()] == ["cov.safetensors"]


def test_nothing_is_half_written(tmp_path: Path, harvested: dict[str, object]) -> None:
    """Without covariances the old file stays, and no other appears."""
    path = tmp_path / "cov.safetensors"
    store.save(path, harvested)
    before = path.read_bytes()
    with pytest.raises(RunError, match="nothing was measured"):
        store.save(path, {})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """A missing file, a pickle and a plain checkpoint each end in a message that names the file."""
    pickled, checkpoint = tmp_path / "weights.pt", tmp_path / "weights.safetensors"
    pickled.write_bytes(pickle.dumps({"weight": [1.0]}))
    save_file({"weight": torch.zeros(2)}, checkpoint)
    with pytest.raises(UserError, match=r"nowhere.*no such covariance file"):
        store.load(tmp_path / "nowhere.safetensors")
    with pytest.raises(UserError, match=r"weights\.pt: not a safetensors file"):
        store.load(pickled)
    with pytest.raises(UserError, match=r"weights\.safetensors: holds no covariances"):
        store.load(checkpoint)


def rewritten(path: Path, change: dict[str, object], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Return a copy of a file whose one layer's header or tensors are changed."""
    header = store.describe(path)
    header["layers"]["blocks.0"].update(change)
    other = path.with_name("changed.safetensors")
    kept = {name: cov.factor_RD for name, cov in store.load(path).items()}
    save_file({**kept, **(tensors or {})}, other, metadata={"mimetic": json.dumps(header)})
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
    save_file({"x": torch.zeros(1)}, path, metadata={"mimetic": json.dumps(header)})
    with pytest.raises(UserError, match=r"mimetic\.covariance/1"):
        store.load(path)


def test_huge_files_are_not_read(
    tmp_path: Path, harvested: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file beyond the limit is refused before it is opened."""
    path = tmp_path / "cov.safetensors"
    store.save(path, harvested)
    monkeypatch.setattr(store, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="larger than"):
        store.load(path)
