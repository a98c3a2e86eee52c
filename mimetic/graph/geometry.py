"""Kind and geometry of a layer.

torch's layers are recognized by class, others by attributes and shapes that agree. So the layers of timm and
transformers are recognized without importing either library.
"""

from numbers import Integral

from torch import nn

from mimetic.graph.computed import tensor_like
from mimetic.graph.config import SiteKind
from mimetic.graph.own import own_parameters
from mimetic.graph.site import Geometry

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # noqa: SLF001
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)

Reading = tuple[SiteKind, Geometry | None]


def kind_and_geometry(module: nn.Module) -> Reading:
    """Return the kind of a layer, and the geometry of its weight as a map over patches or None.

    A convolution is depthwise if each input channel is a separate group (with any number of filters per
    channel), and pointwise if it has one group and all sides of its kernel are 1; a grouped 1×1 convolution
    is a `conv`. An embedding is a linear map of one-hot vectors, stored input first. Anything else with
    parameters (a class token, LayerScale, fused projections of attention, an LSTM) is `other`. A weight whose
    shape differs from the declared one (packed by a quantizer) has no geometry; a weight computed by a
    parametrization has one.
    """
    for read in (_conv, _linear, _transposed_linear, _router, _norm, _embedding):
        reading = read(module)
        if reading is not None:
            return reading
    return "other", None


def conv_kind(geometry: Geometry) -> SiteKind:
    """Return the kind of a convolution of this geometry."""
    if geometry.transposed:
        return "conv_transpose"
    if geometry.groups > 1 and geometry.groups == geometry.in_channels:
        return "depthwise_conv"
    if geometry.groups == 1 and all(side == 1 for side in geometry.kernel_size):
        return "pointwise_conv"
    return "conv"


def _conv(module: nn.Module) -> Reading | None:
    sizes = _ints(module, "in_channels", "out_channels", "groups")
    kernel_size, stride = getattr(module, "kernel_size", None), getattr(module, "stride", None)
    if sizes is None or not isinstance(kernel_size, tuple) or not isinstance(stride, tuple):
        return None
    inputs, outputs, groups = sizes
    if groups < 1:
        return None
    transposed = getattr(module, "transposed", False) is True
    geometry = Geometry(inputs, outputs, kernel_size, stride, groups, transposed=transposed)
    shape = (inputs, outputs // groups) if transposed else (outputs, inputs // groups)
    return _read(module, conv_kind(geometry), geometry, (*shape, *kernel_size), _CONVS)


def _linear(module: nn.Module) -> Reading | None:
    sizes = _ints(module, "in_features", "out_features")
    if sizes is None:
        return None
    inputs, outputs = sizes
    return _read(module, "linear", Geometry(inputs, outputs), (outputs, inputs), (nn.Linear,))


def _router(module: nn.Module) -> Reading | None:
    """Recognize a linear map to the scores of experts, of which `top_k` are used."""
    sizes = _ints(module, "num_experts", "top_k")
    if sizes is None:
        return None
    weight = tensor_like(module, "weight")
    if weight is None or weight.ndim != 2 or weight.shape[0] != sizes[0]:  # noqa: PLR2004
        return None
    return "linear", Geometry(int(weight.shape[1]), sizes[0])


def _transposed_linear(module: nn.Module) -> Reading | None:
    """Recognize GPT-2's `Conv1D`, a linear layer stored input first: weight (nx, nf), outputs `nf`."""
    sizes = _ints(module, "nf")
    if sizes is None:
        return None
    weight = tensor_like(module, "weight")
    if weight is None or weight.ndim != 2 or weight.shape[1] != sizes[0]:  # noqa: PLR2004
        return None
    return "linear", Geometry(int(weight.shape[0]), sizes[0], transposed=True)


def _norm(module: nn.Module) -> Reading | None:
    """Recognize a normalization: torch's, or a 1-d weight over declared features, or one named norm."""
    if isinstance(module, _NORMS):
        return "norm", None
    weight = tensor_like(module, "weight")
    if weight is None or weight.ndim != 1:
        return None
    attributes = module.__dict__
    declared = any(
        attributes.get(name) in (tuple(weight.shape), list(weight.shape), weight.shape[0])
        for name in ("normalized_shape", "num_features", "num_channels")
    )
    flat = all(p is None or p.ndim == 1 for p in own_parameters(module).values())
    named = any("norm" in base.__name__.lower() for base in type(module).__mro__)
    return ("norm", None) if declared or (named and flat) else None


def _embedding(module: nn.Module) -> Reading | None:
    sizes = _ints(module, "num_embeddings", "embedding_dim")
    if sizes is None:
        return None
    rows, width = sizes
    return _read(module, "embedding", Geometry(rows, width, transposed=True), sizes, _EMBEDDINGS)


def _read(
    module: nn.Module,
    kind: SiteKind,
    geometry: Geometry,
    shape: tuple[int, ...],
    classes: tuple[type[nn.Module], ...],
) -> Reading | None:
    """Trust the attributes of torch's classes; of others, only if the weight has the declared shape."""
    weight = tensor_like(module, "weight")
    if weight is not None and tuple(weight.shape) == shape:
        return kind, geometry
    if isinstance(module, classes):
        return kind, geometry if weight is None else None
    return None


def _ints(module: nn.Module, *names: str) -> tuple[int, ...] | None:
    """Return attributes of a module if all are integers."""
    values = []
    for name in names:
        value = module.__dict__.get(name)
        if type(value) is not int:
            if not isinstance(value, Integral) or isinstance(value, bool):
                return None
            value = int(value)
        values.append(value)
    return tuple(values)
