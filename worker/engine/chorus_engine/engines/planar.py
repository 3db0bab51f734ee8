"""A decoder's graph, rewritten for the convolutions that onnxruntime is fastest at on one thread.

onnxruntime computes two-dimensional convolutions on blocks of channels that lie together, and one-dimensional
ones by unrolling their input into a matrix. A waveform decoder has few channels and many samples, so the
unrolling costs more than the products. Seen as images of one row, its convolutions take the better way. That
way cannot share one row among threads, so it is for a decoder that runs on one thread.

To stay in blocks from one convolution to the next, three things are written so that onnxruntime has them
there:
- an activation that follows no convolution is that of a convolution that changes nothing;
- so is what comes out of an upsampling, which is computed on plain arrays;
- a division before an activation is in the weights behind it (scaling and a leaky ReLU can change places).

What is computed is the same but for rounding, which `vits_load` checks as for every graph.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_OPERATIONS = _CONVOLUTIONS | {"Add", "Constant", "Div", "LeakyRelu", "Tanh"}
_ROW = "row_axis"


class NotPlanar(ValueError):
    """The graph has something in it that this rewriting does not know."""


def rewrite(source: Path, target: Path) -> None:
    """Writes the rewritten graph of `source`; NotPlanar if it is of another kind."""
    model = onnx.load(source)
    unknown = Counter(node.op_type for node in model.graph.node).keys() - _OPERATIONS
    if unknown:
        raise NotPlanar(f"a decoder with {', '.join(sorted(unknown))}")
    graph = _Graph(model.graph)
    graph.fold_divisions()
    graph.add_row()
    graph.settle_in_blocks()
    onnx.save(model, target)


class _Graph:
    """A graph under rewriting, with its weights at hand."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._weights = {weight.name: weight for weight in graph.initializer}

    def fold_divisions(self) -> None:
        """Takes out divisions by a positive number whose result goes through leaky ReLUs to convolutions."""
        constants = {
            node.output[0]: numpy_helper.to_array(node.attribute[0].t)
            for node in self._graph.node
            if node.op_type == "Constant"
        }
        for node in [node for node in self._graph.node if node.op_type == "Div"]:
            divisor = constants.get(node.input[1])
            readers = self._readers(node.output[0])
            if divisor is None or divisor.size != 1 or not divisor.item() > 0 or len(readers) != 1:
                continue
            (activation,) = readers
            convolutions = self._readers(activation.output[0])
            if activation.op_type == "LeakyRelu" and all(
                reader.op_type in _CONVOLUTIONS for reader in convolutions
            ):
                for convolution in convolutions:
                    self._set(convolution.input[1], self._array(convolution.input[1]) / divisor)
                activation.input[0] = node.input[0]
                self._graph.node.remove(node)

    def add_row(self) -> None:
        """Gives every array [B, C, T] an axis of one row: [B, C, 1, T]."""
        widened: set[str] = set()
        for node in self._graph.node:
            if node.op_type in _CONVOLUTIONS:
                if node.input[1] not in widened:
                    widened.add(node.input[1])
                    self._set(node.input[1], self._array(node.input[1])[:, :, np.newaxis])
                _widen_attributes(node)
        self._add_weight(_ROW, np.array([2], np.int64))
        entries = [self._rename(entry.name, "Unsqueeze") for entry in self._graph.input]
        (result,) = self._graph.output
        for node in self._graph.node:
            _replace(node.output, result.name, result.name + "_row")
        exit_node = helper.make_node("Squeeze", [result.name + "_row", _ROW], [result.name])
        self._replace_nodes([*entries, *self._graph.node, exit_node])
        del self._graph.value_info[:]

    def settle_in_blocks(self) -> None:
        """Puts a convolution that changes nothing behind each upsampling, and before each activation that
        cannot be part of the convolution before it."""
        producers = {name: node for node in self._graph.node for name in node.output}
        readers: dict[str, int] = defaultdict(int)
        for node in self._graph.node:
            for name in node.input:
                readers[name] += 1
        nodes: list[NodeProto] = []
        for node in self._graph.node:
            if node.op_type == "LeakyRelu":
                before = producers.get(node.input[0])
                is_fused = before is not None and before.op_type == "Conv" and readers[node.input[0]] == 1
                channels = self._channels(node.input[0], producers)
                if not is_fused and channels is not None:
                    plain = node.input[0]
                    node.input[0] = f"{node.output[0]}_same"
                    nodes.append(self._same(plain, node.input[0], channels))
            nodes.append(node)
            if node.op_type == "ConvTranspose":
                result = node.output[0]
                node.output[0] = f"{result}_plain"
                nodes.append(self._same(node.output[0], result, self._array(node.input[1]).shape[1]))
        self._replace_nodes(nodes)

    def _same(self, source: str, result: str, channels: int) -> NodeProto:
        """A convolution that gives back what it is given."""
        ones = f"ones_{channels}"
        if ones not in self._weights:
            self._add_weight(ones, np.ones((channels, 1, 1, 1), np.float32))
        return helper.make_node(
            "Conv", [source, ones], [result], name=result, group=channels, kernel_shape=[1, 1]
        )

    def _channels(self, name: str, producers: dict[str, NodeProto]) -> int | None:
        """The channels of an array, as the convolution that it comes from says."""
        node = producers.get(name)
        while node is not None and node.op_type not in _CONVOLUTIONS:
            node = producers.get(node.input[0])
        if node is None:
            return None
        return self._array(node.input[1]).shape[0 if node.op_type == "Conv" else 1]

    def _rename(self, name: str, operation: str) -> NodeProto:
        """Has all that read an input read what an operation makes of it."""
        for node in self._graph.node:
            _replace(node.input, name, name + "_row")
        return helper.make_node(operation, [name, _ROW], [name + "_row"])

    def _readers(self, name: str) -> list[NodeProto]:
        return [node for node in self._graph.node if name in node.input]

    def _array(self, name: str) -> np.ndarray:
        weight = self._weights.get(name)
        if weight is None:
            raise NotPlanar(f"weights that are computed: {name}")
        return numpy_helper.to_array(weight)

    def _set(self, name: str, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values, np.float32)
        self._weights[name].CopyFrom(numpy_helper.from_array(values, name))

    def _add_weight(self, name: str, values: np.ndarray) -> None:
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        self._weights[name] = self._graph.initializer[-1]

    def _replace_nodes(self, nodes: Iterable[NodeProto]) -> None:
        kept = list(nodes)
        del self._graph.node[:]
        self._graph.node.extend(kept)


def _replace(names: list[str], old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def _widen_attributes(node: NodeProto) -> None:
    """Attributes of one axis to those of two, of which the first is the row."""
    beside = {"kernel_shape": 1, "dilations": 1, "strides": 1, "output_padding": 0}
    for attribute in node.attribute:
        values = list(attribute.ints)
        if attribute.name in beside:
            widened = [beside[attribute.name], *values]
        elif attribute.name == "pads":
            widened = [0, values[0], 0, values[1]]
        else:
            continue
        del attribute.ints[:]
        attribute.ints.extend(widened)
