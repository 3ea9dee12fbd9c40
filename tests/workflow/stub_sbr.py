"""A stand-in for the command ``sbr``: the real flags, options, receipts and file names, no work.

Each result is a few bytes that depend on what its real one would depend on, so the workflow's
decisions are those of a real run. Every call adds a line to ``calls.tsv`` in the working
directory: the command and the sections it worked on.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from sbr_core.artifacts.names import COLOUR_ENDINGS, stain_entity
from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import Row, read_rows, write_rows
from sbr_core.cli import build_parser, options_of
from sbr_core.io.corrections import landmarks_from
from sbr_core.io.files import write_text
from sbr_core.io.manifests import rows_from
from sbr_core.planning.sheet import simulated_rows
from sbr_core.stages import collect


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed(Row):
    """A row of any stage here."""

    position_mm: float


def digest(*parts):
    """A short digest of texts and of the content of files."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
    return sha.hexdigest()


def per_section(arguments, items, endings, *shared):
    """Write `endings` for each item of a chunk and the receipt."""
    out_dir = arguments["out_dir"]
    worked_on = []

    def process(item):
        files = []
        for ending in endings:
            file = out_dir / ending.format(section=item["section"])
            write_text(file, digest(item, *shared))
            files.append(file)
        worked_on.append(item["section"])
        return SectionResult(
            Placed(section=item["section"], position_mm=item["position_mm"]), files
        )

    run_sections(
        {item["section"]: item for item in items},
        stage="stub",
        out_dir=out_dir,
        receipt=arguments["receipt"],
        fingerprint=lambda item: digest(item, *shared),
        process=process,
    )
    return worked_on


def volume_stem(arguments):
    """What the name of a volume begins with."""
    space = "mri" if arguments["align_dir"] else "stack"
    return f"{arguments['brain']}_space-{space}" + stain_entity(arguments["stain_group"] or "")


def rows(arguments):
    """Rows with the content of their files."""
    return [
        asdict(row) | {"content": [digest(Path(f)) for f in row.files()]}
        for row in rows_from(arguments["rows"])
    ]


