"""PyTorch modules to ONNX files, checked against each other before anything is replaced."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skylink.embedded.network import require_onnx
from skylink.errors import ModelError
from skylink.files import write_atomic

TOLERANCE = 1e-4
"""Largest difference to PyTorch, as a share of the largest value."""


def export_onnx(
    module: nn.Module,
    example: Sequence[Tensor],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    metadata: Mapping[str, str] | None = None,
) -> float:
    """Write a module as ONNX; the largest relative difference to PyTorch on `example`.

    Args:
        module: in evaluation mode, on the CPU.
        example: its inputs; those of another size have to work by `axes`.
        path: replaced only by a file that agrees with PyTorch.
        inputs, outputs: names.
        axes: names of the dimensions that may differ, by input or output.
        metadata: kept in the file.

    Raises:
        ModelError: the file differs from PyTorch by more than TOLERANCE.
        OutputError: the file can't be written.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        # that it is the older exporter: the newer one needs a package more, names weights otherwise
        warnings.simplefilter("ignore")
        temporary = Path(folder) / "model.onnx"
        torch.onnx.export(
            module, tuple(example), str(temporary), input_names=list(inputs),
            output_names=list(outputs), dynamic_axes={k: dict(v) for k, v in axes.items()},
            opset_version=17, dynamo=False,
        )  # fmt: skip
        _finish(temporary, metadata or {})
        session = onnxruntime.InferenceSession(str(temporary))
        feed = {name: each.numpy() for name, each in zip(inputs, example, strict=True)}
        got = session.run(None, feed)
        expected = module(*example)
        expected = (expected,) if isinstance(expected, Tensor) else expected
        worst = max(
            float(np.abs(a - b.numpy()).max() / max(float(b.abs().max()), 1e-9))
            for a, b in zip(got, expected, strict=True)
        )
        if not worst <= TOLERANCE:
            raise ModelError(f"{path.name} would differ from PyTorch by {worst:.1e}")
        write_atomic(path, temporary.read_bytes())
    return worst


def _finish(path: Path, metadata: Mapping[str, str]) -> None:
    onnx, _ = require_onnx()
    model = onnx.load(str(path))
    _fold_pads(model.graph)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _fold_pads(graph: Any) -> None:
    """Move each Pad into the Conv behind it: ONNX allows uneven padding, PyTorch does not.

    A separate Pad makes ONNX Runtime leave its blocked layout and come back: half of the time.
    """
    pads: dict[str, Any] = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for conv in [n for n in graph.node if n.op_type == "Conv" and n.input[0] in pads]:
        attributes = {a.name: a for a in conv.attribute}
        kernel, stride = attributes["kernel_shape"].ints[0], attributes["strides"].ints[0]
        total = kernel - stride
        if stride != 2 or any(attributes["pads"].ints):
            raise ModelError(f"{conv.name} is not padded as expected")
        attributes["pads"].ints[:] = [total // 2] * 2 + [total - total // 2] * 2
        conv.input[0] = pads[conv.input[0]].input[0]
    dead = [True]
    while dead:  # the pads, and whatever computed their sizes
        used = {n for node in graph.node for n in node.input} | {o.name for o in graph.output}
        dead = [node for node in graph.node if not used.intersection(node.output)]
        for node in dead:
            graph.node.remove(node)
