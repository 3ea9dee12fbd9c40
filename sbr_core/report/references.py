"""What a paper that uses a result should cite, as BibTeX and in words."""

from __future__ import annotations

from dataclasses import dataclass

from sbr_core import __version__

_YEAR = "2026"
"""Of the release of this version, as CITATION.cff has it."""


@dataclass(frozen=True)
class Reference:
    """One publication.

    Attributes
    ----------
    kind : of BibTeX's entry.
    short : as it is cited in a sentence.
    fields : of BibTeX's entry, in their order.
    """

    key: str
    kind: str
    short: str
    fields: dict[str, str]

    @property
    def bibtex(self) -> str:
        """The entry of BibTeX."""
        lines = [f"  {name} = {{{value}}}" for name, value in self.fields.items()]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}\n"

    @property
    def words(self) -> str:
        """The line of a list of references."""
        authors = _plain(self.fields["author"]).replace(" and others", " et al.")
        authors = authors.replace(" and ", "; ")
        authors += f" ({self.fields['year']})" if "year" in self.fields else ""
        where = self.fields.get("journal") or self.fields.get("booktitle") or ""
        where += f" {self.fields['volume']}" if "volume" in self.fields else ""
        where += f":{self.fields['pages'].replace('--', '–')}" if "pages" in self.fields else ""
        parts = [f"{authors}. {_plain(self.fields['title'])}", where.strip()]
        parts.append(self.fields.get("note", ""))
        for name, prefix in (("doi", "doi:"), ("eprint", "arXiv:")):
            parts += [prefix + self.fields[name]] if name in self.fields else []
        return ". ".join(part for part in parts if part) + "."


def package(version: str) -> Reference:
    """This package in a version; of another one than this the year is not known."""
    year = {"year": _YEAR} if version == __version__ else {}
    return _entry(
        f"sbr_core-{version}",
        "misc",
        ", ".join(["The sbr_core developers", *year.values()]),
        author=r"{The sbr\_core developers}",
        title=r"{sbr\_core}: {Synth-by-Reg} registration of histology stacks and {MRI}",
        note=f"Version {version}",
        **year,
    )


def _plain(text: str) -> str:
    """Text without what only LaTeX needs."""
    return text.replace("{", "").replace("}", "").replace(r"\_", "_")


def _entry(key: str, kind: str, short: str, **fields: str) -> Reference:
    return Reference(key, kind, short, fields)


