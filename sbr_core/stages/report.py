"""`sbr report`: one page per brain, to look at every section and to say what is wrong.

The page has everything inside it, so it can be mailed, unless the pictures of its sections are so
many that they are in a folder beside it. It asks nothing of any server. An evaluation,
a 3D volume, a training, simulated pairs or a comparison of methods that does not exist is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sbr_core.config import ReportOptions
from sbr_core.io.label_tables import NO_NAMES, read_label_table
from sbr_core.report.brain_page import brain_page
from sbr_core.report.next_commands import BrainPaths
from sbr_core.report.page import write_page
from sbr_core.report.shelf import Shelf


def run(
    options: ReportOptions,
    *,
    brain: str,
    methods: Mapping[str, Path],
    results_dir: Path,
    out: Path,
    label_names: Path | None = None,
    manifest: Path | None = None,
    corrections: Path | None = None,
) -> None:
    """Write one HTML page.

    Parameters
    ----------
    brain : name of the brain.
    methods : one or more METHOD=FOLDER, the folders of their results; linear first if it is there.
    results_dir : folder of the brain's results.
    out : page to write.
    label_names : what labels are called: a colour table of FreeSurfer or 3D Slicer, label
        descriptions of ITK-SNAP, or a table with columns index and name.
    manifest : the brain's manifest, for the commands that the page prints; it is not read.
    corrections : the brain's table of corrections, likewise.

    Raises
    ------
    ManifestError
        Names of labels that are none.
    """
    shelf = Shelf(out)
    labels = NO_NAMES if label_names is None else read_label_table(label_names)
    paths = BrainPaths(results_dir, manifest, corrections)
    page = brain_page(options, brain, methods, paths, shelf, labels)
    if shelf.is_beside:
        shelf.write()
    write_page(out, "report.html.j2", **page)
    if not shelf.is_beside:  # only now, so that the page of before had its pictures
        shelf.write()
