"""The one definition of metrics, and that everything which shows a metric reads it."""

import re

import pytest

from mimetic.metrics import COMPARABLE, Metric, metric, metric_name, related


@pytest.mark.parametrize(
    ("name", "direction", "unit", "shown"),
    [
        ("test/acc", "higher", "%", "97.50%"),
        ("val/acc", "higher", "%", "97.50%"),
        ("test/acc_len64", "higher", "%", "97.50%"),
        ("test/acc_noisy_twice", "higher", "%", "97.50%"),
        ("test/loss", "lower", "", "0.9750"),
        ("test/loss_len64", "lower", "", "0.9750"),
        ("images_per_second", "higher", "1/s", "1 1/s"),
        ("epoch_seconds", "lower", "s", "0.97 s"),
        ("lr", None, "", "0.9750"),
        ("ansatz/blocks.0.acc/rho", None, "", "0.9750"),
        ("other/acc", None, "", "0.9750"),
        ("acc", None, "", "0.9750"),
    ],
)
def test_definitions(name: str, direction: str | None, unit: str, shown: str) -> None:
    """Name, direction, unit and format, also of metrics on probes."""
    found = metric(name)

    assert (found.name, found.direction, found.unit, found.format(0.975)) == (name, direction, unit, shown)
    assert found.is_loss == ("loss" in name)


def test_parts_of_a_name() -> None:
    """Splitting and joining are inverse."""
    found = metric("val/acc_len64")

    assert (found.split, found.probe) == ("val", "len64")
    assert metric_name("val", "acc", "len64") == "val/acc_len64"
    assert metric_name("val", "acc") == "val/acc"


def test_large_values_stay_short() -> None:
    """A loss that explodes does not fill a line."""
    assert metric("test/loss").format(1.234567e30) == "1.235e+30"


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("test/acc", ("test/acc", "test/loss", "train/acc", "train/loss")),
        ("val/loss", ("val/loss", "val/acc", "train/loss", "train/acc")),
        (
            "test/acc_len64",
            ("test/acc_len64", "test/loss_len64", "test/acc", "test/loss", "train/acc", "train/loss"),
        ),
        ("lr", ("lr", "train/acc", "train/loss")),
    ],
)
def test_related_metrics(name: str, beside: tuple[str, ...]) -> None:
    """The metric itself comes first, then its counterpart, then those of training."""
    assert related(name) == beside


def test_comparable_metrics_have_a_direction() -> None:
    """What arms can be compared by is better one way or the other."""
    names = [
        metric_name(s, m, p) for s in ("train", "val", "test") for m in ("acc", "loss") for p in ("", "len8")
    ]

    assert all(re.search(COMPARABLE, name) and metric(name).direction for name in names)
    assert not any(
        re.search(COMPARABLE, name) for name in ("lr", "acc", "test/rho", "test/acc_", "x/test/acc")
    )


def test_an_unknown_metric_is_plain() -> None:
    """Nothing is assumed of names we do not know."""
    assert metric("mine/score") == Metric("mine/score")