def run(command, arguments):
    """What each command leaves behind."""
    options = arguments.get("options")
    out_dir = arguments.get("out_dir")
    if command == "collect":
        collect.run(None, receipts=arguments["receipts"], table=arguments["table"])
    elif command == "check-sections":
        return per_section(arguments, rows(arguments), [], options)
    elif command == "check":
        tables = [digest(path) for path in arguments["receipts"]]
        inputs = [arguments[name] for name in ("mri", "mri_mask", "landmarks") if arguments[name]]
        if any(b"refuse" in path.read_bytes() for path in inputs):
            raise SystemExit("sbr check: MRI: cannot be right")
        for name in ("findings.tsv", "check.json"):
            write_text(out_dir / name, digest(options, tables, *inputs))
    elif command == "prepare":
        return per_section(arguments, rows(arguments), ["sections/{section}_image.nii.gz"], options)
    elif command == "prepare-mri":
        for name in ("mri.nii.gz", "mri_mask.nii.gz", "mri.json"):
            write_text(out_dir / name, digest(options, arguments["mri"]))
    elif command == "doctor":
        assert read_rows(arguments["prepared"], Row), "the doctor came before its table"
        for name in ("findings.tsv", "contact_sheet.png", "doctor.json"):
            write_text(out_dir / name, digest(options, arguments["prepared"]))
    elif command == "align":
        assert read_rows(arguments["sections"], Row), "the global fit came before its table"
        for name in (
            "from-stack_to-mri_mode-image_xfm.txt",
            "plane_grid.json",
            "sections_initial.tsv",
            "quality.json",
            "overview.png",
        ):
            write_text(out_dir / name, digest(options, arguments["sections"], arguments["mri"]))
    elif command == "resample":
        fit = arguments["align_dir"] and arguments["align_dir"] / "plane_grid.json"
        bare = [r | {"content": []} for r in rows(arguments)]
        ending = ["sections/{section}_mri.nii.gz"]
        return per_section(arguments, bare, ending, options, *([fit] if fit else []))
    elif command in ("align-sections", "infer"):
        prepared = {r.section: vars(r) for r in read_rows(arguments["prepared"], Placed)}
        planes = {r.section for r in read_rows(arguments["planes"], Row)}
        assert planes == set(prepared), f"planes of {planes}, sections {set(prepared)}"
        networks = [arguments[k] for k in ("registrar", "weights") if arguments.get(k)]
        ending = ["sections/{section}_linear.nii.gz"]
        marks = landmarks_from(arguments.get("landmarks") or "[]")
        for item in prepared.values():
            own = [mark for mark in marks if mark.section == item["section"]]
            item |= {"landmarks": own} if own else {}
        if command == "infer":  # a registration follows its affine
            affines = {r.section: r.fingerprint for r in read_rows(arguments["affines"], Row)}
            prepared = {s: item | {"affine": affines[s]} for s, item in prepared.items()}
        return per_section(arguments, list(prepared.values()), ending, options, *networks)
    elif command in ("train-registrar", "train"):
        assert read_rows(arguments["planes"], Row), "training came before its table"
        for name in ("weights.safetensors", "loss.tsv", "loss.png"):
            write_text(out_dir / name, digest(command, options))
    elif command == "reassemble":
        for kind in ("histology", "coverage"):
            name = f"{volume_stem(arguments)}_{kind}.nii.gz"
            made_of = arguments["sections"], arguments["rejected"]
            write_text(out_dir / name, digest(options, *made_of))
    elif command == "registered":
        prepared = {r.section: vars(r) for r in read_rows(arguments["prepared"], Placed)}
        ending = ["sections/{section}_registered.ome.tif"]
        return per_section(arguments, list(prepared.values()), ending, options)
    elif command == "reassemble-colour":
        ending = COLOUR_ENDINGS[json.loads(options)["format"]]
        for end in (ending, ".json"):
            name = f"{volume_stem(arguments)}_colour{end}"
            write_text(out_dir / name, digest(options, arguments["sections"]))
    elif command == "trust":
        folders = [Path(text.partition("=")[2]) for text in arguments["methods"]]
        tables = [digest(folder / "sections.tsv") for folder in folders]
        row = Row(section="all", message=digest(options, tables, arguments["accepted"]))
        write_rows(out_dir / "sections.tsv", [row])
    elif command == "evaluate":
        for name in ("summary.tsv", "sections.tsv"):
            write_text(out_dir / name, digest(options, arguments["prepared"]))
    elif command == "compare":
        for name in ("summary.tsv", "tests.tsv", "index.html"):
            write_text(out_dir / name, digest(options, sorted(arguments["methods"])))
    elif command == "simulate":
        made = simulated_rows(
            rows_from(arguments["rows"]),
            json.loads(options)["n_sections"],
            0.5,
            out_dir,
            labelled=arguments["mri_labels"] is not None,
        )
        tables = [arguments[name] for name in ("prepared", "planes", "sections")]
        for row in made:
            for file in row.files():
                write_text(Path(file), digest(row, options, *tables))
        for name in ("sections.tsv", "landmarks.tsv", "truth.json"):
            write_text(out_dir / name, digest(made, options, *tables))
    elif command == "report":
        write_text(arguments["out"], digest(options, arguments["brain"]))
    elif command == "index":
        write_text(arguments["results"] / "index.html", digest(arguments["brains"]))
    else:
        raise AssertionError(f"the workflow called sbr {command}")
    return []


def main():
    """Run one command and note it."""
    arguments = vars(build_parser().parse_args())
    command = arguments.pop("command")
    options_of(command, dict(arguments))  # refused where the real command would refuse them
    worked_on = run(command, arguments)
    with open("calls.tsv", "a") as stream:
        stream.write(f"{command}\t{json.dumps(worked_on)}\n")


if __name__ == "__main__":
    sys.exit(main())
