"""`sbr index`: one page over all brains, with links to what each has."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from sbr_core.errors import ReceiptError
from sbr_core.report.index_page import index_page
from sbr_core.report.page import write_page

logger = logging.getLogger(__name__)


def run(
    options: None,
    results: Path,
    *,
    brains: Sequence[str] | None = None,
    out: Annotated[Path | None, "-o"] = None,
) -> None:
    """Write the page over all brains: state, accuracy, what to look at, time, and links.

    Whatever a brain does not have is left out; one whose report is missing is listed as such.

    Parameters
    ----------
    results : folder of all results.
    brains : names of brains to list even if nothing of them is there yet.
    out : page to write (default: index.html in that folder, where its links lead from).

    Raises
    ------
    ReceiptError
        No such folder.
    """
    if not results.is_dir():
        raise ReceiptError(f"{results}: no such folder")
    page = results / "index.html" if out is None else out
    write_page(page, "index.html.j2", **index_page(results, brains or ()))
    logger.info(f"index: {page}")
