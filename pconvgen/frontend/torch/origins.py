"""Converters that note which node of the network their result comes from, and whose results have PyTorch's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pconvgen.frontend.origins import Origin, Origins
from pconvgen.frontend.refusals import not_imported
from pconvgen.frontend.torch.promotion import Converter, typed
from pconvgen.tvm_compat.relax import Expr

if TYPE_CHECKING:
    from torch.fx import Node
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

REMEDY = "replace the operator in the model, or compile a part of the network without it"


def origin_of(node: Node) -> Origin:
    """The module that calls an operator, or the node's name outside of modules; and the operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return Origin((stack[-1][0] if stack else "") or node.name, node.target.__name__.partition(".")[0])


def noting(
    convert_map: Mapping[str, Callable[[Node], Expr]], own: Mapping[str, Converter], origins: Origins, source: str
) -> dict[str, Converter]:
    """TVM's converters, with `own` in their places, as a `custom_convert_map` that notes in `origins` what comes from
    where. Converters raise PconvgenError with the node that cannot be imported, of `source`."""

    def noted(convert: Converter) -> Converter:
        def converted(node: Node, importer: ExportedProgramImporter) -> Expr:
            origin = origin_of(node)
            try:
                result = convert(node, importer)
            except Exception as error:
                raise not_imported(error, origin, source, REMEDY) from error
            origins.note(result, origin)
            return result

        return converted

    theirs = {name: (lambda node, _, convert=convert: convert(node)) for name, convert in convert_map.items()}
    return {name: noted(typed(convert)) for name, convert in {**theirs, **own}.items()}
