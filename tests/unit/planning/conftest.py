"""Small made-up studies, in a folder of their own, without Snakemake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sbr_core.io.tables import write_tsv
from sbr_core.planning.study import Study, read_study


@pytest.fixture
def add_brain(tmp_path, monkeypatch) -> Callable[..., dict[str, Any]]:
    """`add_brain(name, sections, columns, **cells)`: a brain's files; its row of the sheet.

    `columns` are those of the manifest, one cell for each section; files named in the row are made.
    """
    monkeypatch.chdir(tmp_path)

    def add(
        name: str,
        sections: str = "abc",
        columns: dict[str, list[str]] | None = None,
        *,
        prealigned: bool = False,
        **cells: str,
    ) -> dict[str, Any]:
        folder = Path("raw", name)
        folder.mkdir(parents=True)
        columns = dict(columns or {})
        if prealigned:
            columns["mri_image"] = [f"{section}_mri.png" for section in sections]
        rows = []
        for number, section in enumerate(sections):
            row = {"section": section, "image": f"{section}.png", "position_mm": number}
            row |= {"pixel_size_mm": 0.5} | {key: cell[number] for key, cell in columns.items()}
            for cell in row.values():
                if str(cell).endswith(".png"):
                    (folder / cell).touch()
            rows.append(row)
        write_tsv(folder / "sections.tsv", rows)
        row = {"brain": name, "sections": str(folder / "sections.tsv"), "prealigned": prealigned}
        if not prealigned:
            row |= {"mri": str(folder / "mri.nii.gz"), "orientation": "LIA"}
        row |= cells
        for column in ("mri", "mri_mask", "mri_labels"):
            if column in row:
                Path(row[column]).touch()
        return row

    return add


@pytest.fixture
def study_of(tmp_path) -> Callable[..., Study]:
    """`study_of(*rows, **keys)`: the study of a sheet of brains and keys of the configuration."""
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "demo.yaml").write_text("chunk_size: 2\n")

    def read(*rows: dict[str, Any], **keys: Any) -> Study:
        Path("config").mkdir(exist_ok=True)
        write_tsv(Path("config/brains.tsv"), rows)
        return read_study(keys, tmp_path / "presets")

    return read
