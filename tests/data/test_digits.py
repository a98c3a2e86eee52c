"""The embedded digits."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from mimetic.data import digits
from mimetic.data.config import Digits
from mimetic.data.load import load_dataset
from mimetic.errors import UserError


def test_are_scikit_learns() -> None:
    """All 1,797 images and labels are those of `load_digits`, in 256 instead of 17 grey levels."""
    from sklearn.datasets import load_digits

    theirs = load_digits()
    expected = sorted(
        (bytes(image), int(label))
        for image, label in zip(theirs.images.astype("uint8"), theirs.target, strict=True)
    )

    data = load_dataset(Digits())
    pixels_NCHW = torch.cat([data.train.pixels_NCHW, data.test.pixels_NCHW])
    labels_N = torch.cat([data.train.labels_N, data.test.labels_N])
    levels_NHW = (pixels_NCHW[:, 0] * (16 / 255)).round().to(torch.uint8)
    actual = sorted(
        (image.numpy().tobytes(), label) for image, label in zip(levels_NHW, labels_N.tolist(), strict=True)
    )

    assert expected == actual


def test_division_is_fixed() -> None:
    """1,437 to train on, 360 to test on, whatever the split seed; black is 0 and white 255."""
    first, second = load_dataset(Digits()), load_dataset(Digits(split_seed=3))

    assert (len(first.train), len(first.test)) == (1437, 360)
    assert first.digest == second.digest == "49399d113f8fbaf257782e1f0acf7a2a"
    assert (first.train.pixels_NCHW.min(), first.train.pixels_NCHW.max()) == (0, 255)


@pytest.mark.slow
def test_scikit_learn_is_not_imported() -> None:
    """The file is read without importing scikit-learn or torchvision."""
    script = (
        "import sys; from mimetic.data.load import load_dataset; from mimetic.data.config import Digits; "
        "load_dataset(Digits());"
        "print([name for name in ('sklearn', 'torchvision', 'scipy') if name in sys.modules])"
    )
    expected = "[]"

    actual = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()

    assert expected == actual


def test_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no archive of digits is told."""
    folder = tmp_path / "datasets" / "data"
    folder.mkdir(parents=True)
    (folder / "digits.csv.gz").write_bytes(b"nothing")
    package = ModuleSpec("sklearn", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(digits, "find_spec", lambda _name: package)

    with pytest.raises(UserError, check=lambda error: error.code == "MIM-D021"):
        load_dataset(Digits())
