"""The weights of an ONNX graph, in the order of its nodes, with the geometry that the nodes declare.

A weight is an initializer, or what the graph computes from initializers alone: casts, transpositions, weight
normalization, and DequantizeLinear. Nothing is executed but these operations on constants, none of which
makes a tensor larger than its inputs. External data are read from files beside the model, and from nowhere
else.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mimetic.errors import UserError
from mimetic.files import is_inside, open_regular
from mimetic.graph.config import SiteKind
from mimetic.graph.geometry import conv_kind
from mimetic.graph.names import canonical_name
from mimetic.graph.site import Geometry, shape_text
from mimetic.limits import CHECKPOINT_BYTES, LAYERS
from mimetic.models.checkpoint import check_size, first_line
from mimetic.models.stored_weight import WEIGHT, StoredWeight, Wanted, folded_note, rescaled

if TYPE_CHECKING:
    import onnx

_DEEPEST = 32
"""Most operations between an initializer and the layer that uses it."""

_MATRIX = 2
_QUANTIZED = "_quantized"
"""Ends the names of what ONNX Runtime quantizes; scale and zero point have the name without it."""


class _Use(NamedTuple):
    """How a node uses a weight: which inputs it has, and what it is as a map over patches."""

    weight: int
    bias: int | None
    reading: "Callable[[onnx.NodeProto, tuple[int, ...]], tuple[SiteKind, Geometry] | None]"
    scale: int | None = None


def read_onnx(path: Path, wanted: Wanted) -> Iterator[StoredWeight]:
    """Yield the weights of an ONNX graph in the order of its nodes, each at its first use.

    Args:
        path: The model; external data must be in its folder.
        wanted: Whether a weight is wanted, by its name.

    Raises:
        UserError: If `onnx` is not installed, or the file is missing, too large or damaged.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            f"{path}: reading ONNX files needs the package `onnx`; install `mimetic[onnx]`", code="MIM-M060"
        ) from error
    check_size(path)
    try:
        graph = onnx.load_model(path, format="protobuf", load_external_data=False).graph
    except Exception as error:  # protobuf raises its own errors
        raise UserError(
            f"{path}: not an ONNX model ({first_line(error)}); the file is damaged, export it again",
            code="MIM-M061",
        ) from error
    if LAYERS.is_exceeded_by(len(graph.node) / _DEEPEST):
        raise UserError(
            f"{path}: a graph of {len(graph.node)} nodes; {LAYERS.repair} (of {_DEEPEST} nodes each)",
            code="MIM-M062",
        )
    yield from _weights(_Constants(graph, path), graph, wanted)


def _weights(constants: "_Constants", graph: "onnx.GraphProto", wanted: Wanted) -> Iterator[StoredWeight]:
    uses = _uses()
    normed = any(node.op_type.endswith("Normalization") for node in graph.node)
    seen: set[str] = set()
    for node in graph.node:
        use = uses.get(node.op_type)
        if use is None or len(node.input) <= use.weight or not constants.knows(node.input[use.weight]):
            continue
        bias = node.input[use.bias] if use.bias is not None and len(node.input) > use.bias else ""
        name = _name(node, constants.origin(node.input[use.weight]), bias)
        if node.input[use.weight] in seen or not wanted(name):
            continue
        seen.add(node.input[use.weight])
        values, notes = constants.weight(node, use)
        # What the node does with it decides what it is as a map over patches.
        reading = use.reading(node, values.shape)
        if reading is None:
            continue
        kind, geometry = reading
        if geometry.kernel_size:
            notes += folded_note(bool(bias), normed)
        yield StoredWeight(name, values.contiguous(), kind, geometry, notes=notes)


def _uses() -> dict[str, _Use]:
    """Return the operators that have a weight."""
    return {
        "Conv": _Use(1, 2, _conv),
        "ConvTranspose": _Use(1, 2, _conv_transpose),
        "Gemm": _Use(1, 2, _gemm),
        "MatMul": _Use(1, None, _matmul),
        "Gather": _Use(0, None, _gather),
        "QLinearConv": _Use(3, 8, _conv, scale=4),
        "QLinearMatMul": _Use(3, None, _matmul, scale=4),
        "ConvInteger": _Use(1, None, _conv),
        "MatMulInteger": _Use(1, None, _matmul),
    }


