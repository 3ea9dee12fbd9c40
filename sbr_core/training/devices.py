"""Where a network is computed, in which precision, and how numbers get there and back.

A graphics card works through what it was given while the processor prepares more, until one of them
waits for the other. What is here moves numbers without that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sbr_core.errors import TrainingError

_ALIGNED_BYTES = 8
"""Where a tensor may begin within packed ones: at a multiple of its largest element."""


def pick_device(name: str) -> torch.device:
    """``auto``: CUDA where there is one.

    Raises
    ------
    TrainingError
        CUDA was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: cuda was asked for, but torch finds none (try: auto)")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """``auto``: bfloat16 where the device is known to compute in it, float32 elsewhere.

    A processor without bfloat16 imitates it, more than ten times slower than float32.
    """
    if name == "auto":
        return "bfloat16" if computes_bfloat16(device) else "float32"
    return name


def computes_bfloat16(device: torch.device) -> bool | None:
    """Whether a device has instructions for it; None where torch does not know."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 or later
    capable = [known[k] for k in ("avx512_bf16", "amx_bf16") if k in known]  # of x86 only
    return any(capable) if capable else None


def upload(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Tensors of the processor on a device, in one transfer that nothing waits for.

    Parameters
    ----------
    tensors : all in one place; those that are on the device already are returned as they are.
    """
    device = torch.device(device)
    if not tensors or tensors[0].device.type == device.type:
        return list(tensors)
    flat = [tensor.flatten().view(torch.uint8) for tensor in tensors]
    packed = torch.cat([F.pad(part, (0, -len(part) % _ALIGNED_BYTES)) for part in flat])
    packed = packed.pin_memory().to(device, non_blocking=True)
    parts = packed.split([-(-len(part) // _ALIGNED_BYTES) * _ALIGNED_BYTES for part in flat])
    return [
        part[: len(own)].view(tensor.dtype).view(tensor.shape)
        for part, own, tensor in zip(parts, flat, tensors, strict=True)
    ]


class Reading:
    """Scalars on their way from a device: asked for at once, read when they are needed.

    Parameters
    ----------
    scalars : shape (), all on one device.
    """

    def __init__(self, scalars: Sequence[Tensor]) -> None:
        stacked = torch.stack([scalar.detach() for scalar in scalars])
        self._values = stacked.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if stacked.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def values(self) -> list[float]:
        """The numbers, once the device has got as far as where they were asked for."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()
