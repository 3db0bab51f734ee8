"""Reading a Piper voice: its description, the network's sizes, and its weights under Coqui's names.

Piper's voices are VITS networks, exported to ONNX for inference. The export keeps almost every weight under
the name it had in training; the rest is found through the graph. Sizes are read off the shapes of weights
and the attributes of nodes, never assumed, so that a network of another make is refused instead of mangled.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PAD, BOS, EOS = "_", "^", "$"
BLANK = "<BLNK>"
# What Coqui's Vits fixes in code; a voice trained with other values cannot be expressed.
FLOWS, FLOW_LAYERS, FLOW_KERNEL, RELATIVE_WINDOW = 4, 4, 5, 4
# Parts of the network that serve training alone. An export for inference has no weights for them.
_TRAINING_ONLY = ("posterior_encoder.", "duration_predictor.post_", "duration_predictor.flows.1.")
_WEIGHT_NORM = ".parametrizations.weight.original"


class Refused(Exception):
    """A voice that cannot be imported; `reason` is for programs, the message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Description:
    """What the JSON file beside a voice says. `symbols` maps single characters to embedding rows."""

    sample_rate: int
    language: str
    symbols: dict[str, int]
    noise_scale: float
    noise_scale_dp: float
    length_scale: float


@dataclass(frozen=True)
class Sizes:
    """Sizes of a VITS network, in the words of Coqui's `VitsArgs`."""

    hidden_channels: int
    ffn_channels: int
    heads: int
    encoder_layers: int
    encoder_kernel: int
    resblock_type: str
    resblock_kernels: list[int]
    resblock_dilations: list[list[int]]
    upsample_rates: list[int]
    upsample_kernels: list[int]
    upsample_channels: int

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.upsample_rates)


def describe(path: Path) -> Description:
    """Reads a voice's JSON file; refuses voices of several speakers and of other phonemizers."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        speakers = int(values.get("num_speakers", 1))
        phonemes = values.get("phoneme_type", "espeak")
        inference = values.get("inference", {})
        ids = values["phoneme_id_map"]
        described = Description(
            sample_rate=int(values["audio"]["sample_rate"]),
            language=str(values["espeak"]["voice"]),
            symbols={symbol: int(rows[0]) for symbol, rows in ids.items() if len(symbol) == 1},
            noise_scale=float(inference.get("noise_scale", 0.667)),
            noise_scale_dp=float(inference.get("noise_w", 0.8)),
            length_scale=float(inference.get("length_scale", 1.0)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Refused("unreadable", f"{path} is no description of a Piper voice: {error!r}") from error
    if speakers != 1:
        raise Refused(
            "multi_speaker", f"the voice has {speakers} speakers; only voices of one can be imported"
        )
    if phonemes != "espeak":
        raise Refused(
            "phonemizer", f"the voice takes {phonemes} symbols; only espeak phonemes can be imported"
        )
    if not {PAD, BOS, EOS} <= described.symbols.keys():
        raise Refused("unreadable", f"{path} has no symbols for padding, beginning and end")
    return described


def vocabulary(description: Description) -> tuple[str, str]:
    """Phoneme characters and punctuation of a voice.

    Piper decomposes phonemes before it looks them up, so a composed character whose parts are symbols was
    never trained; it is left out, and the engine's tokenizer decomposes in its turn.
    """
    symbols = [symbol for symbol in description.symbols if symbol not in (PAD, BOS, EOS)]
    trained = [symbol for symbol in symbols if unicodedata.normalize("NFD", symbol) == symbol]
    punctuation = [symbol for symbol in trained if unicodedata.category(symbol)[0] in "PZ"]
    return "".join(symbol for symbol in trained if symbol not in punctuation), "".join(punctuation)


class Graph:
    """The weights of an exported network by name, and the attributes of its convolutions by weight name."""

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        try:
            graph = onnx.load(str(path)).graph
            self.weights = {
                entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy())
                for entry in graph.initializer
            }
        except Exception as error:
            raise Refused("unreadable", f"{path} cannot be read as ONNX: {error!r}"[:500]) from error
        if any(entry.name == "sid" for entry in graph.input):
            raise Refused("multi_speaker", "the network takes a speaker; only voices of one can be imported")
        self.convolutions: dict[str, dict[str, list[int]]] = {}
        for node in graph.node:
            self._name(node)

    def _name(self, node: Any) -> None:
        """Gives weights that the export left anonymous or misnamed the name they had in training."""
        if node.op_type in ("Conv", "ConvTranspose"):
            name = node.input[1]
            if name.startswith("onnx::") and len(node.input) > 2 and name in self.weights:
                anonymous, name = name, re.sub(r"\.bias$", ".weight", node.input[2])
                self.weights[name] = self.weights.pop(anonymous)
            self.convolutions[name] = {entry.name: list(entry.ints) for entry in node.attribute}
        elif node.op_type == "Gather" and node.input[1] == "input":
            self.weights["enc_p.emb.weight"] = self.weights.pop(node.input[0])
        elif node.op_type in ("Mul", "Div"):
            self._unfold_scale(node)

    def _unfold_scale(self, node: Any) -> None:
        """The export folds exp(-logs) of the duration predictor's first flow to a constant."""
        for name in node.input:
            if re.search(r"/dp/flows\.0/Exp(_\d+)?_output_0$", name) and name in self.weights:
                self.weights["dp.flows.0.logs"] = -torch.log(self.weights[name])

    def shape(self, name: str) -> list[int]:
        """Shape of a weight; refuses networks that lack it."""
        if name not in self.weights:
            raise Refused(
                "unknown_network", f"the network has no weight {name}: it is no VITS voice of Piper's"
            )
        return list(self.weights[name].shape)

    def count(self, pattern: str) -> int:
        """How many consecutive indices, from 0, a weight name with a gap for the index has."""
        index = 0
        while pattern.format(index) in self.weights:
            index += 1
        return index