def _name(node: "onnx.NodeProto", stored: str, bias: str) -> str:
    """Return the name of a weight: of the initializer, or else the one that bias or node suggest."""
    stored = stored.removesuffix(_QUANTIZED)
    if stored.endswith("weight"):
        name = stored
    elif bias.endswith(".bias"):
        name = bias.removesuffix(".bias") + WEIGHT
    elif node.name.startswith("/"):
        *above, last = node.name.strip("/").split("/")
        name = ".".join(above if above and last.startswith(node.op_type) else [*above, last]) + WEIGHT
    else:
        name = stored
    return canonical_name(name)


def _attribute(node: "onnx.NodeProto", name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _sides(node: "onnx.NodeProto", name: str, kernel: Sequence[int]) -> tuple[int, ...]:
    found = next((tuple(map(int, a.ints)) for a in node.attribute if a.name == name), ())
    return found if len(found) == len(kernel) else (1,) * len(kernel)


def _conv(node: "onnx.NodeProto", shape: tuple[int, ...]) -> tuple[SiteKind, Geometry] | None:
    outputs, inputs, *kernel = shape
    groups = _attribute(node, "group", 1)
    if groups < 1 or outputs % groups:
        return None
    geometry = Geometry(inputs * groups, outputs, tuple(kernel), _sides(node, "strides", kernel), groups)
    return conv_kind(geometry), geometry


def _conv_transpose(node: "onnx.NodeProto", shape: tuple[int, ...]) -> tuple[SiteKind, Geometry] | None:
    inputs, outputs, *kernel = shape
    groups = _attribute(node, "group", 1)
    if groups < 1 or inputs % groups:
        return None
    strides = _sides(node, "strides", kernel)
    geometry = Geometry(inputs, outputs * groups, tuple(kernel), strides, groups, transposed=True)
    return "conv_transpose", geometry


def _gemm(node: "onnx.NodeProto", shape: tuple[int, ...]) -> tuple[SiteKind, Geometry] | None:
    if _attribute(node, "transB", 0):
        return ("linear", Geometry(shape[1], shape[0])) if len(shape) == _MATRIX else None
    return _matmul(node, shape)


def _matmul(_node: "onnx.NodeProto", shape: tuple[int, ...]) -> tuple[SiteKind, Geometry] | None:
    return ("linear", Geometry(shape[0], shape[1], transposed=True)) if len(shape) == _MATRIX else None


def _gather(node: "onnx.NodeProto", shape: tuple[int, ...]) -> tuple[SiteKind, Geometry] | None:
    if len(shape) != _MATRIX or _attribute(node, "axis", 0) != 0:
        return None
    return "embedding", Geometry(shape[0], shape[1], transposed=True)


class _Constants:
    """What a graph knows without its inputs: initializers, and what it computes from them."""

    def __init__(self, graph: "onnx.GraphProto", path: Path) -> None:
        self.path = path
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes = {output: node for node in graph.node for output in node.output}
        for node in graph.node:
            values = [a.t for a in node.attribute if a.name == "value"]
            if node.op_type == "Constant" and values and node.output:
                self.stored.setdefault(node.output[0], values[0])
        # Nodes are in topological order. The value is the number of operations behind a constant.
        self.depths = dict.fromkeys(self.stored, 0)
        for node in graph.node:
            given = [self.depths.get(name, _DEEPEST) for name in node.input if name]
            depth = max(given, default=_DEEPEST) + 1
            if node.op_type in _OPERATIONS and depth <= _DEEPEST:
                self.depths |= dict.fromkeys(node.output, depth)

    def knows(self, name: str) -> bool:
        """Return whether a value follows from initializers by operations that are known."""
        return name in self.depths

    def origin(self, name: str) -> str:
        """Return the name of the initializer that a value comes from."""
        for _ in range(_DEEPEST):
            node = self.nodes.get(name)
            if name in self.stored or node is None or not node.input:
                break
            name = node.input[0]
        return name

    def weight(self, node: "onnx.NodeProto", use: _Use) -> tuple[Tensor, tuple[str, ...]]:
        """Return the weight of a node as it is used, and notes of how it is computed."""
        name = node.input[use.weight]
        values, origin = self.value(name), self.origin(name)
        notes = () if name in self.stored or name == origin else self._notes(name)
        if not values.is_floating_point():
            notes = (f"dequantized from {self._dtype(origin)}",)
            values = self._scaled(node, use, values, origin)
        return values.double(), notes

    def _scaled(self, node: "onnx.NodeProto", use: _Use, values: Tensor, origin: str) -> Tensor:
        """Return integers of an operator on integers times their scale."""
        base = origin.removesuffix(_QUANTIZED)
        names = (f"{base}_scale", f"{base}_zero_point")
        if use.scale is not None and len(node.input) > use.scale + 1:
            names = (node.input[use.scale], node.input[use.scale + 1])
        if not self.knows(names[0]):
            raise UserError(
                f"{self.path}: `{origin}` has integers whose scale is not in the graph; export the model "
                "before it is quantized, or choose other `layers`",
                code="MIM-M063",
            )
        zero = self.value(names[1]) if self.knows(names[1]) else None
        # Operators on matrices have the outputs last.
        return _dequantize(values, self.value(names[0]), zero, axis=0 if values.ndim > _MATRIX else -1)

    def value(self, name: str, known: dict[str, Tensor] | None = None) -> Tensor:
        """Return a constant; floats are float64."""
        known = {} if known is None else known
        if name not in known:
            if name in self.stored:
                known[name] = self._array(name)
            else:
                node = self.nodes[name]
                given = [self.value(part, known) for part in node.input if part]
                known[name] = _OPERATIONS[node.op_type](node, given)
        return known[name]

    def _array(self, name: str) -> Tensor:
        import onnx
        from onnx import numpy_helper

        tensor = self.stored[name]
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor = self._external(tensor)
        try:
            array = numpy_helper.to_array(tensor)
            integers = np.issubdtype(array.dtype, np.integer)
            found: Tensor = torch.from_numpy(array.copy() if integers else array.astype(np.float64))
        except Exception as error:  # a damaged file may raise anything
            raise UserError(
                f"{self.path}: `{name}` cannot be read ({first_line(error)}); the file is damaged, export it "
                "again",
                code="MIM-M064",
            ) from error
        return found

    def _external(self, tensor: "onnx.TensorProto") -> "onnx.TensorProto":
        """Return a tensor with the data that it names in another file.

        Raises:
            UserError: If that file is not in the model's folder, or too short.
        """
        import onnx

        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        place = PurePath(location)
        folder = self.path.absolute().parent
        file = folder / place
        if not location or place.is_absolute() or ".." in place.parts or not is_inside(file, folder):
            raise UserError(
                f"{self.path}: `{tensor.name}` is stored in `{location}`, outside the model's folder; copy "
                "both files, not links to them, into one folder",
                code="MIM-M065",
            )
        # Exactly the bytes of the tensor are read, never more.
        width = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        size = math.prod(tensor.dims) * width
        try:
            data = _read_part(file, int(entries.get("offset", 0)), int(entries.get("length", size)), size)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path}: `{tensor.name}` cannot be read from `{location}` ({first_line(error)}); put "
                "the file that was exported with the model beside it",
                code="MIM-M066",
            ) from error
        inside = onnx.TensorProto()
        inside.CopyFrom(tensor)
        inside.ClearField("external_data")
        inside.data_location = onnx.TensorProto.DEFAULT
        inside.raw_data = data
        return inside

    def _notes(self, name: str) -> tuple[str, ...]:
        """Return what the operations between an initializer and a weight are, where they change it."""
        operations: list[str] = []
        while name not in self.stored:
            node = self.nodes[name]
            operations.append(node.op_type)
            name = node.input[0]
        if "DequantizeLinear" in operations:
            return (f"dequantized from {self._dtype(name)}",)
        changing = sorted({"Mul", "Div"}.intersection(operations))
        return (f"computed by {' and '.join(changing)} in the graph",) if changing else ()

    def _dtype(self, name: str) -> str:
        import onnx

        found = str(onnx.TensorProto.DataType.Name(self.stored[name].data_type))
        return found.lower()


