"""A finished run of the workflow, made with a stand-in for the command line, to copy and edit."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SECTIONS = [f"s{i:02d}" for i in range(1, 13)]
HEADER = ["section", "image", "position_mm", "pixel_size_mm", "flip", "exclude", "notes"]


class Lab:
    """A folder with a copy of the workflow, a sheet of brains and their manifests."""

    def __init__(self, folder: Path, snakefile: Path = Path("workflow/Snakefile")) -> None:
        self.folder = folder
        self.snakefile = snakefile

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake in the folder; `sbr` is the stand-in where the folder has one."""
        environment = os.environ | {
            "PATH": os.pathsep.join(
                [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
            ),
            "PYTHONPATH": str(REPOSITORY),
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
        }
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.snakefile)]
        return subprocess.Popen(
            [*command, "--cores", "2", "--printshellcmds", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess:
        """Run Snakemake in the folder to its end."""
        run = self.start(*arguments)
        output, errors = run.communicate()
        done = subprocess.CompletedProcess(run.args, run.returncode, output, errors)
        if ok and done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        return done

    def planned(self, *arguments: str) -> list[str]:
        """What a dry run would make: ``rule brain method chunk``, sorted.

        Without plans and the page over all brains, which is made anew with every report.
        """
        done = self.snakemake("--dry-run", *arguments)
        jobs = []
        for block in re.split(r"\n(?:local)?rule ", done.stdout + done.stderr)[1:]:
            name = block.split(":", 1)[0]
            found = re.search(r"^    wildcards: (.*)$", block, re.M)
            values = dict(p.split("=", 1) for p in found[1].split(", ")) if found else {}
            values.pop("space", None)
            if name not in ("plan", "all", "simulate", "index"):
                jobs.append(" ".join([name, *filter(None, values.values())]))
        return sorted(jobs)

    def rules(self, *arguments: str) -> Counter:
        """How many jobs of each rule a dry run would start, without the plans."""
        return Counter(job.split()[0] for job in self.planned(*arguments))

    def calls(self) -> list[tuple[str, str]]:
        """(command, sections it worked on as JSON) of every call since the last time."""
        path = self.folder / "calls.tsv"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [tuple(line.split("\t")) for line in lines]

    def add_brain(self, name: str, sections=SECTIONS, prealigned: bool = False) -> str:
        """Write images, MRI and manifest of a brain; its row for the sheet."""
        data = self.folder / "raw" / name
        (data / "images").mkdir(parents=True)
        for section in sections:
            (data / "images" / f"{section}.png").write_text(f"pixels of {section}")
            (data / "images" / f"{section}_mri.png").write_text(f"plane of {section}")
        (data / "mri.nii.gz").write_text("voxels")
        header = [*HEADER, "mri_image"] if prealigned else HEADER
        lines = ["\t".join(header)]
        for i, section in enumerate(sections):
            cells = [section, f"images/{section}.png", str(float(i)), "0.5", "none", "", ""]
            lines.append("\t".join(cells + ([f"images/{section}_mri.png"] if prealigned else [])))
        (data / "sections.tsv").write_text("\n".join(lines) + "\n")
        mri = "" if prealigned else f"raw/{name}/mri.nii.gz"
        letters = "" if prealigned else "LIA"
        return "\t".join([name, f"raw/{name}/sections.tsv", mri, letters, "", str(prealigned)])

    def add_columns(self, brain: str, **columns: list[str]) -> None:
        """Add columns to a brain's manifest: name, and a cell for each section."""
        path = self.folder / "raw" / brain / "sections.tsv"
        added = [columns, *zip(*columns.values(), strict=True)]
        lines = zip(path.read_text().splitlines(), added, strict=True)
        path.write_text("\n".join("\t".join([line, *cells]) for line, cells in lines) + "\n")

    def write_sheet(self, *rows: str) -> None:
        """Write the sheet of brains."""
        header = "brain\tsections\tmri\torientation\tweights_from\tprealigned"
        (self.folder / "config" / "brains.tsv").write_text("\n".join([header, *rows]) + "\n")

    def correct(self, brain: str, *rows: str) -> None:
        """Write a table of corrections, and name it in the sheet, whose only brain this is."""
        header = "section\tkind\tvalue\tx_section_mm\ty_section_mm\tmri_x_mm\tmri_y_mm\tmri_z_mm"
        table = self.folder / "raw" / brain / "corrections.tsv"
        table.write_text("\n".join([header, *rows]) + "\n")
        sheet = self.folder / "config" / "brains.tsv"
        names, line = sheet.read_text().splitlines()
        if "corrections" not in names:
            path = table.relative_to(self.folder)
            sheet.write_text(f"{names}\tcorrections\n{line}\t{path}\n")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that stands in a file exactly once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))

    def chunk(self, section: str, brain: str = "one") -> str:
        """The chunk that a section's image was prepared in."""
        for receipt in (self.folder / "results" / brain / "prepare" / "chunks").glob("*.tsv"):
            if re.search(rf"^{section}\t", receipt.read_text(), re.M):
                return receipt.stem
        raise AssertionError(f"no chunk has section {section}")


def new_lab(folder: Path) -> Lab:
    """A copy of the workflow with the stand-in, and no brain yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("workflow", "config", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name)
    (folder / "bin").mkdir()
    stub = folder / "bin" / "sbr"
    stub.write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "stub_sbr.py").read_text())
    stub.chmod(0o755)
    (folder / "config" / "config.yaml").write_text("preset: demo\nmethods: [sbr]\nchunk_size: 4\n")
    return Lab(folder)


@pytest.fixture(scope="session")
def open_lab():
    """`open_lab(folder, snakefile)`: a folder of one's own as a `Lab`."""
    return Lab


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Lab:
    """One brain whose every result is there."""
    lab = new_lab(tmp_path_factory.mktemp("finished"))
    lab.write_sheet(lab.add_brain("one"))
    lab.snakemake()
    lab.calls()
    return lab


@pytest.fixture
def lab(finished, tmp_path) -> Lab:
    """A copy of the finished run to edit."""
    shutil.copytree(finished.folder, tmp_path / "lab", symlinks=True)
    return Lab(tmp_path / "lab")


@pytest.fixture
def empty_lab(tmp_path) -> Lab:
    """The workflow without any result."""
    return new_lab(tmp_path / "lab")
