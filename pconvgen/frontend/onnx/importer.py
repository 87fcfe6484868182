"""TVM's ONNX importer with layer names on the variables, and with the operators that it gets wrong or lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, onnx_input

from pconvgen.frontend.onnx.converters import CONVERTERS
from pconvgen.frontend.onnx.windows import explicit_output, explicit_padding
from pconvgen.frontend.origins import Origin, Origins
from pconvgen.frontend.refusals import not_imported
from pconvgen.frontend.shapes import Shapes, check_shapes
from pconvgen.tvm_compat.relax import Expr, dtype_of, shapes_of

if TYPE_CHECKING:
    from onnx import GraphProto

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is a weight."""


class Importer(ONNXGraphImporter):
    """One import. Raises PconvgenError with the name of the node that TVM cannot convert.

    Parameters
    ----------
    shapes: input name -> static shape.
    variables: name of a node that has a weight -> name for the variable of its result before the bias.
    expected: name of a node -> the shapes of its results, None where ONNX cannot infer it.
    source: for errors.
    """

    def __init__(
        self,
        shapes: dict[str, list[int]],
        variables: Mapping[str, str],
        expected: Mapping[str, Shapes],
        source: str,
    ) -> None:
        super().__init__(shapes, {})
        self._expected = expected
        self._variables = variables
        self._source = source
        self.origins = Origins()

    def _check_for_unsupported_ops(self, graph: GraphProto) -> None:
        """Nothing: TVM does not know of our converters."""

    def _convert_operator(self, op_name: str, inputs: onnx_input, attrs: dict[str, Any], opset: int) -> Expr:
        node = attrs["tvm_custom"]["name"]
        attrs["tvm_custom"] |= {"operator": op_name, "opset": opset}
        result = self.bb.normalize(self._converted(node, op_name, inputs, attrs, opset))
        check_shapes(shapes_of(result), self._expected.get(node, ()), node, op_name, self._source)
        if isinstance(result, relax.Call):
            result = self.bb.emit(result)
        self.origins.note(result, Origin(node, op_name))
        return result

    def _converted(self, node: str, op_name: str, inputs: onnx_input, attrs: dict[str, Any], opset: int) -> Expr:
        try:
            if op_name in WEIGHTED:
                return self._weighted(op_name, inputs, attrs, opset, self._variables[node])
            convert = CONVERTERS.get(op_name)
            result = None if convert is None else convert(inputs, attrs, self.bb.emit)
            if result is not None:
                return result
            return super()._convert_operator(op_name, inputs, attrs, opset)
        except Exception as error:
            remedy = "replace the operator in the model, or export it with another exporter or opset"
            raise not_imported(error, Origin(node, op_name), self._source, remedy) from error

    def _weighted(self, op_name: str, inputs: onnx_input, attrs: dict[str, Any], opset: int, name: str) -> Expr:
        """The operator without its bias, bound to `name`; then the bias."""
        if op_name == "ConvTranspose":
            explicit_output(inputs, attrs)
        if op_name == "Conv":
            explicit_padding(inputs, attrs)
        bias = inputs[2]
        bare = type(inputs)(list(inputs)[:2])
        result = self.bb.emit(super()._convert_operator(op_name, bare, attrs, opset), name)
        if bias is None:
            return result
        if op_name == "Gemm":
            beta = attrs.get("beta", 1.0)
            bias = bias if beta == 1.0 else self.bb.emit(relax.op.multiply(bias, relax.const(beta, dtype_of(bias))))
        else:
            spatial = len(result.ty.shape) - 2
            bias = self.bb.emit(relax.op.reshape(bias, [1, -1] + [1] * spatial))
        return self.bb.normalize(relax.op.add(result, bias))