REFERENCES = {
    reference.key: reference
    for reference in (
        _entry(
            "casamitjana2021synthbyreg",
            "inproceedings",
            "Casamitjana et al., 2021",
            author="Casamitjana, Adrià and Mancini, Matteo and Iglesias, Juan Eugenio",
            title="{Synth-by-Reg (SbR)}: Contrastive learning for synthesis-based registration of"
            " paired images",
            booktitle="Simulation and Synthesis in Medical Imaging (SASHIMI), LNCS",
            volume="12965",
            pages="44--54",
            year="2021",
            doi="10.1007/978-3-030-87592-3_5",
        ),
        _entry(
            "casamitjana2022robust",
            "article",
            "Casamitjana et al., 2022",
            author="Casamitjana, Adrià and Lorenzi, Marco and Ferraris, Sebastiano and Peter, Loïc"
            " and Modat, Marc and Stevens, Allison and Fischl, Bruce and Vercauteren, Tom and"
            " Iglesias, Juan Eugenio",
            title="Robust joint registration of multiple stains and {MRI} for multimodal {3D}"
            " histology reconstruction: Application to the {Allen} human brain atlas",
            journal="Medical Image Analysis",
            volume="75",
            pages="102265",
            year="2022",
            doi="10.1016/j.media.2021.102265",
        ),
        _entry(
            "avants2008syn",
            "article",
            "Avants et al., 2008",
            author="Avants, Brian B. and Epstein, Charles L. and Grossman, Murray and Gee, James"
            " C.",
            title="Symmetric diffeomorphic image registration with cross-correlation: evaluating"
            " automated labeling of elderly and neurodegenerative brain",
            journal="Medical Image Analysis",
            volume="12",
            pages="26--41",
            year="2008",
            doi="10.1016/j.media.2007.06.004",
        ),
        _entry(
            "avants2011ants",
            "article",
            "Avants et al., 2011",
            author="Avants, Brian B. and Tustison, Nicholas J. and Song, Gang and Cook, Philip A."
            " and Klein, Arno and Gee, James C.",
            title="A reproducible evaluation of {ANTs} similarity metric performance in brain image"
            " registration",
            journal="NeuroImage",
            volume="54",
            pages="2033--2044",
            year="2011",
            doi="10.1016/j.neuroimage.2010.09.025",
        ),
        _entry(
            "heinrich2012mind",
            "article",
            "Heinrich et al., 2012",
            author="Heinrich, Mattias P. and Jenkinson, Mark and Bhushan, Manav and Matin, Tahreema"
            " and Gleeson, Fergus V. and Brady, Michael and Schnabel, Julia A.",
            title="{MIND}: Modality independent neighbourhood descriptor for multi-modal deformable"
            " registration",
            journal="Medical Image Analysis",
            volume="16",
            pages="1423--1435",
            year="2012",
            doi="10.1016/j.media.2012.05.008",
        ),
        _entry(
            "heinrich2013ssc",
            "inproceedings",
            "Heinrich et al., 2013",
            author="Heinrich, Mattias P. and Jenkinson, Mark and Papież, Bartłomiej W. and Brady,"
            " Michael and Schnabel, Julia A.",
            title="Towards realtime multimodal fusion for image-guided interventions using"
            " self-similarities",
            booktitle="Medical Image Computing and Computer-Assisted Intervention (MICCAI), LNCS",
            volume="8149",
            pages="187--194",
            year="2013",
            doi="10.1007/978-3-642-40811-3_24",
        ),
        _entry(
            "park2020contrastive",
            "inproceedings",
            "Park et al., 2020",
            author="Park, Taesung and Efros, Alexei A. and Zhang, Richard and Zhu, Jun-Yan",
            title="Contrastive learning for unpaired image-to-image translation",
            booktitle="European Conference on Computer Vision (ECCV), LNCS",
            volume="12354",
            pages="319--345",
            year="2020",
            doi="10.1007/978-3-030-58545-7_19",
        ),
        _entry(
            "zhu2017cyclegan",
            "inproceedings",
            "Zhu et al., 2017",
            author="Zhu, Jun-Yan and Park, Taesung and Isola, Phillip and Efros, Alexei A.",
            title="Unpaired image-to-image translation using cycle-consistent adversarial networks",
            booktitle="IEEE International Conference on Computer Vision (ICCV)",
            pages="2242--2251",
            year="2017",
            doi="10.1109/ICCV.2017.244",
        ),
        _entry(
            "arar2020geometry",
            "inproceedings",
            "Arar et al., 2020",
            author="Arar, Moab and Ginger, Yiftach and Danon, Dov and Bermano, Amit H. and"
            " Cohen-Or, Daniel",
            title="Unsupervised multi-modal image registration via geometry preserving"
            " image-to-image translation",
            booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
            year="2020",
            eprint="2003.08073",
        ),
        _entry(
            "paszke2019pytorch",
            "inproceedings",
            "Paszke et al., 2019",
            author="Paszke, Adam and Gross, Sam and Massa, Francisco and others",
            title="{PyTorch}: An imperative style, high-performance deep learning library",
            booktitle="Advances in Neural Information Processing Systems (NeurIPS)",
            volume="32",
            year="2019",
        ),
        _entry(
            "lowekamp2013simpleitk",
            "article",
            "Lowekamp et al., 2013",
            author="Lowekamp, Bradley C. and Chen, David T. and Ibáñez, Luis and Blezek, Daniel",
            title="The design of {SimpleITK}",
            journal="Frontiers in Neuroinformatics",
            volume="7",
            pages="45",
            year="2013",
            doi="10.3389/fninf.2013.00045",
        ),
        _entry(
            "molder2021snakemake",
            "article",
            "Mölder et al., 2021",
            author="Mölder, Felix and Jablonski, Kim Philipp and Letcher, Brice and others",
            title="Sustainable data analysis with {Snakemake}",
            journal="F1000Research",
            volume="10",
            pages="33",
            year="2021",
            doi="10.12688/f1000research.29032.2",
        ),
        _entry(
            "brett_nibabel",
            "misc",
            "Brett et al.",
            author="Brett, Matthew and Markiewicz, Christopher J. and Hanke, Michael and others",
            title="{NiBabel}: Access a cacophony of neuro-imaging file formats",
            year="2024",
            doi="10.5281/zenodo.591597",
        ),
    )
}
"""Key -> publication."""
