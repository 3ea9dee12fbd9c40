"""`sbr check`: whether everything a user gave of a brain can belong together, before it is run.

What is judged, and by what, is in `sbr_core.algorithms.plausibility`.
"""

from __future__ import annotations

import logging
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

import psutil

from sbr_core.algorithms.alignment.start import orientation_asked
from sbr_core.algorithms.plausibility.finding import Finding, refusal
from sbr_core.algorithms.plausibility.work import Plan, judge_work
from sbr_core.artifacts import names
from sbr_core.artifacts.brain_inputs import BrainInputs, judge
from sbr_core.artifacts.rows import Looked, Row, read_rows
from sbr_core.artifacts.section_looks import look_at_section
from sbr_core.config import CheckOptions, Config, Options, load_yaml, parse_options, resolve
from sbr_core.config.base import Count, Positive, Steps
from sbr_core.errors import ConfigError, InputsError, SbrError
from sbr_core.io.files import parse_json
from sbr_core.io.manifests import BrainRow, SectionRow, read_brains, read_manifest
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.methods import TRAINED_METHODS
from sbr_core.planning.parameters import work_json
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)

_CONFIG = Path("config/config.yaml")
"""Read where no other is named."""
_COLUMNS = ("looked_at", "verdict", "words")
_WIDTH = 100
"""Columns of the table on a terminal."""


def run(
    options: CheckOptions,
    table: Path,
    *,
    brain: str | None = None,
    mri: Path | None = None,
    mri_mask: Path | None = None,
    mri_labels: Path | None = None,
    landmarks: Path | None = None,
    orientation: str | None = None,
    prealigned: bool = False,
    in_order: bool = False,
    config: Path | None = None,
    work: str | None = None,
    receipts: Sequence[Path] | None = None,
    out_dir: Path | None = None,
) -> None:
    """Say whether all inputs of a brain can belong together, before anything is run.

    Sizes, units, handedness, masks, labels and landmarks are compared with each other; the table
    says what is fine, doubtful or refused, and why.

    Parameters
    ----------
    table : the sheet of brains, or the manifest of one, whose other inputs are then flags.
    brain : which one of the sheet.
    mri : the MRI, 3D NIfTI; not of a prealigned brain.
    mri_mask : its brain mask.
    mri_labels : its labels.
    landmarks : table of landmarks.
    orientation : direction of column, row and position, e.g. LIA, or auto (default: auto).
    prealigned : the sections lie on their MRI planes already.
    in_order : position_mm is an order, as align.positions says.
    config : the configuration (default: config/config.yaml, if it is there).
    work : JSON of what a run does with the brain (default: what the configuration says).
    receipts : tables of check-sections; without them the sections are looked at now.
    out_dir : folder for the table as findings.tsv; not written where a brain is refused.

    Raises
    ------
    InputsError
        Inputs that cannot be right, unless `refuse` is false.
    ConfigError
        An orientation or a `work` that is none, or no MRI.
    """
    row = _row_of_sheet(table, brain) if _is_sheet(table) else None
    if row is None:
        files = {"mri": mri, "mri_mask": mri_mask, "mri_labels": mri_labels, "landmarks": landmarks}
        row = BrainRow(
            brain=brain or table.parent.name or "brain",
            sections=str(table),
            orientation=orientation or "auto",
            prealigned=prealigned,
            **{name: str(path or "") for name, path in files.items()},
        )
        orientation_asked(row.orientation)
        if not (prealigned or mri):
            raise ConfigError(f"--mri: expected the MRI of {table}, or --prealigned")
    rows = read_manifest(Path(row.sections), prealigned=row.prealigned)
    if receipts:
        seen = _from_receipts(receipts)
    else:
        whole = _configuration(config)
        trained = [m for m in ("registrar", *TRAINED_METHODS) if m in ("registrar", *whole.methods)]
        work = work or work_json(whole, trained)
        in_order = in_order or whole.align.positions == "order"
        seen = _look_at(rows, whole)
    ids = [values["section"] for values in read_tsv(Path(row.sections))[1]]
    inputs = BrainInputs(row, seen, ids, in_order=in_order)
    findings = judge(inputs)
    if work:
        findings += _work(work, inputs, out_dir or Path.cwd())
    for line in table_of(findings):
        logger.info(line)
    why = refusal(findings)
    if why and options.refuse:
        raise InputsError(f"brain {row.brain!r}: {why} (check.refuse: false goes on nevertheless)")
    for finding in findings:
        if finding.verdict != "fine":
            logger.warning(f"check: WARNING: {finding.subject}: {finding.words}")
    if out_dir is not None:
        lines = [
            dict(zip(_COLUMNS, (f.subject, f.verdict, f.words), strict=True)) for f in findings
        ]
        write_tsv(out_dir / names.FINDINGS, lines, _COLUMNS)
        write_provenance(
            out_dir / names.CHECK,
            stage="check",
            options=options.model_dump(mode="json"),
            inputs={
                name: Path(path)
                for name in ("mri", "mri_mask", "mri_labels", "landmarks")
                if (path := getattr(row, name))
            },
            revision=REVISION["check"],
            n_sections=len(rows),
        )


