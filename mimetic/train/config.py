"""How a network is trained."""

from typing import Annotated, Literal

from pydantic import Field

from mimetic.config.base import Count, Fraction, FromList, NonNegative, Positive, Section
from mimetic.config.registry import Component, Registered


class Optimizer(Component, family="optimizer"):
    """Base of the optimizers; `impl` is a `mimetic.train.optimizers.OptimizerFunction`."""

    lr: Positive = Field(1e-3, description="Learning rate, the peak of the schedule.")
    weight_decay: NonNegative = Field(0.0, description="Weight decay.")
    decay: Literal["all", "weights"] = Field(
        "all",
        description="Which parameters decay: all trained ones, or only those of two or more dimensions; "
        "never those that the architecture exempts.",
    )


class Sgd(Optimizer, type="sgd", impl="mimetic.train.optimizers:sgd"):
    """Stochastic gradient descent with momentum."""

    lr: Positive = Field(0.1, description="Learning rate, the peak of the schedule.")
    momentum: Fraction = Field(0.9, description="Momentum.")
    nesterov: bool = Field(False, description="Nesterov momentum.")


class Adam(Optimizer, type="adam", impl="mimetic.train.optimizers:adam"):
    """Adam (Kingma and Ba, arXiv 1412.6980)."""

    betas: Annotated[tuple[Fraction, Fraction], FromList] = Field(
        (0.9, 0.999), description="Decay rates of the two moments."
    )
    eps: Positive = Field(1e-8, description="Added to the denominator.")


class AdamW(Optimizer, type="adamw", impl="mimetic.train.optimizers:adamw"):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)."""

    weight_decay: NonNegative = Field(0.01, description="Weight decay.")
    betas: Annotated[tuple[Fraction, Fraction], FromList] = Field(
        (0.9, 0.999), description="Decay rates of the two moments."
    )
    eps: Positive = Field(1e-8, description="Added to the denominator.")


class RmsProp(Optimizer, type="rmsprop", impl="mimetic.train.optimizers:rmsprop"):
    """RMSprop (Tieleman and Hinton, 2012)."""

    alpha: Fraction = Field(0.99, description="Decay rate of the second moment.")
    momentum: Fraction = Field(0.0, description="Momentum.")
    eps: Positive = Field(1e-8, description="Added to the denominator.")


class Schedule(Component, family="schedule"):
    """Base of the learning-rate schedules; `impl` is a `mimetic.train.schedules.ScheduleFunction`."""


class ConstantRate(Schedule, type="constant", impl="mimetic.train.schedules:constant"):
    """The same learning rate throughout, after an optional linear warm-up."""

    warmup: Fraction = Field(0.0, description="Fraction of training over which the rate rises from zero.")


class Cosine(Schedule, type="cosine", impl="mimetic.train.schedules:cosine"):
    """Half a cosine from the peak to the end, after an optional linear warm-up."""

    warmup: Fraction = Field(0.0, description="Fraction of training over which the rate rises from zero.")
    end: Fraction = Field(0.0, description="Last learning rate as a fraction of the peak.")


class OneCycle(Schedule, type="one_cycle", impl="mimetic.train.schedules:one_cycle"):
    """Cosine up, cosine down (Smith and Topin, arXiv 1708.07120), as torch's `OneCycleLR`."""

    rise: Fraction = Field(0.3, description="Fraction of training over which the rate rises.")
    start_div: Positive = Field(
        25.0, description="The first learning rate is the peak divided by this number."
    )
    end_div: Positive = Field(1e4, description="The last learning rate is the first divided by this number.")


class Triangular(Schedule, type="triangular", impl="mimetic.train.schedules:triangular"):
    """Linear between knots: 0 → peak → peak / 20 → 0 at 0, 2/5, 4/5 and 1 of training (ConvMixer)."""

    rise: Fraction = Field(0.4, description="Position of the peak as a fraction of training.")
    fall: Fraction = Field(0.8, description="Position of the low value as a fraction of training.")
    low: Fraction = Field(0.05, description="The low value as a fraction of the peak.")


class Checkpoint(Section):
    """When the state of a trial is saved."""

    every: Count = Field(1, description="Epochs between checkpoints.")
    minutes: Positive | None = Field(
        10.0, description="Minutes between checkpoints within an epoch at most; null saves after epochs only."
    )
    keep_weights: bool = Field(True, description="Save the final weights as an artifact.")


class Train(Section):
    """How a network is trained."""

    epochs: int = Field(
        10, ge=0, description="Passes over the training images; 0 evaluates the initial network."
    )
    batch_size: Count = Field(128, description="Images per step.")
    optimizer: Annotated[Optimizer, Registered("optimizer")] = Field(
        default_factory=AdamW, description="Optimizer."
    )
    schedule: Annotated[Schedule, Registered("schedule")] = Field(
        default_factory=Cosine, description="Learning rate over training, set at every step."
    )
    label_smoothing: Fraction = Field(0.0, description="Label smoothing of the cross-entropy.")
    clip_norm: Positive | None = Field(None, description="Maximum norm of the gradient.")
    mixup: NonNegative = Field(0.0, description="Alpha of mixup (arXiv 1710.09412); 0 disables it.")
    cutmix: NonNegative = Field(0.0, description="Alpha of cutmix (arXiv 1905.04899); 0 disables it.")
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        "auto", description="Arithmetic; auto is bf16 on a GPU that supports it and fp32 elsewhere."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        examples=["auto", "cpu", "cuda:0"],
        description="Device to train on.",
    )
    channels_last: bool = Field(True, description="Channels-last memory format of images and filters.")
    compile: bool | Literal["auto"] = Field(
        "auto", description="Compile the model with torch.compile; auto: on a GPU, if the run is long enough."
    )
    eval_every: Count = Field(1, description="Epochs between evaluations; the last is always evaluated.")
    eval_batch_size: Count = Field(500, description="Images per step of evaluation.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="When the state is saved.")
