"""A paragraph of methods for a paper, of what was really done with a brain, and its references.

Everything is read from the brain's results: its plans, tables, the JSON beside results and, for the
method that another one followed, the command line in its log. What is not there was not done, and
is not written.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from sbr_core.artifacts import names
from sbr_core.artifacts.rows import read_cells
from sbr_core.errors import ReceiptError, SbrError
from sbr_core.io.files import read_json
from sbr_core.methods import FOLLOWED_METHODS, METHODS, REGISTRY
from sbr_core.report.measures import Measured
from sbr_core.report.page import number, simulated_from
from sbr_core.report.references import REFERENCES, Reference, package

_LIBRARIES = {
    "antspyx": ("ANTs (ANTsPy {})", "avants2011ants"),
    "torch": ("PyTorch {}", "paszke2019pytorch"),
    "SimpleITK": ("SimpleITK {}", "lowekamp2013simpleitk"),
    "nibabel": ("NiBabel {}", "brett_nibabel"),
    "snakemake": ("Snakemake {}", "molder2021snakemake"),
}
"""Library -> how it is named with its version, and its publication."""
_OF_METHOD = {
    "nmi": ("mutual information", ()),
    "nmiw": ("mutual information and labels", ()),
    "cgan": ("a CycleGAN", ("zhu2017cyclegan",)),
    "rot": ("translation and registration that commute", ("arar2020geometry",)),
}
"""Other trained method -> what is trained, in words, and what to cite for it."""


@dataclass
class Citation:
    """What was done with one brain, in words, and what to cite for it.

    Attributes
    ----------
    folder : the brain's folder of results.
    brain : its name.
    """

    folder: Path
    brain: str
    _cited: dict[str, Reference] = field(default_factory=dict, repr=False)

    @cached_property
    def paragraph(self) -> str:
        """The paragraph, ready to be pasted.

        Raises
        ------
        SbrError
            A table or a JSON of the brain is damaged.
        """
        try:
            return self._paragraph()
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # JSON that can be read and is not what was written
            raise ReceiptError(f"{self.folder}: what was done cannot be told: {error!r}") from None

    def _paragraph(self) -> str:
        self._package()  # the first of the references
        sentences = [
            self._sections(),
            self._alignment(),
            self._landmarks(),
            *self._registration(),
            self._volume(),
            self._evaluation(),
            self._software(),
        ]
        return " ".join(filter(None, sentences))

    @property
    def references(self) -> list[Reference]:
        """What the paragraph cites: this package, then the others in the order there."""
        assert self.paragraph
        return list(self._cited.values())

    @property
    def text(self) -> str:
        """The paragraph and the list of references."""
        return "\n".join([self.paragraph, "", *(ref.words for ref in self.references)]) + "\n"

    @property
    def bibtex(self) -> str:
        """The references for BibTeX."""
        return "\n".join(reference.bibtex for reference in self.references)

    @property
    def methods(self) -> list[str]:
        """Methods whose sections are there, in the order of their definition."""
        return [m for m in METHODS if (self.folder / m / names.TABLE).is_file()]

    # ----------------------------------------------------------------------------------------
    # Sentences
    # ----------------------------------------------------------------------------------------

    def _cite(self, *keys: str) -> str:
        for key in keys:
            self._cited.setdefault(key, REFERENCES[key])
        return "(" + "; ".join(REFERENCES[key].short for key in keys) + ")"

    def _package(self) -> str:
        versions = self._versions.get("sbr_core", "")
        references = [package(version) for version in versions.split(" and ") if version]
        for reference in references:
            self._cited.setdefault(reference.key, reference)
        return "(" + "; ".join(dict.fromkeys(each.short for each in references)) + ")"

    @cached_property
    def _prepared(self) -> list[dict[str, str]]:
        table = self.folder / "prepare" / names.TABLE
        return read_cells(table)[1] if table.is_file() else []

    @property
    def _good(self) -> list[dict[str, str]]:
        return [row for row in self._prepared if row["status"] == "ok"]

    @property
    def _is_simulated(self) -> bool:
        """Whether it is a simulated brain, or a demo, whose manifest says so of its stains."""
        if simulated_from(self.brain, self.folder) is not None:
            return True
        good = self._good
        return bool(good) and all(row.get("stain", "").startswith("simulated") for row in good)

    def _sections(self) -> str:
        rows, good = self._prepared, self._good
        if not good:
            return ""
        text = f"{len(good)} histological sections"
        if len(good) < len(rows):
            text += f" (of {len(rows)}; the others could not be used)"
        if (simulated := simulated_from(self.brain, self.folder)) is not None:
            text += f", simulated from the MRI planes of {simulated['source']}"
        elif self._is_simulated:
            text += " of a simulated brain"
        positions = sorted(float(row["position_mm"]) for row in good)
        gaps = [b - a for a, b in pairwise(positions) if b > a]
        if gaps:
            text += f", {number(statistics.median(gaps))} mm apart in the median,"
        sizes = {float(row["pixel_size_mm"]) for row in good}
        sizes_text = number(min(sizes))
        sizes_text += f" to {number(max(sizes))}" if number(max(sizes)) != sizes_text else ""
        working = sorted({number(float(row["working_pixel_mm"])) for row in good})
        return (
            f"{text} with pixels of {sizes_text} mm were resampled to {' or '.join(working)} mm,"
            " reduced to one signal and segmented from the background."
        )

    def _alignment(self) -> str:
        quality = self._json("align", names.QUALITY)
        if not quality:
            if not (self.folder / "resample" / names.TABLE).is_file():
                return ""
            return "Each section was given with the plane of the MRI that it corresponds to."
        options = quality.get("options", {})
        text = (
            "The stack was aligned to the MRI by a 3D similarity transform, alternated with one"
            f" affine transform for each section ({options.get('rounds')} rounds of ANTs,"
            f" {self._cite('avants2011ants')[1:-1]}, then joint steps over all sections)"
        )
        if scale := quality.get("world_mm_per_stack_mm"):
            text += f"; its scale was {scale:.3f}"
        text += "."
        if (orientation := quality.get("orientation_found")) and quality.get(
            "orientation"
        ) == "auto":
            text += f" The orientation of the sections, {orientation}, was found by the fit."
        return text

    def _landmarks(self) -> str:
        """Of the user's corrections, as far as they were obeyed."""
        table = self.folder / "align_sections" / names.TABLE
        rows = read_cells(table)[1] if table.is_file() else []
        n = sum(bool(row.get("constraints")) for row in rows)
        of_sections = f"{n} section{'s' * (n > 1)}"
        return f"The registration of {of_sections} was guided by landmarks set by hand." * bool(n)

    def _registration(self) -> list[str]:
        sentences = []
        methods = self.methods
        if self._uses_registrar(methods):
            sentences.append(self._registrar())
        for method in methods:
            words = getattr(self, f"_{method}", None)
            if words is not None:
                sentences.append(words())
            elif REGISTRY[method].trained:
                sentences.append(self._trained(method))
        if any(REGISTRY[method].trained for method in methods):
            sentences.append(self._refinement())
        if methods == ["linear"]:
            sentences.append("No nonlinear registration was applied.")
        return sentences

    def _uses_registrar(self, methods: list[str]) -> bool:
        """Whether networks of this brain were trained through its registrar."""
        through = [m for m in methods if REGISTRY[m].through_shared_registrar]
        return any((self.folder / method / names.TRAINING).is_file() for method in through)

    def _registrar(self) -> str:
        source = self._plan("train_registrar").get("source", "train")
        steps = self._json("registrar", names.TRAINING).get("options", {}).get("steps")
        if steps is None:
            how = "pretrained on synthetic shapes, as shipped with sbr_core, and used as it is"
        elif source == "finetune":
            how = (
                "pretrained on synthetic shapes (as shipped with sbr_core) and trained on for"
                f" {steps} steps on the MRI planes of this brain"
            )
        else:
            how = f"trained for {steps} steps on the MRI planes of this brain"
        return f"A registration network was {how}."

    def _trained(self, method: str) -> str:
        """The sentence of a method that is trained."""
        facts = self._json(method, names.TRAINING)
        if not facts:
            return (
                f"Sections were registered by {REGISTRY[method].title} with networks trained on"
                " another brain."
            )
        options = facts.get("options", {})
        time = f"{facts.get('steps', options.get('steps'))} steps"
        if method.startswith("sbr"):
            cited = self._cite("casamitjana2021synthbyreg")
            text = (
                f"Sections were registered nonlinearly to their MRI planes by Synth-by-Reg {cited}"
                f"{self._variant(method)}: a synthesis network was trained for {time} through the"
                " frozen registration network"
            )
            if (weight := options.get("contrastive_weight", 0)) > 0:
                cited = self._cite("park2020contrastive")
                text += f", with a patch-contrastive loss of weight {weight:g} {cited}"
        else:
            what, keys = _OF_METHOD.get(method, (REGISTRY[method].description, ()))
            text = f"Sections were registered by {REGISTRY[method].title} ({what})"
            text += f" {self._cite(*keys)}" if keys else ""
            text += f", trained for {time}"
        if (factor := options.get("pixel_factor", 1)) != 1:
            text += f", at {factor} times the working pixel"
        return text + "."

    @staticmethod
    def _variant(method: str) -> str:
        return "" if method == "sbr" else f", variant {REGISTRY[method].title}"

    def _mind(self) -> str:
        options = self._plan("mind").get("mind", {}).get("options", {})
        cited = self._cite("heinrich2012mind", "heinrich2013ssc")
        return (
            "Sections were registered without training by the registration network shipped with"
            " sbr_core, whose answer was optimised by the self-similarity of section and plane"
            f" (MIND-SSC, {cited[1:-1]}; {_schedule(options)})."
        )

    def _syn_mi(self) -> str:
        options = self._plan("syn_mi").get("syn_mi", {}).get("options", {})
        iterations = " × ".join(str(n) for n in options.get("iterations", ()))
        return (
            "As a classical reference, sections were registered by SyN with Mattes mutual"
            f" information {self._cite('avants2008syn')} in ANTs ({options.get('bins')} bins,"
            f" {iterations} iterations)."
        )

    def _coherent(self) -> str:
        followed = self._followed()
        whose = "another method" if followed is None else REGISTRY[followed].title
        what = "affine transforms" if followed == "linear" else f"deformations of {whose}"
        return (
            f"The {what} were then corrected so that neighbouring sections agree,"
            " by a registration of each section to the next, after"
            f" {self._cite('casamitjana2022robust')[1:-1]}."
        )

    def _followed(self) -> str | None:
        """The method that `coherent` corrected; None where neither plan nor log says it."""
        options = self._plan("coherent").get("coherent", {}).get("options", {})
        if (named := options.get("of")) in FOLLOWED_METHODS:
            return named
        # auto goes by the order of the configuration, which only the command line tells
        log = self.folder / "logs" / "cohere" / "coherent.log"
        with suppress(OSError, ValueError, StopIteration):
            with open(log, encoding="utf-8") as lines:
                words = shlex.split(next(line for line in lines if line.startswith("$ sbr cohere")))
            method = Path(words[words.index("--sections") + 1]).parent.name
            return method if method in FOLLOWED_METHODS else None
        return None

    def _refinement(self) -> str:
        options = self._plan("infer").get("infer", {}).get("options", {})
        if not options.get("refine_steps"):
            return ""
        text = f"Each deformation was refined by optimisation ({_schedule(options)})"
        if options.get("refine_mind_weight", 0) > 0:
            cited = self._cite("heinrich2012mind", "heinrich2013ssc")
            text += f", the self-similarity of section and plane included {cited}"
        return text + "."

    def _volume(self) -> str:
        volumes = [
            m for m in self.methods if any((self.folder / m / names.VOLUME).glob("*.nii.gz"))
        ]
        if not volumes:
            return ""
        options = self._plan("reassemble").get("reassemble", {}).get("options", {})
        text = "Each section was interpolated once, from its file, into a volume"
        if (spacing := options.get("spacing_mm")) is not None:
            text += f" of voxels of {spacing:g} mm"
        elif (self.folder / "align" / names.QUALITY).is_file():
            text += " on the grid of the MRI"
        if options.get("fill", "none") != "none":
            text += "; the place of missing sections was filled from their neighbours"
        facts = [
            read_json(p) for m in volumes for p in (self.folder / m / names.VOLUME).glob("*.json")
        ]
        if n := len({section for each in facts for section in each.get("rejected", ())}):
            text += f", without {n} section{'s' * (n > 1)} rejected by eye"
        return text + "."

    def _evaluation(self) -> str:
        inputs = self._json("evaluation", names.EVALUATION).get("inputs", {})
        truth = []
        if "landmarks" in inputs:
            truth.append("landmarks")
        if {"mri_labels", "rows", "plane_labels"} & inputs.keys():
            truth.append("labels of sections and MRI")
        measured = Measured(self.folder / "evaluation", self.methods)
        values = []
        for metric, words, unit in (
            ("in_plane_mm", "the mean in-plane landmark error was", " mm"),
            ("dice", "the mean Dice coefficient of sections was", ""),
        ):
            by = {m: measured.headline(metric, m) for m in self.methods}
            known = [f"{number(v)}{unit} ({m})" for m, v in by.items() if v is not None]
            if known:
                values.append(f"{words} {', '.join(known)}")
        if not values:
            return "No landmarks or labels were given to measure the accuracy with." * bool(inputs)
        by_what = f" by {' and '.join(truth)}" if truth else ""
        where = " on a simulated brain" if self._is_simulated else ""
        return f"Accuracy was measured{where}{by_what}: {'; '.join(values)}."

    def _software(self) -> str:
        found = self._versions
        if not found:
            return ""
        used = {"SimpleITK", "nibabel", "snakemake"}
        if (self.folder / "align").is_dir() or "syn_mi" in self.methods:
            used.add("antspyx")
        if set(self.methods) - {"linear", "syn_mi"}:
            used.add("torch")
        words = []
        for library, (name, key) in _LIBRARIES.items():
            if library in used and library in found:
                words.append(f"{name.format(found[library])} {self._cite(key)}")
        joined = f" with {', '.join(words)}" if words else ""
        return f"All steps were run with sbr_core {found['sbr_core']} {self._package()}{joined}."

    # ----------------------------------------------------------------------------------------
    # What they are made of
    # ----------------------------------------------------------------------------------------

    def _json(self, *parts: str) -> dict[str, Any]:
        path = self.folder.joinpath(*parts)
        return read_json(path) if path.is_file() else {}

    def _plan(self, stage: str) -> dict[str, Any]:
        return self._json("plan", f"{stage}.json")

    @cached_property
    def _versions(self) -> Mapping[str, str]:
        """Library -> version, or both versions where stages were run with several."""
        found: dict[str, dict[str, None]] = {}
        paths = sorted({*self.folder.glob("*/*.json"), *self.folder.glob("*/volume/*.json")})
        for path in paths:
            if path.parent.name == "plan":
                continue
            with suppress(SbrError, AttributeError):
                for library, version in read_json(path).get("versions", {}).items():
                    found.setdefault(library, {})[str(version)] = None
        if "sbr_core" not in found:
            return {}
        return {library: " and ".join(sorted(several)) for library, several in found.items()}


def _schedule(options: Mapping[str, Any]) -> str:
    levels = options.get("refine_levels", ())
    *first, last = [str(level) for level in levels] or [""]
    at = f"{', '.join(first)} and {last}" if first else last
    pixels = f"{' each' * bool(first)} at {at} working pixels" if levels else ""
    return f"{options.get('refine_steps')} steps{pixels}"
