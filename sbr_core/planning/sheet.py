"""The brains of a study: those of the sheet that can be used, what is wrong with the others, whose
networks each uses, and the simulated brain of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sbr_core.artifacts import names
from sbr_core.config import PLACEHOLDER, Config, DemoOptions
from sbr_core.errors import ManifestError, ReceiptError, SbrError
from sbr_core.io.corrections import Correction, read_corrections
from sbr_core.io.files import check_is_file, inside, read_json, refuse_links
from sbr_core.io.label_tables import read_label_table
from sbr_core.io.manifests import (
    PATH_COLUMNS,
    SIMULATED,
    BrainRow,
    SectionRow,
    parse_section,
    read_landmarks,
    read_manifest,
)
from sbr_core.io.sums import check_sum, recorded_in
from sbr_core.io.tables import read_tsv
from sbr_core.methods import LABEL_METHODS
from sbr_core.planning.chunks import chunks_of

CHECKPOINTS = ".checkpoints"
"""Where trainings of all brains keep their checkpoints, in the folder of results."""
DEMO_DIR = Path("data/demo")
"""Where the rule `demo` writes; the sheet that ships names its files."""
DEMO_MANIFEST = DEMO_DIR / names.TABLE
_SMALL_BYTES = 1 << 20
"""Files that planning compares with their sums: tables and facts, some twenty of a brain."""


@dataclass(frozen=True, eq=False)
class Brain:
    """A brain that can be used: its row of the sheet, its sections, and whose networks it uses.

    Attributes
    ----------
    sections : those not excluded, sorted by position.
    excluded : ids of the others, in the order of the manifest.
    chunks : name of a chunk -> its sections.
    weights_donor : the brain whose networks this one uses: itself, where it trains.
    weights_start : the brain whose networks its training starts from; None: from nothing.
    source : of a simulated brain, the brain it is made of.
    corrections : section -> what its user decided about it, those excluded too.
    """

    row: BrainRow
    sections: tuple[SectionRow, ...]
    excluded: tuple[str, ...]
    chunks: Mapping[str, tuple[SectionRow, ...]]
    weights_donor: str
    weights_start: str | None = None
    source: str | None = None
    corrections: Mapping[str, Correction] = field(default_factory=dict)

    @property
    def prealigned(self) -> bool:
        """Whether every section lies on its MRI plane already."""
        return self.row.prealigned

    @property
    def is_simulated(self) -> bool:
        """Whether it is made of the MRI planes of another brain."""
        return self.source is not None

    @property
    def trains(self) -> bool:
        """Whether it trains networks of its own, from nothing or on from another brain's."""
        return self.weights_donor == self.row.brain

    @property
    def mri_labels(self) -> str:
        """Labels of the 3D MRI, if there are some; a prealigned brain has no such MRI."""
        return "" if self.prealigned else self.row.mri_labels

    @cached_property
    def stain_groups(self) -> tuple[str, ...]:
        """Groups of its sections, each with volumes of its own; '' where sections are of none."""
        return tuple(sorted({row.stain_group for row in self.sections}))

    def rejected(self, stain_group: str) -> list[str]:
        """Sections of a stain group that are kept out of its volume, by position."""
        said = self.corrections
        return [
            row.section
            for row in self.sections
            if row.stain_group == stain_group
            and row.section in said
            and said[row.section].verdict == "reject"
        ]

    @cached_property
    def plane_labels(self) -> tuple[str, ...]:
        """Labels of the MRI planes of a prealigned brain's sections, chunk by chunk."""
        return tuple(r.mri_labels for rows in self.chunks.values() for r in rows if r.mri_labels)

    @property
    def has_labels(self) -> bool:
        """Whether sections have labels, and the MRI they are compared with has some too."""
        of_mri = self.mri_labels or self.plane_labels
        return bool(of_mri and any(row.labels for row in self.sections))


@dataclass(frozen=True)
class Demo:
    """The demo: `rows` of its manifest as its options make it, none where no brain is the demo.

    `is_made`: `data/demo` was made with the options that the demo has now.
    """

    rows: tuple[Mapping[str, Any], ...]
    is_made: bool


def demo_of(sheet: Mapping[str, BrainRow], options: DemoOptions) -> Demo:
    """The demo of a sheet of brains."""
    try:
        made_with = read_json(DEMO_DIR / names.TRUTH).get("options")
    except ReceiptError:
        made_with = None
    is_made = DEMO_MANIFEST.is_file() and made_with == options.model_dump(mode="json")
    if all(Path(row.sections) != DEMO_MANIFEST for row in sheet.values()):
        return Demo((), is_made)
    # takes a while, so only where it is needed
    from sbr_core.algorithms.simulation.demo_rows import demo_rows

    return Demo(tuple(demo_rows(options)), is_made)


