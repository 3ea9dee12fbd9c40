"""`sbr compare`: all methods of one brain beside each other, in tables, tests and figures.

The values of each method come from the tables of `evaluate`; here they are summed up, tested
(`sbr_core.report.comparison`) and drawn. The example section is the one of median rank, so that it
shows no method at its best.

Files in the folder: ``summary.tsv``, ``tests.tsv``, ``figures/`` (PNG for the screen, PDF for
print) and ``index.html``, which contains all of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.artifacts.names import LOSSES, SUMMARY, TABLE, TESTS
from sbr_core.config import CompareOptions
from sbr_core.errors import ConfigError
from sbr_core.io.manifests import SectionRow
from sbr_core.io.provenance import write_provenance
from sbr_core.io.sums import write_summed_json
from sbr_core.io.tables import write_tsv
from sbr_core.report import comparison, figures
from sbr_core.report.example_section import ExampleSection
from sbr_core.report.page import COMPARISON, comparison_of, simulated_from, write_page

logger = logging.getLogger(__name__)


def run(
    options: CompareOptions,
    *,
    brain: str,
    methods: dict[str, Path],
    measured: Path,
    prepared: Path,
    planes: Path,
    out_dir: Path,
    registrar: Path | None = None,
    align_dir: Path | None = None,
    mri_labels: Path | None = None,
    rows: list[SectionRow] | None = None,
) -> None:
    """Compare all methods: tables, tests, figures.

    Parameters
    ----------
    brain : name of the brain.
    methods : one or more METHOD=FOLDER, the folders of their results; linear is among them.
    measured : sections.tsv written by evaluate, for these methods.
    prepared : table written by prepare.
    planes : table written by resample.
    out_dir : folder the results go to.
    registrar : loss.tsv written by train-registrar, for the time that training took.
    align_dir : folder written by align.
    mri_labels : labels of the MRI, on its grid, for outlines of anatomy.
    rows : manifest rows, for the mri_labels of a prealigned brain.

    Raises
    ------
    ConfigError
        `linear` is missing, or the example section that was asked for.
    ReceiptError
        A file that a table lists is missing.
    """
    if "linear" not in methods:
        raise ConfigError("compare: --methods: expected linear among them, as the one to beat")
    methods = {method: methods[method] for method in figures.in_order(list(methods))}
    values = comparison.read_values(measured, list(methods))
    tests = comparison.paired_tests(values)
    trainings = {m: comparison.training_time(folder / LOSSES) for m, folder in methods.items()}
    summary = comparison.summary_rows(values, tests, methods, trainings)
    of_brain = {"brain": brain}
    write_tsv(
        out_dir / TESTS, [of_brain | test for test in tests], comparison.TEST_COLUMNS, facts={}
    )
    lines = [of_brain | row for row in summary]
    write_tsv(out_dir / SUMMARY, lines, comparison.SUMMARY_COLUMNS, facts={})

    labels = LabelPairs(rows, align_dir=align_dir, mri_labels=mri_labels, stage="compare")
    example = ExampleSection(options.section, values, methods, prepared, planes, labels)
    drawings = comparison.box_figures(values, tests, options.alpha)
    drawings += [example.whole(brain), example.close_up(brain)]
    for drawing in drawings:
        drawing.save(out_dir / "figures")
        logger.info("compare: %s", drawing.name)

    shared = comparison.training_time(registrar) if registrar is not None else None
    write_summed_json(
        out_dir / COMPARISON,
        {
            "methods": [figures.name_of(method) for method in methods],
            "lines": comparison.lines_of_summary(summary, tests, list(methods), options.alpha),
            "tests": comparison.lines_of_tests(tests),
            "figures": [
                {"title": d.title, "file": f"figures/{d.name}.png", "caption": d.caption}
                for d in drawings
            ],
            "notes": comparison.notes(options, methods, trainings, shared),
            "alpha": options.alpha,
        },
    )
    write_page(
        out_dir / "index.html",
        "compare.html.j2",
        brain=brain,
        simulated=simulated_from(brain, out_dir.parent),
        comparison=comparison_of(out_dir),
    )
    write_provenance(
        out_dir / "compare.json",
        stage="compare",
        options=options.model_dump(mode="json"),
        inputs={"measured": measured, "prepared": prepared, "planes": planes}
        | {f"{method}_sections": folder / TABLE for method, folder in methods.items()},
        section=example.section,
    )
