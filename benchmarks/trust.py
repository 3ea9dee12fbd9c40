"""What is the expected error worth? Fits its law where the truth is known, tests it elsewhere.

    python benchmarks/trust.py make WORK SOURCE MANIFEST SEED N   pairs of a finished brain, WORK/…
    python benchmarks/trust.py harm MADE SOURCE SEED N            N of their sections, on purpose
    python benchmarks/trust.py look TABLE MADE …                  evidence and truth, into a table
    python benchmarks/trust.py fit TABLE HARMED                   the numbers for the package
    python benchmarks/trust.py test TABLE HARMED                  what the package's numbers give

SOURCE is the folder of a finished brain with networks of `sbr`, as results/demo, MANIFEST its table
of sections; MADE is what `make` wrote. `fit` prints `ALONE`, `AMONG_OTHERS`, and `BIAS` and
`WEIGHTS` of sbr_core/algorithms/trust. Tables are added to, so copy MADE before `harm`, and look at
the copy. benchmarks/2026-12-01_trust.md states what was run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.optimize import minimize, nnls
from scipy.special import logit
from scipy.stats import rankdata, spearmanr

from sbr_core.algorithms.trust import calibration, suspects
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Trusted, read_rows
from sbr_core.io.images import read_section, write_png
from sbr_core.io.manifests import read_manifest
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.volumes import read_plane
from sbr_core.methods import METHODS

MADE_WITH = ("linear", "mind", "sbr")
HARMS = ("shifted", "turned", "wrong neighbour", "torn", "wrong affine")
PRIOR = 0.2
"""Share of sections that are wrong, of which `likely_wrong` is the probability; harmed are more."""
_POINT = ("x_section_mm", "y_section_mm", "x_plane_mm", "y_plane_mm")
_EVIDENCE = (
    *("match", "strain", "disagreement", "unlike", "least_unlike", "overlap", "moved", "extent_mm"),
)


# --------------------------------------------------------------------------------------------
# Pairs whose truth is known, and some that are harmed
# --------------------------------------------------------------------------------------------


def sbr(log: Path, *words: object) -> None:
    """Run one command; its output goes to the end of a log."""
    with log.open("a") as out:
        command = [sys.executable, "-m", "sbr_core", *map(str, words)]
        subprocess.run(command, check=True, stdout=out, stderr=subprocess.STDOUT)


def options_of(source: Path, stage: str) -> dict:
    """The options that the source's stage was given: from the plan of it or of a later stage."""
    for plan in sorted((source / "plan").glob("*.json")):
        content = json.loads(plan.read_text())
        if isinstance(content.get(stage), dict) and "options" in content[stage]:
            return content[stage]["options"]
    raise SystemExit(f"{source}: no plan has the options of {stage}")


def make(work: Path, source: Path, manifest: Path, seed: int, n_sections: int) -> None:
    """Simulate pairs of a brain and register them by each method, with the source's networks."""
    brain = work / f"{source.name}-{seed}"
    brain.mkdir(parents=True)
    tables = {s: source / s / names.TABLE for s in ("prepare", "resample", "align_sections")}
    align = source / "align"
    fit = ["--align-dir", align] if (align / names.PLANE_GRID).is_file() else []
    options = json.dumps({"seed": seed, "n_sections": n_sections})
    sbr(
        brain / "log",
        *("simulate", "--options", options, "--rows", manifest, "--prepared", tables["prepare"]),
        *("--planes", tables["resample"], "--sections", tables["align_sections"], *fit),
        *("--out-dir", brain / "data"),
    )
    register(brain, source)