def weights_donor(sheet: Mapping[str, BrainRow], brain: str) -> str:
    """The brain whose networks `brain` uses: the first that trains, following `weights_from`.

    That is itself, where it trains from nothing or on from the networks of another one.
    """
    while sheet[brain].weights_from and sheet[brain].weights_use != "finetune":
        brain = sheet[brain].weights_from
    return brain


def weights_start(sheet: Mapping[str, BrainRow], brain: str) -> str | None:
    """The brain whose networks the training of `brain` starts from; None: from nothing."""
    row = sheet[brain]
    if not row.weights_from or row.weights_use != "finetune":
        return None
    return weights_donor(sheet, row.weights_from)


def brains_of(
    sheet: Mapping[str, BrainRow], config: Config, demo: Demo, *, compare_sums: bool = True
) -> tuple[dict[str, Brain], dict[str, str]]:
    """(brains that can be used, what is wrong with each other one or with those it depends on).

    Both are in the order of the sheet. `compare_sums` as of `read_study`.

    Raises
    ------
    ManifestError
        With the fault of the first brain, when no brain can be used.
    """
    brains: dict[str, Brain] = {}
    faults: dict[str, str] = {}
    for name in sheet:
        try:
            brains[name] = read_brain(sheet, name, config, demo)
            if compare_sums:
                for folder in (name, name + SIMULATED):
                    refuse_damaged(Path(config.results, folder))
        except SbrError as error:
            faults[name] = str(error)

    def fault_of(name: str) -> str | None:
        if name in faults:
            return faults[name]
        donor = weights_donor(sheet, name)
        giver = weights_start(sheet, name) if donor == name else donor
        if giver is None or fault_of(giver) is None:
            return None
        return f"{config.brains}: brain '{name}': weights_from: '{giver}' cannot be used"

    faults = {name: why for name in sheet if (why := fault_of(name)) is not None}
    if len(faults) == len(sheet):
        raise ManifestError(next(iter(faults.values())))
    return {name: brain for name, brain in brains.items() if name not in faults}, faults


def read_brain(sheet: Mapping[str, BrainRow], name: str, config: Config, demo: Demo) -> Brain:
    """One brain of the sheet, checked as far as can be before anything is computed.

    The demo's manifest counts, with what a user changed in it, unless it is still to be made.

    Raises
    ------
    ManifestError
        A file that the sheet or the manifest names is missing or cannot be planned, a row is
        faulty, a landmark or a correction is of no section, or a method learns from labels where
        there are none.
    StorageError
        A link among the brain's results, or what is no file.
    ReceiptError
        A simulated brain's manifest that names files elsewhere.
    """
    row = sheet[name]
    where = f"{config.brains}: brain '{name}'"
    for folder in (name, name + SIMULATED):
        refuse_links(Path(config.results, folder))
        refuse_links(Path(config.results, CHECKPOINTS, folder))
    _refuse_files_elsewhere(Path(config.results, name + SIMULATED, "data", names.TABLE))
    _check_plannable(row.sections, f"{where}: sections")
    for column in ("mri", "mri_mask", "mri_labels", "label_names", "landmarks", "corrections"):
        if path := getattr(row, column):
            _check_plannable(path, f"{where}: {column}")
            is_series = column == "mri" and Path(path).is_dir()  # a folder of DICOM files
            if not is_series and Path(path).parent != DEMO_DIR:
                check_is_file(Path(path), ManifestError, f"{where}: {column}: ")
    manifest = Path(row.sections)
    if manifest == DEMO_MANIFEST and not demo.is_made:
        sections = [parse_section(values, str(manifest), DEMO_DIR) for values in demo.rows]
        ids = [section.section for section in sections]
    else:
        sections = read_manifest(manifest, prealigned=row.prealigned)
        ids = [values["section"] for values in read_tsv(manifest)[1]]
    for section in sections:
        for path in section.files():
            _check_plannable(path, f"{manifest}: section '{section.section}'")
    kept = {row.section for row in sections}
    corrections = {}
    if row.corrections:
        corrections = read_corrections(Path(row.corrections), set(ids), prealigned=row.prealigned)
    if row.label_names and Path(row.label_names).is_file():  # the demo may still have to be made
        read_label_table(Path(row.label_names))
    brain = Brain(
        row=row,
        sections=tuple(sections),
        excluded=tuple(i for i in ids if i not in kept),
        chunks=in_chunks(sections, len(ids), config.chunk_size),
        weights_donor=weights_donor(sheet, name),
        weights_start=weights_start(sheet, name),
        corrections=corrections,
    )
    # landmarks of the demo that is still to be made are of no manifest yet
    is_current = demo.is_made or Path(row.landmarks).parent != DEMO_DIR
    if row.landmarks and Path(row.landmarks).is_file() and is_current:
        read_landmarks(row.landmarks, ids, prealigned=row.prealigned)
    wanted = [method for method in config.methods if method in LABEL_METHODS]
    if wanted and brain.trains and not brain.has_labels:
        raise ManifestError(
            f"{where}: method '{wanted[0]}' learns from labels:"
            " expected `labels` of sections in its manifest, and `mri_labels` here or, of a"
            " prealigned brain, in its manifest"
        )
    return brain


