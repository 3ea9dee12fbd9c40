"""What every table says of where its figures come from."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import date

import torch


def heading(title: str, device: torch.device | str = "cpu") -> str:
    """Title, date, machine, load and command, as Markdown."""
    device = torch.device(device)
    where = f"{os.cpu_count()} cores of {platform.machine()}, {torch.get_num_threads()} used"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, {where}"
    command = shlex.join(["python", "benchmarks/" + os.path.basename(sys.argv[0]), *sys.argv[1:]])
    return (
        f"\n## {title}, {date.today()}\n\n{where}; load average {os.getloadavg()[0]:.1f} (all jobs"
        f" of the machine); torch {torch.__version__}\n\n    {command}\n"
    )
