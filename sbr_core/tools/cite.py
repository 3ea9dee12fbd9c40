"""`sbr cite`: what was done with a brain, as a paragraph for a paper, and its references."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from sbr_core.artifacts.brain_folders import brains_in
from sbr_core.io.files import write_text
from sbr_core.report.citation import Citation
from sbr_core.report.references import Reference

logger = logging.getLogger(__name__)


def run(
    options: None,
    results: Path,
    brains: Sequence[str] | None = None,
    *,
    bibtex: bool = False,
    out: Annotated[Path | None, "-o"] = None,
) -> None:
    """Write a paragraph of methods and its references, ready to be pasted into a paper.

    It is filled with the versions and options of the run that made these results, and says only
    what was really done.

    Parameters
    ----------
    results : folder of all results, or of one brain.
    brains : names of the brains (default: all there are).
    bibtex : write the references for BibTeX instead.
    out : file to write (default: print it).

    Raises
    ------
    ReceiptError
        No results of a brain there, or not as they were written.
    """
    citations = {
        brain: Citation(folder, brain) for brain, folder in brains_in(results, brains or ()).items()
    }
    if bibtex:
        cited: dict[str, Reference] = {}
        for citation in citations.values():
            cited |= {reference.key: reference for reference in citation.references}
        text = "\n".join(reference.bibtex for reference in cited.values())
    else:
        several = len(citations) > 1
        parts = [f"{brain}:\n\n" * several + c.text for brain, c in citations.items()]
        text = "\n".join(parts)
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        logger.info(f"cite: {out}")
