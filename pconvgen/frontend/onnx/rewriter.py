"""A graph that is written anew: constants, nodes, and the numbers that quantised tensors stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from pconvgen.errors import PconvgenError

Array = NDArray[Any]

_LIMITS = {
    onnx.TensorProto.UINT8: (0, 255),
    onnx.TensorProto.INT8: (-128, 127),
    onnx.TensorProto.UINT16: (0, 65535),
    onnx.TensorProto.INT16: (-32768, 32767),
    onnx.TensorProto.UINT4: (0, 15),
    onnx.TensorProto.INT4: (-8, 7),
}
"""The least and the largest number of each type."""

_PLAIN = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
"""Attributes of Constant that are no tensors."""


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Name -> value."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


class Rewriter:
    """The graph that is made: its nodes in order, and the constants that are known."""

    def __init__(self, model: onnx.ModelProto, source: str) -> None:
        self.graph = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self.weights: set[str] = set()
        self._model, self._source = model, source
        self._ranks: dict[str, int] | None = None
        self._names = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._node: Any = None
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                ((key, value),) = attributes_of(node).items()
                if key == "value":
                    self._constants[node.output[0]] = value
                elif key in _PLAIN:
                    self._constants[node.output[0]] = numpy_helper.from_array(np.array(value, _PLAIN[key]))

    def of(self, node: onnx.NodeProto) -> Rewriter:
        """Itself, for the node that is being replaced."""
        self._node = node
        return self

    def refuse(self, message: str, found: object) -> PconvgenError:
        """The error for the node that is being replaced."""
        return PconvgenError(
            message,
            file=self._source,
            layer=self._node.name,
            found=found,
            remedy="quantise the model in another way, or export it in float32",
        )

    def value(self, name: str) -> Array | None:
        """The value of a constant; None when it is computed."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def element(self, name: str) -> int | None:
        """The type of a constant's elements; None when it is computed."""
        tensor = self._constants.get(name)
        return None if tensor is None else int(tensor.data_type)

    def constant(self, array: Any, name: str = "") -> str:
        """A constant in float32."""
        tensor = numpy_helper.from_array(np.asarray(array, np.float32), name or self._fresh("constant"))
        self.graph.initializer.append(tensor)
        self._constants[tensor.name] = tensor
        return str(tensor.name)

    def emit(self, op: str, *inputs: str, output: str = "", name: str = "", **attributes: Any) -> str:
        """A node, the name of whose output is returned."""
        output = output or self._fresh(op)
        self.nodes.append(helper.make_node(op, list(inputs), [output], name or output, **attributes))
        return output

    def _fresh(self, op: str) -> str:
        name, count = f"{self._node.name}_{op}", 1
        while name in self._names:
            count += 1
            name = f"{self._node.name}_{op}_{count}"
        self._names.add(name)
        return name

    def rank(self, name: str) -> int:
        """Of a tensor of the model, by shape inference. Raises PconvgenError where it does not tell."""
        if self._ranks is None:
            inferred = onnx.shape_inference.infer_shapes(self._model).graph
            values = [*inferred.input, *inferred.value_info, *inferred.output]
            self._ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        if name not in self._ranks:
            raise self.refuse("scales along an axis of a tensor whose rank is not known", name)
        return self._ranks[name]

    def parameter(self, given: str, name: str, axis: int, block: int = 0) -> str | Array | None:
        """A scale or zero point of the tensor `name`, in a shape that broadcasts: an array, the name of one that is
        computed, or None when there is none."""
        if not given:
            return None
        array = self.value(given)
        if array is None:
            return self.emit("Cast", given, to=onnx.TensorProto.FLOAT)
        array, data = array.astype(np.float32), self.value(name)
        if block:
            axis %= array.ndim
            repeated = np.repeat(array, block, axis)
            return repeated if data is None else repeated.take(range(data.shape[axis]), axis)
        if array.size == 1:
            return array.reshape(())
        if array.ndim > 1:
            return array
        behind = -axis - 1 if axis < 0 else (self.rank(name) if data is None else data.ndim) - axis - 1
        return array.reshape(-1, *[1] * behind)

    def operand(self, parameter: str | Array) -> str:
        """The name of a scale or zero point."""
        return parameter if isinstance(parameter, str) else self.constant(parameter)

    def dequantise(
        self, name: str, scale: str, zero: str, *, axis: int = 1, block: int = 0, output: str = "", weight: bool = False
    ) -> str:
        """The floats that a quantised tensor stands for: (x - zero) * scale; `scale` may be "", for 1."""
        data = self.value(name)
        factor, offset = (self.parameter(given, name, axis, block) for given in (scale, zero))
        if data is not None and not isinstance(factor, str) and not isinstance(offset, str):
            floats = data.astype(np.float32)
            floats = floats if offset is None else floats - offset
            floats = floats if factor is None else (floats * factor).astype(np.float32)
            # The weight's name comes first: from it the layer is named.
            output = self.constant(floats, output or ("" if not weight else self._weight_name(name)))
            self.weights.add(output)
            return output
        result = self.emit("Cast", name, to=onnx.TensorProto.FLOAT)
        if offset is not None and (isinstance(offset, str) or offset.any()):
            result = self.emit("Sub", result, self.operand(offset))
        if factor is not None:
            result = self.emit("Mul", result, self.operand(factor))
        return self.emit("Identity", result, output=output) if output else result

    def _weight_name(self, name: str) -> str:
        while (name := f"{name}_dequantised") in self._names:
            pass
        self._names.add(name)
        return name

    def quantise(
        self, name: str, scale: str, zero: str, output: str, *, axis: int = 1, block: int = 0, element: int = 0
    ) -> None:
        """round(x / scale) + zero, within the limits of the type; halves are rounded to the even number."""
        element = element or self.element(zero) or onnx.TensorProto.UINT8
        if element not in _LIMITS:
            raise self.refuse("numbers are quantised to an unknown type", onnx.TensorProto.DataType.Name(element))
        low, high = _LIMITS[element]
        data = self.value(name)
        factor, offset = (self.parameter(given, name, axis, block) for given in (scale, zero))
        assert factor is not None
        if data is not None and not isinstance(factor, str) and not isinstance(offset, str):
            floats = np.rint(data.astype(np.float32) / factor) + (0 if offset is None else offset)
            self.constant(np.clip(floats, low, high), output)
            return
        result = self.emit("Round", self.emit("Div", name, self.operand(factor)))
        if offset is not None and (isinstance(offset, str) or offset.any()):
            result = self.emit("Add", result, self.operand(offset))
        self.emit("Clip", result, self.constant(low), self.constant(high), output=output)
