"""Sections of the example plug-in. No torch: a recipe that names them is validated without it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from mimetic.config.base import Count, Positive
from mimetic.covariance.config import CovarianceSource
from mimetic.data.config import ImageData
from mimetic.data.shapes import ImageShape
from mimetic.initializers.config import Init
from mimetic.models.config import Model
from mimetic.study.config import Executor
from mimetic.train.config import Optimizer


class Laplace(Init, type="laplace", impl="mimetic_example.initializers:laplace"):
    """Draw from the Laplace distribution of a given standard deviation."""

    std: Positive = Field(0.02, description="Standard deviation.")


class Exponential(CovarianceSource, type="exponential", impl="mimetic_example.covariances:exponential"):
    """Correlate the pixels of a filter by exp(−distance / length)."""

    example: ClassVar[Mapping[str, Any]] = {"length": 1.5}

    length: Positive = Field(description="Correlation length in pixels.")


class Stripes(ImageData, type="stripes", impl="mimetic_example.data:stripes"):
    """Horizontal or vertical stripes in noise, 8×8 and grey."""

    fixed_shape = ImageShape(channels=1, height=8, width=8, num_classes=2)

    count: Count = Field(256, description="Training images; a quarter as many for testing.")


class TinyConv(Model, type="tiny_conv", impl="mimetic_example.models:tiny_conv"):
    """Two convolutions, a mean over the pixels and a linear classifier."""

    width: Count = Field(8, description="Channels.")


class SignSgd(Optimizer, type="sign_sgd", impl="mimetic_example.optimizers:sign_sgd"):
    """Step by the sign of the gradient (Bernstein et al., arXiv 1802.04434)."""

    lr: Positive = Field(1e-3, description="Learning rate, the peak of the schedule.")


class Inline(Executor, type="inline", impl="mimetic_example.executors:inline"):
    """Train every trial in the coordinator's own process."""