def sizes(graph: Graph) -> Sizes:
    """Sizes of the network, from its weights."""
    ffn, hidden, kernel = graph.shape("enc_p.encoder.ffn_layers.0.conv_1.weight")
    _, window, head = graph.shape("enc_p.encoder.attn_layers.0.emb_rel_k")
    flow_kernel = graph.shape("flow.flows.0.enc.in_layers.0.weight")[2]
    flow_layers = graph.count("flow.flows.0.enc.in_layers.{}.weight")
    flows = sum(f"flow.flows.{index}.pre.weight" in graph.weights for index in range(0, 64, 2))
    found = (flows, flow_layers, flow_kernel, (window - 1) // 2)
    if found != (FLOWS, FLOW_LAYERS, FLOW_KERNEL, RELATIVE_WINDOW):
        raise Refused("unknown_size", f"flows, their layers, kernel and attention window are {found}")
    kernels, dilations, kind = _resblocks(graph)
    stages = [f"dec.ups.{index}.weight" for index in range(graph.count("dec.ups.{}.weight"))]
    return Sizes(
        hidden_channels=hidden,
        ffn_channels=ffn,
        heads=hidden // head,
        encoder_layers=graph.count("enc_p.encoder.attn_layers.{}.conv_q.weight"),
        encoder_kernel=kernel,
        resblock_type=kind,
        resblock_kernels=kernels,
        resblock_dilations=dilations,
        upsample_rates=[graph.convolutions[stage]["strides"][0] for stage in stages],
        upsample_kernels=[graph.shape(stage)[2] for stage in stages],
        upsample_channels=graph.shape("dec.conv_pre.weight")[0],
    )


def _resblocks(graph: Graph) -> tuple[list[int], list[list[int]], str]:
    """Kernels and dilations of the first stage's residual blocks (all stages are alike), and their type."""
    stages = graph.count("dec.ups.{}.weight")
    kind, part = ("2", "convs") if "dec.resblocks.0.convs.0.weight" in graph.weights else ("1", "convs1")
    blocks = graph.count(f"dec.resblocks.{{}}.{part}.0.weight")
    if stages == 0 or blocks == 0 or blocks % stages != 0:
        raise Refused("unknown_network", f"the decoder has {stages} stages and {blocks} residual blocks")
    kernels, dilations = [], []
    for block in range(blocks // stages):
        names = f"dec.resblocks.{block}.{part}.{{}}.weight"
        convolutions = [names.format(index) for index in range(graph.count(names))]
        kernels.append(graph.shape(convolutions[0])[2])
        dilations.append([graph.convolutions[name]["dilations"][0] for name in convolutions])
    return kernels, dilations, kind


def transfer(graph: Graph, rows: list[int], wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under Coqui's names and in its shapes; `rows` are the embedding rows of Coqui's vocabulary.

    Training-only parts keep the value they have in `wanted`. Anything else that is missing, of another
    size or left over means that the network is not what it was taken for, and is refused.
    """
    given: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    for name, fresh in wanted.items():
        source = source_name(name)
        value = graph.weights.get(source)
        if value is None:
            if not name.startswith(_TRAINING_ONLY):
                raise Refused("unknown_network", f"the network has no weight {source}")
            given[name] = fresh
            continue
        used.add(source)
        if name == "text_encoder.emb.weight":
            value = value[rows]
        given[name] = _shaped(name, value, fresh)
    leftover = sorted(set(_named(graph.weights)) - used)
    if leftover:
        raise Refused("unknown_network", f"no place for the weights {', '.join(leftover[:5])}")
    return given


def _named(weights: dict[str, torch.Tensor]) -> Iterator[str]:
    return (name for name in weights if re.match(r"(enc_p|dec|flow|dp|emb_g)\.", name))


def _shaped(name: str, value: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """A weight in its place's shape; weight norm is folded, and `original0` is its magnitude."""
    if name.endswith(f"{_WEIGHT_NORM}0"):
        value = value.flatten(1).norm(dim=1)
    if value.numel() != fresh.numel():
        shapes = f"{list(value.shape)} instead of {list(fresh.shape)}"
        raise Refused("unknown_size", f"the weight {source_name(name)} has shape {shapes}")
    return value.reshape(fresh.shape).to(torch.float32).clone()


def source_name(name: str) -> str:
    """Piper's name of a weight of Coqui's.

    Between the flows Piper counts the reversals, which have no weights: Coqui's flow i is its 2 i (2 i - 1 in
    the duration predictor, whose first flow is followed by none).
    """
    name = name.split(_WEIGHT_NORM)[0] + (".weight" if _WEIGHT_NORM in name else "")
    for ours, theirs in (
        ("text_encoder.", "enc_p."),
        ("waveform_decoder.", "dec."),
        ("duration_predictor.", "dp."),
    ):
        name = re.sub(f"^{re.escape(ours)}", theirs, name)
    name = re.sub(r"^flow\.flows\.(\d+)", lambda match: f"flow.flows.{int(match[1]) * 2}", name)
    name = re.sub(r"^dp\.flows\.(\d+)", lambda match: f"dp.flows.{max(0, int(match[1]) * 2 - 1)}", name)
    return name.replace(".translation", ".m").replace(".log_scale", ".logs")