class _Work(Options):
    """What `work_json` writes."""

    working_pixel_mm: Positive
    n_methods: Count
    n_deforming: Steps
    training_steps: Steps
    refine_steps: Steps


def _work(work: str, inputs: BrainInputs, folder: Path) -> list[Finding]:
    """What the run takes; nothing where sections or MRI cannot be read, which is said already."""
    try:
        values = parse_json(work)
    except ValueError as error:
        raise ConfigError(f"--work: not readable as JSON: {error}") from None
    asked = parse_options(_Work, values, "--work")
    looked = inputs.looked
    if not looked:
        return []
    n_voxels = 0
    if not inputs.row.prealigned:
        try:
            n_voxels = inputs.volume.data.size
        except SbrError:
            return []
    place = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.is_dir())
    plan = Plan(
        n_sections=len(looked),
        width_mm=max(each.width_mm for each in looked),
        height_mm=max(each.height_mm for each in looked),
        n_voxels=n_voxels,
        **asked.model_dump(),
    )
    memory_bytes = psutil.virtual_memory().total
    return [judge_work(plan, shutil.disk_usage(place).free, memory_bytes)]


def _is_sheet(table: Path) -> bool:
    """Whether a table is a sheet of brains, not the manifest of one."""
    return {"brain", "sections"} <= set(read_tsv(table)[0])


def _row_of_sheet(table: Path, brain: str | None) -> BrainRow:
    """The row of a brain in a sheet.

    Raises
    ------
    ConfigError
        None is named and there are several, or there is none of this name.
    """
    brains = read_brains(table)
    if brain is None and len(brains) == 1:
        return next(iter(brains.values()))
    if brain not in brains:
        found = "nothing" if brain is None else repr(brain)
        raise ConfigError(f"--brain: expected one of {', '.join(brains)} of {table}, found {found}")
    return brains[brain]


def _configuration(path: Path | None) -> Config:
    """The configuration named, or the usual one, or the defaults."""
    if path is None and not _CONFIG.is_file():
        return Config()
    return resolve(load_yaml(path or _CONFIG))


def _from_receipts(receipts: Sequence[Path]) -> list[Row]:
    return [row for path in receipts for row in read_rows(path, Looked, only_ok=False)]


def _look_at(rows: Sequence[SectionRow], whole: Config) -> list[Row]:
    """What `check-sections` would have seen."""
    seen: list[Row] = []
    for number, row in enumerate(rows, 1):
        try:
            seen.append(look_at_section(row, whole.prepare))
        except SbrError as error:
            seen.append(Row(section=row.section, status="failed", message=str(error)))
        if number % 50 == 0 or number == len(rows):
            logger.info(f"check: looked at {number} of {len(rows)} sections")
    return seen


def table_of(findings: Sequence[Finding]) -> list[str]:
    """The findings as lines of text, wrapped."""
    first = max(len(f.subject) for f in findings) + 2
    second = max(len(f.verdict) for f in findings) + 2
    lines = []
    for finding in findings:
        words = textwrap.wrap(finding.words, _WIDTH - first - second, break_long_words=False)
        head = f"{finding.subject:<{first}}{finding.verdict:<{second}}"
        for index, text in enumerate(words or [""]):
            lines.append((head if index == 0 else " " * len(head)) + text)
    return lines