def refuse_damaged(folder: Path) -> None:
    """ReceiptError where a small file that a stage of a brain hands on is not what was written.

    Jobs compare what they read, but a brain that is finished by its files' times has none left.
    Collected tables are not looked at, since they are collected again (`upkeep`); what is larger,
    and what belongs to single sections, is for `sbr verify`.
    """
    for stage in sorted(path for path in folder.glob("*") if path.is_dir()):
        for path in recorded_in(stage):
            if path.name == names.TABLE and (stage / names.CHUNKS).is_dir():
                continue
            with suppress(FileNotFoundError):  # gone, or just being made again
                if path.stat().st_size <= _SMALL_BYTES:
                    check_sum(path)


def _refuse_files_elsewhere(manifest: Path) -> None:
    """ReceiptError where the manifest of a simulated brain names files outside its own folder.

    It is a result, which may be somebody else's, while other manifests are a user's own.
    """
    for values in read_tsv(manifest)[1] if manifest.is_file() else ():
        for column in PATH_COLUMNS:
            if name := values.get(column):
                inside(manifest.parent, name)


def _check_plannable(path: str, where: str) -> None:
    """Refuse the path of an input that Snakemake would take for a pattern."""
    if found := PLACEHOLDER.search(path):
        raise ManifestError(
            f"{where}: {path}: the workflow takes {found[0]!r} for a placeholder: rename it, or"
            " name a link to it that has no such signs"
        )


def in_chunks(
    sections: Sequence[SectionRow], n_rows: int, chunk_size: int
) -> dict[str, tuple[SectionRow, ...]]:
    """Name of a chunk -> its sections; `n_rows` counts the excluded ones too."""
    row_of = {row.section: row for row in sections}
    members = chunks_of(row_of, n_rows, chunk_size)
    return {name: tuple(row_of[s] for s in ids) for name, ids in members.items()}


def simulated_brain(source: Brain, config: Config) -> Brain:
    """The prealigned brain made of the MRI planes of another one, before it is made.

    It trains for itself, even if its source uses the networks of another brain.
    """
    name = source.row.brain + SIMULATED
    folder = Path(config.results, name, "data")
    sections = simulated_rows(
        source.sections,
        config.simulate.n_sections,
        config.prepare.working_pixel_mm,
        folder,
        labelled=bool(source.mri_labels),
    )
    return Brain(
        row=BrainRow(
            brain=name,
            sections=str(folder / names.TABLE),
            label_names=source.row.label_names,
            landmarks=str(folder / names.LANDMARKS),
            prealigned=True,
        ),
        sections=tuple(sections),
        excluded=(),
        chunks=in_chunks(sections, len(sections), config.chunk_size),
        weights_donor=name,
        source=source.row.brain,
    )


def simulated_rows(
    rows: Sequence[SectionRow],
    n_sections: int | None,
    pixel_size_mm: float,
    folder: Path,
    *,
    labelled: bool = False,
) -> list[SectionRow]:
    """The manifest of a brain's simulated pairs, cheap and without making them.

    Parameters
    ----------
    rows : of the brain itself, sorted by position.
    n_sections : how many of them, as evenly as can be; None or more than there are for all.
    pixel_size_mm : of the brain's MRI planes.
    folder : of the manifest, which the paths go through.
    labelled : whether a 3D MRI of the brain has labels; otherwise the rows say whose plane has.

    Returns
    -------
    Rows in the same order, with the names and positions of their sections.
    """
    count = min(n_sections or len(rows), len(rows))
    last, steps = len(rows) - 1, max(count - 1, 1)
    chosen = [rows[round(i * last / steps)] for i in range(count)]

    def file(folder_name: str, row: SectionRow, there: object = True) -> str:
        return str(folder / folder_name / f"{row.section}.png") if there else ""

    return [
        SectionRow(
            section=row.section,
            image=file("images", row),
            position_mm=row.position_mm,
            pixel_size_mm=pixel_size_mm,
            mask=file("masks", row, row.mask),
            labels=file("labels", row, labelled or row.mri_labels),
            stain=row.stain,
            mri_image=file("mri", row),
            mri_mask=file("mri_masks", row),
            mri_labels=file("mri_labels", row, labelled or row.mri_labels),
        )
        for row in chosen
    ]
