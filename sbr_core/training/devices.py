"""Where a network is computed, and in which precision."""

from __future__ import annotations

import torch

from sbr_core.errors import TrainingError


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