def register(brain: Path, source: Path) -> None:
    """Everything from `prepare` to `infer`; sections that did not change are kept."""
    log, rows = brain / "log", brain / "data" / names.TABLE

    def out(stage: str) -> list[object]:
        return ["--out-dir", brain / stage, "--receipt", brain / stage / "chunks" / "1of1.tsv"]

    working = options_of(source, "prepare")
    sbr(log, "prepare", "--options", json.dumps(working), "--rows", rows, *out("prepare"))
    pixel = ["--working-pixel-mm", working["working_pixel_mm"]]
    sbr(log, "resample", "--rows", rows, *pixel, *out("resample"))
    pair = ["--prepared", out("prepare")[-1], "--planes", out("resample")[-1]]
    sbr(log, "align-sections", *pair, "--prealigned", *out("align_sections"))
    pair += ["--affines", out("align_sections")[-1]]
    networks = ["--registrar", source / "registrar" / names.WEIGHTS]
    networks += ["--weights", source / "sbr" / names.WEIGHTS]
    for method in MADE_WITH:
        given = networks if method == "sbr" else []
        sbr(log, "infer", "--method", method, *pair, *given, *out(method))
    for stage in ("prepare", "resample", "align_sections", *MADE_WITH):
        table = brain / stage / names.TABLE
        sbr(log, "collect", "--receipts", out(stage)[-1], "--table", table)


def harm(brain: Path, source: Path, seed: int, n: int) -> None:
    """Harm sections of a made brain in place, and register them anew.

    Every fifth is of one kind: shifted by 6 to 10 % of its width, turned by 10 degrees, another
    section's picture, half of it torn off, pushed away and turned, or stretched by 15 %, narrowed
    by 13 % and sheared.
    """
    rng = np.random.default_rng(seed)
    rows = read_manifest(brain / "data" / names.TABLE)
    pictures = [read_section(Path(row.image)) for row in rows]
    lines = []
    for order, index in enumerate(rng.permutation(len(rows))[:n]):
        kind = HARMS[(order + seed) % len(HARMS)]
        if kind == "wrong neighbour":
            harmed = pictures[index + 3 if index + 3 < len(rows) else index - 3]
        else:
            harmed = harmed_picture(pictures[index], kind, rng)
        write_png(Path(rows[index].image), np.round(np.clip(harmed, 0, 1) * 255).astype(np.uint8))
        lines.append({"section": rows[index].section, "harm": kind})
    write_tsv(brain / "harmed.tsv", lines, ("section", "harm"))
    register(brain, source)