def _read_part(file: Path, offset: int, length: int, size: int) -> bytes:
    """Return a part of a file, of the size of a tensor.

    Raises:
        ValueError: If it is of another size, or the file ends before it does.
    """
    if CHECKPOINT_BYTES.is_exceeded_by(length) or offset < 0 or length != size:
        raise ValueError(f"{length} bytes at {offset} for a tensor of {size}")
    with open_regular(file) as opened:
        opened.seek(offset)
        data = opened.read(length)
    if len(data) < length:
        raise ValueError(f"it has {len(data)} bytes of {length}")
    return data


# ------------------------------------------------------------------------------- operations on constants
Operation = Callable[["onnx.NodeProto", list[Tensor]], Tensor]


def _identity(_node: "onnx.NodeProto", given: list[Tensor]) -> Tensor:
    return given[0]


def _transpose(node: "onnx.NodeProto", given: list[Tensor]) -> Tensor:
    reverse = list(range(given[0].ndim))[::-1]
    return given[0].permute(next((list(a.ints) for a in node.attribute if a.name == "perm"), reverse))


def _arithmetic(apply: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    """Return an operation on two tensors, of which one has the shape of the result."""

    def operation(node: "onnx.NodeProto", given: list[Tensor]) -> Tensor:
        one, other = given
        if np.broadcast_shapes(one.shape, other.shape) not in {tuple(one.shape), tuple(other.shape)}:
            raise UserError(
                f"`{node.name}` makes a tensor larger than its inputs, {shape_text(one.shape)} and "
                f"{shape_text(other.shape)}; choose other `layers`",
                code="MIM-M067",
            )
        return apply(one, other)

    return operation


def _norm(node: "onnx.NodeProto", given: list[Tensor]) -> Tensor:
    axes = given[1].flatten().tolist() if len(given) > 1 else None
    if axes is None:
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    sides = list(range(given[0].ndim)) if axes is None else [int(axis) for axis in axes]
    return given[0].square().sum(dim=sides, keepdim=bool(_attribute(node, "keepdims", 1))).sqrt()


def _dequantize_node(node: "onnx.NodeProto", given: list[Tensor]) -> Tensor:
    values, scale, *zero = given
    return _dequantize(values, scale, zero[0] if zero else None, axis=_attribute(node, "axis", 1))


def _dequantize(values: Tensor, scale: Tensor, zero: Tensor | None, *, axis: int) -> Tensor:
    """Return (q − z)·s; a vector of scales belongs to one side."""
    vector = scale.ndim == 1 and scale.numel() > 1
    moved = values.movedim(axis, 0) if vector else values
    found = rescaled(moved, scale, zero, name="a quantized weight")
    return found.movedim(0, axis) if vector else found


def _quantize_node(node: "onnx.NodeProto", given: list[Tensor]) -> Tensor:
    """Return the nearest integer to x/s, plus z, in the range of the zero point's type (uint8 without)."""
    values, scale, *zero = given
    axis = _attribute(node, "axis", 1)
    if scale.numel() > 1:
        scale = scale.reshape([-1 if side == axis % values.ndim else 1 for side in range(values.ndim)])
    shift = zero[0] if zero else torch.zeros((), dtype=torch.uint8)
    limits = torch.iinfo(shift.dtype)
    shift = shift.reshape(scale.shape if shift.numel() > 1 else ())
    return ((values / scale).round() + shift).clamp(limits.min, limits.max).to(torch.int64)


_OPERATIONS: Mapping[str, Operation] = {
    "Identity": _identity,
    "Cast": _identity,
    "Transpose": _transpose,
    "Mul": _arithmetic(torch.mul),
    "Div": _arithmetic(torch.div),
    "ReduceL2": _norm,
    "DequantizeLinear": _dequantize_node,
    "QuantizeLinear": _quantize_node,
}
