"""ONNX graphs by hand: quantized weights, names, external data, and what is refused."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mimetic.errors import UserError
from mimetic.models.stored_weight import StoredWeight
from mimetic.models.weight_file import read_weights

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

RNG = np.random.default_rng(0)
FILTERS = RNG.normal(size=(4, 2, 3, 3)).astype(np.float32)
INTEGERS = RNG.integers(-100, 100, size=(4, 2, 3, 3)).astype(np.int8)
SCALES = RNG.uniform(0.5, 1.5, size=4).astype(np.float32)


def saved(path: Path, nodes: list[object], **constants: np.ndarray) -> Path:
    """Write a model of nodes and initializers; names have `__` for dots."""
    stored = [numpy_helper.from_array(array, name.replace("__", ".")) for name, array in constants.items()]
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [image], [output], stored)), path)
    return path


def only(path: Path) -> StoredWeight:
    """Return the only weight in a file."""
    (found,) = read_weights(path)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the model is written."""
    return tmp_path / "m.onnx"


def test_dequantized_initializers_are_weights(path: Path) -> None:
    """Per channel along any axis, with a zero point; the note says of what."""
    zero = np.array([1, 2, 3, 4], dtype=np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["conv.weight_quantized", "s", "z"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]),
    ]
    found = only(saved(path, nodes, conv__weight_quantized=INTEGERS, s=SCALES, z=zero))
    expected = (INTEGERS.astype(np.float64) - zero.reshape(4, 1, 1, 1)) * SCALES.reshape(4, 1, 1, 1).astype(
        float
    )
    assert (found.name, found.kind, found.geometry.stride) == ("conv.weight", "conv", (2, 2))
    assert found.notes == ("dequantized from int8",)
    torch.testing.assert_close(found.values, torch.from_numpy(expected))


def test_fake_quantized_weights_are_what_the_layer_uses(path: Path) -> None:
    """QuantizeLinear and DequantizeLinear behind a float weight: rounded and saturated."""
    scale, zero = np.float32(0.01), np.array(0, dtype=np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["c.weight", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    found = only(saved(path, nodes, c__weight=FILTERS, s=np.array(scale), z=zero))
    expected = np.clip(np.rint(FILTERS.astype(float) / scale), -128, 127) * float(scale)
    torch.testing.assert_close(found.values, torch.from_numpy(expected))


@pytest.mark.parametrize("operator", ["QLinearConv", "ConvInteger", "QLinearMatMul"])
def test_operators_on_integers_have_scales(path: Path, operator: str) -> None:
    """Among their inputs, or by the names that ONNX Runtime gives them."""
    weight = INTEGERS if "Conv" in operator else INTEGERS[0, 0]
    inputs = {
        "QLinearConv": ["x", "s1", "z1", "c.weight_quantized", "s", "z1", "s1", "z1"],
        "QLinearMatMul": ["x", "s1", "z1", "c.weight_quantized", "s", "z1", "s1", "z1"],
        "ConvInteger": ["x", "c.weight_quantized"],
    }[operator]
    scale = SCALES[: weight.shape[-1]] if operator == "QLinearMatMul" else SCALES
    constants = {"s1": np.array(0.5, np.float32), "z1": np.array(0, np.int8), "c__weight_quantized": weight}
    constants["c__weight_scale" if operator == "ConvInteger" else "s"] = scale
    found = only(saved(path, [helper.make_node(operator, inputs, ["y"])], **constants))
    sides = (1, -1) if operator == "QLinearMatMul" else (-1, 1, 1, 1)
    torch.testing.assert_close(found.values, torch.from_numpy(weight * scale.reshape(sides).astype(float)))


def test_integers_without_a_scale_are_an_error(path: Path) -> None:
    """They have no size."""
    saved(path, [helper.make_node("ConvInteger", ["x", "w"], ["y"])], w=INTEGERS)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert caught.value.code == "MIM-M063"
    assert read_weights(path, lambda name: name != "w") == ()


def external(path: Path, location: str, *, length: int | None = None) -> Path:
    """Write a model whose only weight is in another file."""
    saved(path, [helper.make_node("Conv", ["x", "c.weight"], ["y"])], c__weight=FILTERS)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": location, "offset": "8", "length": str(len(data) if length is None else length)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    (path.parent / "w.bin").write_bytes(bytes(8) + data)
    return path


def test_external_data_are_read_beside_the_model(path: Path) -> None:
    """At their offset."""
    found = only(external(path, "w.bin"))
    torch.testing.assert_close(found.values.float(), torch.from_numpy(FILTERS))


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "", "sub/../../w.bin", "link.bin"])
def test_external_data_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    """By any path, and by a link."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(UserError) as caught:
        read_weights(external(folder / "m.onnx", location))
    assert caught.value.code == "MIM-M065"


@pytest.mark.parametrize(("location", "length"), [("w.bin", 4), ("w.bin", 10**15), ("none.bin", None)])
def test_external_data_that_do_not_fit_are_errors(path: Path, location: str, length: int | None) -> None:
    """Too few bytes, more than memory, or no file."""
    with pytest.raises(UserError) as caught:
        read_weights(external(path, location, length=length))
    assert caught.value.code == "MIM-M066"


def test_a_graph_cannot_fill_the_memory(path: Path) -> None:
    """An outer product of vectors is not computed, and shared operands are computed once."""
    nodes = [helper.make_node("Mul", ["a", "b"], ["w"]), helper.make_node("Conv", ["x", "w"], ["y"])]
    saved(path, nodes, a=np.ones((1000, 1, 1, 1), np.float32), b=np.ones((1, 1000, 3, 3), np.float32))
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert caught.value.code == "MIM-M067"
    names = ["c.weight", *(f"t{n}" for n in range(100))]
    chain = [helper.make_node("Mul", [one, one], [two]) for one, two in pairwise(names)]
    used = [helper.make_node("Conv", ["x", name], [f"y{name}"]) for name in ("t20", "t99")]
    saved(path, [*chain, *used], c__weight=np.ones((2, 2, 3, 3), np.float32))
    assert len(read_weights(path)) == 1  # the other is behind too many operations


@pytest.mark.parametrize("content", [b"\x08", b"not a model" * 10])
def test_damaged_models_are_errors(path: Path, content: bytes) -> None:
    """Not a traceback."""
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert caught.value.code == "MIM-M061"