def harmed_picture(picture: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A picture (rows, columns[, channels]) of the same shape."""
    height, width = picture.shape[:2]
    background = np.median(picture[0], axis=0)
    centre, sign = np.array([height, width]) / 2, rng.choice([-1, 1])
    matrix, shift = np.eye(2), np.zeros(2)
    if kind == "shifted":
        angle = rng.uniform(0, 2 * np.pi)
        shift = rng.uniform(0.06, 0.1) * width * np.array([np.sin(angle), np.cos(angle)])
    elif kind in ("turned", "torn"):
        a = np.deg2rad(10.0) * sign
        matrix = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    else:
        matrix = np.array([[1.15, 0.1 * sign], [0.0, 0.87]])
    offset = centre - matrix @ centre - shift
    channels = np.moveaxis(picture.reshape(height, width, -1), -1, 0)
    values = np.atleast_1d(background)
    moved = np.stack(
        [
            ndimage.affine_transform(channel, matrix, offset, order=1, cval=float(value))
            for channel, value in zip(channels, values, strict=True)
        ],
        -1,
    ).reshape(picture.shape)
    if kind != "torn":
        return moved
    angle, gap = rng.uniform(0, 2 * np.pi), 0.06 * width
    rows, columns = np.indices((height, width))
    side = (rows - centre[0]) * np.sin(angle) + (columns - centre[1]) * np.cos(angle)
    push = np.round(gap * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    pushed = np.roll(moved, push, (0, 1))
    torn = np.where((side > gap).reshape(height, width, *[1] * (picture.ndim - 2)), pushed, picture)
    torn[(side > 0) & (side <= gap)] = background
    return torn


# --------------------------------------------------------------------------------------------
# Evidence beside truth
# --------------------------------------------------------------------------------------------


def look(out: Path, brain: Path) -> None:
    """Evidence and true error of every section by every method of a made brain, added to a table.

    The true error is the root mean square over the section's landmarks.
    """
    methods = [m for m in METHODS if (brain / m / names.TABLE).is_file()]
    folders = [f"{m}={brain / m}" for m in methods]
    marks: dict[str, list[list[float]]] = {}
    for line in read_tsv(brain / "data" / names.LANDMARKS)[1]:
        marks.setdefault(line["section"], []).append([float(line[c]) for c in _POINT])
    harmed = {}
    if (brain / "harmed.tsv").is_file():
        harmed = {line["section"]: line["harm"] for line in read_tsv(brain / "harmed.tsv")[1]}
    tables = ["--prepared", brain / "prepare" / names.TABLE]
    tables += ["--planes", brain / "resample" / names.TABLE]
    tables += ["--affines", brain / "align_sections" / names.TABLE]
    lines = []
    for method in methods:
        folder = out.with_suffix(".maps") / brain.name / method
        words = ["trust", "--method", method, "--methods", *folders, *tables, "--out-dir", folder]
        sbr(out.with_suffix(".log"), *words)
        inferred = read_rows(brain / method / names.TABLE, Inferred, verify=False)
        transforms = {row.section: row.file(names.STACK_TO_SECTION) for row in inferred}
        for row in read_rows(folder / names.TABLE, Trusted, verify=False):
            if row.section not in marks:
                continue
            section_mm, plane_mm = np.split(np.array(marks[row.section]), 2, axis=1)
            mapped_mm = read_section_transform(transforms[row.section]).map(section_mm)
            error_mm = np.linalg.norm(mapped_mm - plane_mm, axis=1)
            known = {"brain": brain.name, "method": method, "section": row.section}
            known |= {"harm": harmed.get(row.section, "")}
            known |= {"true_mm": float(np.sqrt(np.mean(error_mm**2)))}
            known |= {"expected_mm": row.expected_error_mm, "likely_wrong": row.likely_wrong}
            lines.append(known | {"local": local_agreement(row, plane_mm, error_mm)} | row.evidence)
    before = read_tsv(out)[1] if out.is_file() else []
    columns = ("brain", "method", "section", "harm", "true_mm", "expected_mm", "likely_wrong")
    write_tsv(out, [*before, *lines], (*columns, "local", *_EVIDENCE))


def local_agreement(row: Trusted, plane_mm: np.ndarray, error_mm: np.ndarray) -> float:
    """Rank correlation, within a section, of its map with the true errors of its landmarks."""
    path = row.file(names.ERROR)
    errors, size_mm = read_plane(path)
    at = (plane_mm + nib.load(path).affine[:2, 3]) / size_mm
    found = ndimage.map_coordinates(errors, at.T[::-1], order=1, mode="nearest")
    return float(spearmanr(found, error_mm).statistic) if np.ptp(found) else 0.0


# --------------------------------------------------------------------------------------------
# Fitting and testing
# --------------------------------------------------------------------------------------------


def read_looks(path: Path) -> pd.DataFrame:
    """A table of `look`, with the true error as a share of the extent."""
    table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *_EVIDENCE])))
    for name in ("true_mm", "expected_mm", "likely_wrong", "local", *_EVIDENCE):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table.assign(share=table["true_mm"] / table["extent_mm"])


def fit(looks: pd.DataFrame, harmed: pd.DataFrame) -> None:
    """Print the law with and without disagreement, and the weights of what stands out."""
    for name, terms in (("ALONE", ("match", "strain")), ("AMONG_OTHERS", _EVIDENCE[:3])):
        squares = np.column_stack([np.ones(len(looks)), *(looks[t].fillna(0) ** 2 for t in terms)])
        truth = looks["share"].to_numpy()
        # in shares of the truth, so that small errors count as much as large ones
        weights, _ = nnls(squares / truth[:, None] ** 2, np.ones(len(looks)))
        weights = np.sqrt(weights)
        weights *= np.exp(np.mean(np.log(truth / np.sqrt(squares @ weights**2))))
        print(name, dict(zip(("floor", *terms), weights.round(4).tolist(), strict=True)))
    odd, wrong = oddness(harmed), (harmed["harm"] != "").to_numpy()
    columns = np.column_stack([np.ones(len(odd)), odd[list(suspects.WEIGHTS)]])
    spread = columns.std(0)

    def cost(weights: np.ndarray) -> float:
        score = columns @ weights
        penalty = 0.02 * np.sum((weights * spread)[1:] ** 2)
        return float(np.mean(np.logaddexp(0, score) - wrong * score) + penalty)

    found = minimize(cost, np.zeros(columns.shape[1])).x
    found[0] += logit(PRIOR) - logit(wrong.mean())
    found = found.round(2).tolist()
    print("BIAS", found[0], "WEIGHTS", dict(zip(suspects.WEIGHTS, found[1:], strict=True)))


def oddness(looks: pd.DataFrame) -> pd.DataFrame:
    """`suspects.oddness` of each stack, in the order of the table."""
    parts = []
    for _, stack in looks.groupby(["brain", "method"], sort=False):
        evidence = [
            {k: v for k, v in row.items() if v == v}
            for row in stack[list(_EVIDENCE)].to_dict("records")
        ]
        parts.append(pd.DataFrame(suspects.oddness(evidence), index=stack.index))
    return pd.concat(parts).loc[looks.index]


def auc(scores: np.ndarray, is_one: np.ndarray) -> float:
    """Area under the receiver operating characteristic."""
    ranks, n = rankdata(scores), int(is_one.sum())
    return float((ranks[is_one].sum() - n * (n + 1) / 2) / (n * (len(is_one) - n)))


def test(looks: pd.DataFrame, harmed: pd.DataFrame) -> None:
    """Print rank correlation, AUC of the worst tenth, and calibration by fifths of the expected."""
    evidence = looks[list(_EVIDENCE)].to_dict("records")
    for what, keep in (("with other methods", _EVIDENCE), ("alone", _EVIDENCE[:2])):
        expected = []
        for line in evidence:
            known = {k: v for k, v in line.items() if k in keep and v == v}
            expected.append(calibration.law_for(known).of_numbers(known))
        table = looks.assign(expected=expected)
        print(f"{what}\ngroup            n  rank  AUC   expected over true by fifths    in place")
        groups = [("all", table), *table.groupby("brain"), *table.groupby("method")]
        for name, group in groups:
            worst = (group["share"] >= group["share"].quantile(0.9)).to_numpy()
            fifth = pd.qcut(group["expected"], 5, labels=False)
            means = group.groupby(fifth)[["expected", "share"]].mean()
            ratios = " ".join(f"{r:.2f}" for r in means["expected"] / means["share"])
            rank = spearmanr(group["expected"], group["share"]).statistic
            area = auc(group["expected"].to_numpy(), worst)
            print(
                f"{name:15s} {len(group):4d}  {rank:.2f}  {area:.3f}  {ratios}"
                f"   {group['local'].mean():.2f}"
            )
    score = np.array([suspects.likely_wrong(odd) for odd in oddness(harmed).to_dict("records")])
    wrong = (harmed["harm"] != "").to_numpy()
    print(f"harmed: AUC {auc(score, wrong):.3f} of {wrong.sum()} among {(~wrong).sum()}")
    for column in ("method", "harm"):
        for name, group in harmed.assign(score=score).groupby(column):
            if not name:
                continue
            if column == "harm":
                group = harmed.assign(score=score).query("harm == @name or harm == ''")
            area = auc(group["score"].to_numpy(), (group["harm"] != "").to_numpy())
            print(f"  {name:16s} {area:.3f}")
    called = score >= 0.5
    print(f"  called {called[wrong].mean():.0%} of them, and {called[~wrong].mean():.1%} of others")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("make", "harm", "look", "fit", "test"))
    parser.add_argument("words", nargs="+")
    given = parser.parse_args()
    words = given.words
    if given.what == "make":
        make(*map(Path, words[:3]), *map(int, words[3:]))
    elif given.what == "harm":
        harm(*map(Path, words[:2]), *map(int, words[2:]))
    elif given.what == "look":
        for brain in words[1:]:
            look(Path(words[0]), Path(brain))
    else:
        {"fit": fit, "test": test}[given.what](*map(read_looks, map(Path, words)))


if __name__ == "__main__":
    main()
