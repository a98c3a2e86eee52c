"""The figures of an epoch, under the names by which journals and comparisons know them."""

import math
import time
from collections.abc import Callable, Mapping

from torch import nn

from mimetic.data.dataset import Split
from mimetic.train.batches import Decode
from mimetic.train.config import Train
from mimetic.train.devices import Precision
from mimetic.train.evaluate import evaluate
from mimetic.train.ranks import ALONE, Ranks
from mimetic.train.stopping import Stop

Evaluate = Callable[[nn.Module], dict[str, float]]
"""`evaluate(model)`: loss and accuracy on what was held out."""

Observe = Callable[[nn.Module, int], Mapping[str, float]]
"""`observe(model, epoch)`: further metrics of a model, which it leaves as it was, modes included."""


def evaluate_splits(
    model: nn.Module,
    *,
    splits: Mapping[tuple[str, str], Split],
    decode: Decode,
    batch_size: int,
    precision: Precision,
    stop: Stop,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Return loss and accuracy on each split, e.g. `val/loss` and, of a probe, `test/acc_noisy`.

    Arguments and errors are those of `evaluate`.
    """
    found: dict[str, float] = {}
    for (name, probe), split in splits.items():
        loss, accuracy = evaluate(
            model, split, decode=decode, batch_size=batch_size, precision=precision, stop=stop, ranks=ranks
        )
        end = f"_{probe}" if probe else ""
        found |= {f"{name}/loss{end}": loss, f"{name}/acc{end}": accuracy}
    return found


def epoch_figures(
    model: nn.Module,
    epoch: int,
    *,
    spec: Train,
    loss: float,
    accuracy: float,
    lr: float,
    images: int,
    seconds: float,
    evaluate: Evaluate,
    observe: Observe | None,
) -> dict[str, float]:
    """Return what is known of an epoch; a model that diverged is looked at no further.

    Args:
        model: The model as the epoch left it.
        epoch: The epoch, from 1.
        spec: The training section, which says when the model is evaluated.
        loss: Mean loss of the epoch's steps.
        accuracy: Share of their answers that were right.
        lr: Learning rate of the last step.
        images: Images trained on.
        seconds: What training on them took; that of evaluation is added to `epoch_seconds`.
        evaluate: Evaluates the model.
        observe: Measures the model; its time counts as nobody's.

    Raises:
        Stopped: If evaluation was stopped.
    """
    began = time.perf_counter()
    found = {"train/loss": loss, "train/acc": accuracy, "lr": lr, "images_per_second": images / seconds}
    if math.isfinite(loss) and (epoch % spec.eval_every == 0 or epoch == spec.epochs):
        found |= evaluate(model)
    found["epoch_seconds"] = seconds + time.perf_counter() - began
    if observe is not None and all(map(math.isfinite, found.values())):
        found |= observe(model, epoch)
    return found
