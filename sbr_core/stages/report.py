"""`sbr report`: one page per brain, with everything inside it.

The page has no links to other files, so it can be mailed. An evaluation, a 3D volume, a training,
simulated pairs or a comparison of methods that does not exist is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sbr_core.config import ReportOptions
from sbr_core.report.brain_page import brain_page
from sbr_core.report.page import write_page


def run(
    options: ReportOptions,
    *,
    brain: str,
    methods: Mapping[str, Path],
    results_dir: Path,
    out: Path,
) -> None:
    """Write one self-contained HTML page.

    Parameters
    ----------
    brain : name of the brain.
    methods : one or more METHOD=FOLDER, the folders of their results; linear first if it is there.
    results_dir : folder of the brain's results.
    out : page to write.
    """
    write_page(out, "report.html.j2", **brain_page(options, brain, methods, results_dir))
