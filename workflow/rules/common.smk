# What all rules share: the checked configuration, the sheet of brains, the rows of each brain in
# chunks, and the functions that name inputs and parameters; here stand no rules.

import json
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from snakemake.logging import logger

from sbr_core import config as sbr_config
from sbr_core import methods as sbr_methods
from sbr_core.artifacts.names import SHIPPED_REGISTRAR
from sbr_core.errors import ManifestError, SbrError
from sbr_core.io import manifests
from sbr_core.io.files import sha256_file, sha256_of
from sbr_core.io.tables import read_tsv
from sbr_core.planning import chunks
from sbr_core.revisions import REVISION

REPOSITORY = Path(workflow.basedir).parent
DEMO_DIR = Path("data/demo")
DEMO_MANIFEST = DEMO_DIR / "sections.tsv"
SECTION_STAGES = ("prepare", "resample", "align_sections")
"""Stages that work section by section, before any method is chosen."""
STAGES_IN_ORDER = (
    "prepare",
    "align",
    "resample",
    "align_sections",
    "train_registrar",
)


def checked(function, *args, **kwargs):
    """The function's value; a fault of the user's becomes one line, as on the command line."""
    try:
        return function(*args, **kwargs)
    except SbrError as error:
        print(f"sbr workflow: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def demo_rows():
    """The demo's manifest as its options make it; none where no brain is the demo."""
    if all(Path(row.sections) != DEMO_MANIFEST for row in SHEET.values()):
        return []
    from sbr_core.algorithms import simulation  # takes a while, so only where it is needed

    return simulation.demo_rows(CONFIG.demo)


def demo_stands():
    """Whether the demo was made, with the options it has now."""
    try:
        made_with = json.loads((DEMO_DIR / "truth.json").read_text())["options"]
    except (OSError, ValueError, KeyError):
        made_with = None
    return DEMO_MANIFEST.is_file() and made_with == CONFIG.demo.model_dump(mode="json")


def read_rows(brain):
    """(rows of a brain that are not excluded, ids of all its rows).

    The demo's manifest counts, with what a user changed in it, unless it is still to be made.
    """
    path = Path(brain.sections)
    if path == DEMO_MANIFEST and not demo_stands():
        rows = [manifests.parse_section(row, str(path), DEMO_DIR) for row in DEMO_ROWS]
        return rows, [row.section for row in rows]
    rows = manifests.read_manifest(path, prealigned=brain.prealigned)
    return rows, [row["section"] for row in read_tsv(path)[1]]


def check_files(brain):
    """Refuse a brain that names a file which is not there; the demo's are still to be made."""
    for column in ("mri", "mri_mask", "mri_labels", "landmarks"):
        path = getattr(SHEET[brain], column)
        if path and not Path(path).is_file() and Path(path).parent != DEMO_DIR:
            where = f"{CONFIG.brains}: brain '{brain}': {column}"
            raise ManifestError(f"{where}: {path}: no such file")


def check_landmarks(brain):
    """Refuse landmarks of sections that are not there now, and not after the training."""
    row = SHEET[brain]
    of_demo = Path(row.landmarks).parent == DEMO_DIR
    if row.landmarks and Path(row.landmarks).is_file() and (demo_stands() or not of_demo):
        manifests.read_landmarks(row.landmarks, MANIFESTS[brain][1], prealigned=row.prealigned)


def has_labels(brain):
    """Whether sections of a brain have labels, and the MRI they are compared with has some too."""
    rows = MANIFESTS[brain][0]
    of_mri = labels_of_mri(brain) or any(row.mri_labels for row in rows)
    return bool(of_mri and any(row.labels for row in rows))


def check_labels(brain):
    """Refuse a method that learns from labels where there are none, before hours of training."""
    wanted = [method for method in METHODS if method in sbr_methods.LABEL_METHODS]
    if wanted and trained_here(brain) and not has_labels(brain):
        raise ManifestError(
            f"{CONFIG.brains}: brain '{brain}': method '{wanted[0]}' learns from labels:"
            " expected `labels` of sections in its manifest, and `mri_labels` here or, of a"
            " prealigned brain, in its manifest"
        )


def fault_of(brain):
    """What is wrong with what the user gave of a brain, or None; its rows go to MANIFESTS."""
    try:
        check_files(brain)
        MANIFESTS[brain] = read_rows(SHEET[brain])
        check_landmarks(brain)
        check_labels(brain)
    except SbrError as error:
        return str(error)
    return None


def found_faults():
    """Brain -> what is wrong with it, or with the brain whose networks it uses.

    The rule `refuse` stands for each, and with `--keep-going` the other brains run. When none is
    left, planning ends here.
    """
    faults = {brain: fault_of(brain) for brain in SHEET}
    for brain in SHEET:
        giver = donor(brain)
        if giver == brain:
            giver = manifests.weights_start(SHEET, brain, Path(CONFIG.brains)) or brain
        if faults[brain] is None and faults[giver] is not None:
            faults[brain] = (
                f"{CONFIG.brains}: brain '{brain}': weights_from: '{giver}' cannot be used"
            )
    faults = {brain: why for brain, why in faults.items() if why is not None}
    if len(faults) == len(SHEET):
        raise ManifestError(next(iter(faults.values())))
    for brain, why in faults.items() if workflow.is_main_process else ():
        logger.warning(f"brain '{brain}' is left out: {why}")
    return faults


def in_chunks(rows, n_rows):
    """Chunk name -> its rows."""
    row_of = {row.section: row for row in rows}
    members = chunks.chunks_of(row_of, n_rows, CONFIG.chunk_size)
    return {name: [row_of[s] for s in sections] for name, sections in members.items()}


def simulated_data(brain, *parts):
    """A path below the data of a simulated brain."""
    return str(Path(CONFIG.results, brain, "data", *parts))


def simulated_brain(brain):
    """The row of a simulated brain, as it would stand in the sheet."""
    return manifests.BrainRow(
        brain=brain,
        sections=simulated_data(brain, "sections.tsv"),
        landmarks=simulated_data(brain, "landmarks.tsv"),
        prealigned=True,
    )


def simulated_manifest(brain):
    """(rows of a simulated brain, their ids), from the rows of its source."""
    rows = manifests.simulated_rows(
        MANIFESTS[SOURCE_OF[brain]][0],
        CONFIG.simulate.n_sections,
        CONFIG.prepare.working_pixel_mm,
        Path(simulated_data(brain)),
        labelled=bool(labels_of_mri(SOURCE_OF[brain])),
    )
    return rows, [row.section for row in rows]


def labels_of_mri(brain):
    """Labels of the 3D MRI, if there are some; a prealigned brain has no such MRI."""
    return "" if BRAINS[brain].prealigned else BRAINS[brain].mri_labels


def trained_here(brain):
    """Whether a brain trains networks of its own, from nothing or on from another's."""
    return donor(brain) == brain


def donor(brain):
    """The brain whose networks this one uses."""
    return manifests.weights_donor(BRAINS, brain, Path(CONFIG.brains))


def start_of(brain, folder):
    """The brain whose networks a training starts from; None: from nothing, as in a comparison."""
    if is_compared(folder):
        return None
    return manifests.weights_start(BRAINS, brain, Path(CONFIG.brains))


def registrar_of(brain, folder):
    """The brain whose registrar a method is trained through and infers with.

    A training that starts from networks of another brain goes on with what they were trained
    through; in a comparison every brain has its own.
    """
    if is_compared(folder):
        return brain
    giver = donor(brain)
    start = start_of(giver, folder)
    return giver if start is None else registrar_of(start, folder)


def borrowed(brain, giver, path, made):
    """An input that is another brain's is `ancient`, once there is what is made with it.

    Behind an `ancient` file that is to be made anew, Snakemake looks for nothing that is missing.
    """
    return ancient(path) if giver != brain and Path(made).is_file() else path


def one_of(names):
    """Regular expression that matches exactly these names."""
    return "|".join(re.escape(name) for name in names)


# a scheduler and Ctrl-C signal every process of a job: the shell and `tee` wait for `sbr`, which
# writes its checkpoint and says so
shell.prefix("set -euo pipefail; trap '' INT TERM; ")

CONFIG = checked(sbr_config.resolve, config, REPOSITORY / "config" / "presets")
ENVIRONMENT_OF_NETWORKS = f"../../envs/sbr{'_cuda' if CONFIG.gpus else ''}.yaml"
METHODS = tuple(dict.fromkeys(("linear", *CONFIG.methods)))
# simulated pairs are also given to the classical reference
REFERENCES = tuple(method for method in ("syn_mi",) if method in sbr_methods.METHODS)
EVERY_METHOD = tuple(dict.fromkeys((*METHODS, *REFERENCES)))
TRAINED = tuple(method for method in METHODS if method in sbr_methods.TRAINED_METHODS)
TRAININGS = (
    *(["registrar"] if any(CONFIG.takes_registrar(method) for method in TRAINED) else []),
    *TRAINED,
)
"""Folders of the networks that are trained: the shared registrar's and those of the methods."""
METHOD_FOLDERS = (
    *sbr_methods.METHODS,
    *(f"compare/{method}" for method in sbr_methods.TRAINED_METHODS),
)
"""Values of the wildcard `method`: a comparison trains its own networks, in folders apart."""
SHEET = checked(manifests.read_brains, CONFIG.brains)
BRAINS = SHEET
DEMO_ROWS = checked(demo_rows)
MANIFESTS = {}
FAULTS = checked(found_faults)
SHEET = {name: row for name, row in SHEET.items() if name not in FAULTS}
# of each brain there are simulated pairs, another brain; they are made when they are asked for
SOURCE_OF = {name + manifests.SIMULATED: name for name in SHEET}
BRAINS = SHEET | {name: simulated_brain(name) for name in SOURCE_OF}
MANIFESTS |= {name: simulated_manifest(name) for name in SOURCE_OF}
CHUNKS = {name: in_chunks(rows, len(ids)) for name, (rows, ids) in MANIFESTS.items()}
REFUSALS = [str(Path(CONFIG.results, brain, "refused")) for brain in FAULTS]
"""What a target asks for beside its results, so that a brain that cannot be used is a failed job."""


# --------------------------------------------------------------------------------------------
# Paths
# --------------------------------------------------------------------------------------------


def of_brain(brain, *parts):
    """A path below the results of a brain."""
    return str(Path(CONFIG.results, brain, *parts))


def receipts(brain, stage):
    """Receipts of one per-section stage, or of one method's inference."""
    return [of_brain(brain, stage, "chunks", f"{chunk}.tsv") for chunk in CHUNKS[brain]]


def parent(path, levels=1):
    """The folder `levels` above a file."""
    return str(Path(path).parents[levels - 1])


def similarity(brain):
    """The 3D similarity of a brain that is not prealigned."""
    return of_brain(brain, "align", "from-stack_to-mri_mode-image_xfm.txt")


def fit_of(brain):
    """Everything the global fit hands on."""
    return {
        "similarity": similarity(brain),
        "plane_grid": of_brain(brain, "align", "plane_grid.json"),
        "initial": of_brain(brain, "align", "sections_initial.tsv"),
    }


def volume(brain, method):
    """The reassembled volume: in MRI space, or in stack space where there is no 3D MRI."""
    space = "stack" if BRAINS[brain].prealigned else "mri"
    return of_brain(brain, method, "volume", f"{brain}_space-{space}_histology.nii.gz")


@cache
def methods_of(brain):
    """Methods that are run on a brain; on a simulated one as far as its source has labels."""
    if brain not in SOURCE_OF:
        return METHODS
    return tuple(m for m in EVERY_METHOD if not lacks_labels(brain, m, "simulate"))


def lacks_labels(brain, method, target):
    """Whether a method learns from labels that a brain has not, which is said once."""
    lacking = method in sbr_methods.LABEL_METHODS and not has_labels(brain)
    if lacking:
        logger.info(f"{target}: {brain}: without {method}, which needs labels to train with")
    return lacking


def trainings_of(brain):
    """Folders of the networks that a brain trains itself."""
    if not trained_here(brain):
        return []
    starts = manifests.weights_start(BRAINS, brain, Path(CONFIG.brains)) is not None
    ours = (*(() if starts else ("registrar",)), *methods_of(brain))
    return [folder for folder in TRAININGS if folder in ours]


def weights_of(brain):
    """Weights that a brain trains itself."""
    return [of_brain(brain, folder, "weights.safetensors") for folder in trainings_of(brain)]


def checkpoint_root(brain, network):
    """Where a training keeps its checkpoints: outside of any rule's output."""
    return str(Path(CONFIG.results, ".checkpoints", brain, network))


def method_of(folder):
    """The method whose results a folder has: the brain's own or those of its comparison."""
    return folder.removeprefix("compare/")


def is_compared(folder):
    """Whether a method's folder belongs to a comparison."""
    return folder != method_of(folder)


def own_folders(brain):
    """Method -> folder of its results, of the methods that are run on a brain anyway."""
    return {method: method for method in methods_of(brain)}


@cache
def compared_folders(brain):
    """Method -> folder, of a comparison; what is not trained is shared with the brain's own."""
    folders = {}
    for method in dict.fromkeys(("linear", *CONFIG.compare.methods)):
        if lacks_labels(brain, method, "compare"):
            continue
        trained = method in sbr_methods.TRAINED_METHODS
        folders[method] = f"compare/{method}" if trained else method
    return folders


def results_of(brain):
    """Every file of a brain whose loss is to be noticed."""
    tables = [receipts(brain, stage) for stage in (*SECTION_STAGES, *methods_of(brain))]
    fit = [] if BRAINS[brain].prealigned else list(fit_of(brain).values())
    volumes = [volume(brain, method) for method in methods_of(brain)]
    return [*(path for table in tables for path in table), *fit, *weights_of(brain), *volumes]


# --------------------------------------------------------------------------------------------
# Named inputs
# --------------------------------------------------------------------------------------------


def image_files(wildcards):
    """Images, masks and labels of the sections of one chunk.

    A simulated brain's manifest stands for them: it is written when all of them are there.
    """
    if wildcards.brain in SOURCE_OF:
        return [BRAINS[wildcards.brain].sections]
    rows = CHUNKS[wildcards.brain][wildcards.chunk]
    return [f for row in rows for f in (row.image, row.mask, row.labels) if f]


def mri_inputs(wildcards):
    """The MRI as the user gave it, and its mask where there is one."""
    row = BRAINS[wildcards.brain]
    return {"mri": row.mri} | ({"mri_mask": row.mri_mask} if row.mri_mask else {})


def plane_inputs(wildcards):
    """Where the MRI planes of a chunk come from: the fitted MRI, or a plane of each row."""
    brain = wildcards.brain
    if brain in SOURCE_OF:
        return {"images": [BRAINS[brain].sections]}
    if BRAINS[brain].prealigned:
        rows = CHUNKS[brain][wildcards.chunk]
        return {"images": [f for row in rows for f in (row.mri_image, row.mri_mask) if f]}
    return {
        "similarity": similarity(brain),
        "plane_grid": of_brain(brain, "align", "plane_grid.json"),
        "mri": of_brain(brain, "prepare", "mri.nii.gz"),
        "mri_mask": of_brain(brain, "prepare", "mri_mask.nii.gz"),
    }


def fit_inputs(wildcards):
    """What a brain as a whole stands on: the global fit, or the truth that a simulated one has.

    Another brain that lies on its planes already stands on nothing.
    """
    brain = wildcards.brain
    if brain in SOURCE_OF:
        return {"truth": simulated_data(brain, "truth.json")}
    return {} if BRAINS[brain].prealigned else fit_of(brain)


def frame_inputs(wildcards):
    """What a volume or a table in MRI space needs, of a brain that is not prealigned."""
    brain = wildcards.brain
    if BRAINS[brain].prealigned:
        return {}
    return {
        "similarity": similarity(brain),
        "mri": of_brain(brain, "prepare", "mri.nii.gz"),
    }


def steady(stage, *parts):
    """Input function of a table of sections, for a stage that looks at the brain as a whole.

    A section that changes must not start the global fit or a training again, so the table is
    `ancient`. When the user forces the stage, it waits for the newest table; and so it does where
    something it makes is missing: behind an `ancient` file that is to be made anew, Snakemake looks
    for nothing that is missing, and it would take a second call to make it.
    """

    def table(wildcards):
        path = of_brain(wildcards.brain, *parts)
        forced = workflow.dag_settings.forceall or stage in workflow.dag_settings.forcerun
        made = all(Path(file).is_file() for file in made_by(stage, wildcards))
        return ancient(path) if made and not forced else path

    return table


def made_by(stage, wildcards):
    """What is asked for of a stage that looks at the brain as a whole."""
    brain = wildcards.brain
    if stage == "align":
        return list(fit_of(brain).values())
    if stage == "simulate_pairs":
        names = ("sections.tsv", "landmarks.tsv", "truth.json")
        return [simulated_data(brain + manifests.SIMULATED, name) for name in names]
    folder = "registrar" if stage == "train_registrar" else wildcards.method
    return [of_brain(brain, folder, name) for name in ("weights.safetensors", "loss.tsv")]


def network_inputs(wildcards):
    """Trained networks that a method's inference uses; another brain's are `ancient`.

    In a comparison every brain trains networks of its own.
    """
    brain, method = wildcards.brain, method_of(wildcards.method)
    if method not in sbr_methods.TRAINED_METHODS:
        return {}
    folder = wildcards.method
    givers = {folder: brain if is_compared(folder) else donor(brain)}
    if method not in sbr_methods.OWN_REGISTRAR_METHODS:
        givers["registrar"] = registrar_of(brain, folder)
    paths = {
        "registrar" if network == "registrar" else "weights": (
            giver,
            of_brain(giver, network, "weights.safetensors"),
        )
        for network, giver in givers.items()
    }
    return {name: ancient(p) if giver != brain else p for name, (giver, p) in paths.items()}


def training_inputs(wildcards):
    """What a method is trained with beside the pairs: the fit, the shared registrar, or labels.

    Label images are as steady as the sections they belong to: an edited one starts no training.
    """
    brain, method = wildcards.brain, method_of(wildcards.method)
    inputs = dict(fit_inputs(wildcards))
    made = of_brain(brain, wildcards.method, "weights.safetensors")
    if CONFIG.takes_registrar(method):
        giver = registrar_of(brain, wildcards.method)
        registrar = of_brain(giver, "registrar", "weights.safetensors")
        inputs["registrar"] = borrowed(brain, giver, registrar, made)
    if (giver := start_of(brain, wildcards.method)) is not None:
        start = of_brain(giver, wildcards.method, "weights.safetensors")
        inputs["start"] = borrowed(brain, giver, start, made)
    if method in sbr_methods.LABEL_METHODS:
        inputs["prepared"] = steady("train", "prepare", "sections.tsv")(wildcards)
        if labels_of_mri(brain):
            inputs["mri_labels"] = labels_of_mri(brain)
        if plane_labels(brain):
            inputs["plane_labels"] = [ancient(path) for path in plane_labels(brain)]
    return inputs


def plane_labels(brain):
    """Labels of the MRI planes of a prealigned brain's sections.

    A simulated brain's manifest stands for them, as it does for its images.
    """
    files = [r.mri_labels for rows in CHUNKS[brain].values() for r in rows if r.mri_labels]
    return [BRAINS[brain].sections] if files and brain in SOURCE_OF else files


def label_inputs(brain):
    """Labels of the MRI or of its planes, where the user gave some."""
    inputs = {}
    if labels_of_mri(brain):
        inputs["mri_labels"] = labels_of_mri(brain)
    if plane_labels(brain):
        inputs["plane_labels"] = plane_labels(brain)
    return inputs


def evaluation_inputs(folders):
    """Input function: every method's transforms and volume, and whatever truth the user gave.

    `folders` gives the methods of a brain: `own_folders` or `compared_folders`.
    """

    def inputs(wildcards):
        brain = wildcards.brain
        found = {
            "tables": [of_brain(brain, f, "sections.tsv") for f in folders(brain).values()],
            "volumes": [volume(brain, f) for f in folders(brain).values()],
            **frame_inputs(wildcards),
            **label_inputs(brain),
        }
        if BRAINS[brain].landmarks:
            found["landmarks"] = BRAINS[brain].landmarks
        return found

    return inputs


def comparison_inputs(wildcards):
    """Every compared method's sections and losses, and what outlines of anatomy are made from."""
    brain = wildcards.brain
    folders = compared_folders(brain)
    inputs = {
        "tables": [of_brain(brain, folder, "sections.tsv") for folder in folders.values()],
        "losses": [of_brain(brain, f, "loss.tsv") for f in folders.values() if is_compared(f)],
        **label_inputs(brain),
    }
    trained = [method for method, folder in folders.items() if is_compared(folder)]
    if any(CONFIG.takes_registrar(method) for method in trained):
        inputs["registrar"] = of_brain(brain, "registrar", "loss.tsv")
    if not BRAINS[brain].prealigned:
        inputs["similarity"] = similarity(brain)
    return inputs


def training_plan(wildcards):
    """The plan of one training."""
    part = ".compare" if is_compared(wildcards.method) else ""
    name = f"train_{method_of(wildcards.method)}{part}.json"
    return of_brain(wildcards.brain, "plan", name)


def simulation_inputs(wildcards):
    """What pairs are made from beside the tables: the fit, and labels of the MRI.

    Label images of planes are as steady as the planes: an edited one makes no pairs anew.
    """
    brain = wildcards.brain
    inputs = dict(fit_inputs(wildcards))
    if labels_of_mri(brain):
        inputs["mri_labels"] = labels_of_mri(brain)
    elif plane_labels(brain):
        inputs["plane_labels"] = [ancient(path) for path in plane_labels(brain)]
    return inputs


def report_inputs(wildcards):
    """Tables and pictures of a brain."""
    brain = wildcards.brain
    inputs = {
        "tables": [of_brain(brain, method, "sections.tsv") for method in methods_of(brain)],
        "volumes": [volume(brain, method) for method in methods_of(brain)],
    }
    if not BRAINS[brain].prealigned:
        inputs["fit"] = of_brain(brain, "align", "quality.json")
    if brain in SHEET:
        inputs["findings"] = of_brain(brain, "doctor", "findings.tsv")
        inputs["contact_sheet"] = of_brain(brain, "doctor", "contact_sheet.png")
    if trainings_of(brain):
        inputs["losses"] = [of_brain(brain, f, "loss.tsv") for f in trainings_of(brain)]
    return inputs


# --------------------------------------------------------------------------------------------
# Parameters
# --------------------------------------------------------------------------------------------


def options(stage):
    """The stage's own section of the configuration as JSON."""
    return CONFIG.section_json(stage)


def flags(**values):
    """Words of a command line; a flag that is None, False or empty is left out."""
    words = []
    for name, value in values.items():
        if value is None or value is False or value == []:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += [str(v) for v in value] if isinstance(value, list) else [str(value)]
    return words


@cache
def chunk_json(brain, chunk):
    """The rows of a chunk as JSON; without notes, which change nothing."""
    return manifests.rows_to_json(CHUNKS[brain][chunk])


@cache
def plane_json(brain, chunk):
    """The rows of a chunk as JSON, with only what decides their MRI planes."""
    bare = dict(mask="", labels="", mri_labels="", flip="none", rotate_deg=0.0)
    bare |= dict(stain="", image_channel="")
    return manifests.rows_to_json([replace(row, **bare) for row in CHUNKS[brain][chunk]])


def chunk_rows(wildcards):
    """The rows of a chunk as JSON, for `prepare`."""
    return chunk_json(wildcards.brain, wildcards.chunk)


def plane_rows(wildcards):
    """The rows of a chunk as JSON, for `resample`."""
    return plane_json(wildcards.brain, wildcards.chunk)


def rows_file(wildcards, output):
    """Where a job writes the rows it is given, beside its receipt.

    On a command line they would outgrow what the system allows in one argument, 128 KiB.
    """
    return str(Path(output.receipt).with_suffix(".rows.json"))


def excluded_sections(wildcards):
    """Ids of the sections left out."""
    rows, ids = MANIFESTS[wildcards.brain]
    kept = {row.section for row in rows}
    return [section for section in ids if section not in kept]


def method_folders(folders):
    """Parameter function: ``METHOD=FOLDER`` of every method; `folders` as above."""

    def words(wildcards):
        brain = wildcards.brain
        return [f"{m}={of_brain(brain, folder)}" for m, folder in folders(brain).items()]

    return words


def training_options(brain, folder):
    """A training's own section of the configuration as JSON; in a comparison with its budget."""
    section = f"train_{method_of(folder)}"
    if is_compared(folder):
        return CONFIG.compared_json(section)
    return CONFIG.training_json(section, start=start_of(brain, folder) is not None)


def inference_section(folder):
    """The section of the configuration that a method's inference is given."""
    return folder if folder == "syn_mi" else "infer"


def gpus(stage):
    """Graphics cards a job of this stage asks for."""
    device = getattr(CONFIG, stage).device
    asked = int(sbr_config.has_card()) if CONFIG.gpus is None else CONFIG.gpus
    return {"cpu": 0, "cuda": max(1, asked)}.get(device, asked)


def cards(gpus_of_job):
    """Resources of a rule whose job takes `gpus_of_job(wildcards)` graphics cards.

    `gpu` is also what two jobs on one workstation may not take at a time; `gres` is for clusters
    that know nothing else.
    """

    def as_gres(wildcards):
        n = gpus_of_job(wildcards)
        return f"{CONFIG.gres}:{n}" if n else ""

    return {"gpu": gpus_of_job} if CONFIG.gres is None else {"gres": as_gres}


def plan_text(wildcards):
    """What the configuration and the tables ask of one stage, as JSON (see plan.smk)."""
    brain = wildcards.brain
    stage, _, part = wildcards.plan.partition(".")
    if stage == "collect":
        return sbr_config.canonical_json({"chunks": list(CHUNKS[brain])})
    followed = [stage]
    # the tables of these are ancient, so what those tables were made with is followed here
    if stage == "align" or stage.startswith("train_"):
        before = "align" if stage == "align" else "train_registrar"
        followed += STAGES_IN_ORDER[: STAGES_IN_ORDER.index(before)]
    if stage == "simulate":
        followed += SECTION_STAGES
    elif brain in SOURCE_OF and stage.startswith("train_"):
        followed.append("simulate")
    asked = {
        name: {"options": json.loads(options(name)), "revision": REVISION[name]}
        for name in followed
    }
    if stage.startswith("train_") and stage != "train_registrar":
        folder = stage.removeprefix("train_")
        folder = f"compare/{folder}" if part == "compare" else folder
        asked[stage]["options"] = json.loads(training_options(brain, folder))
        if (start := start_of(brain, folder)) is not None:
            asked["start"] = start
    if stage == "simulate":
        # a digest, since the rows of a large brain are more than a command line takes
        asked["rows"] = sha256_of(manifests.rows_to_json(MANIFESTS[brain][0]))
        asked["mri_labels"] = labels_of_mri(brain)
    if stage == "train_registrar":
        asked["source"] = CONFIG.registrar
        if CONFIG.registrar != "train":
            asked["shipped"] = sha256_file(SHIPPED_REGISTRAR)
    if stage == "align":
        asked["orientation"] = BRAINS[brain].orientation
    if stage == "resample":
        asked["rows"] = json.loads(plane_json(brain, part))
    if stage in ("infer", "syn_mi"):
        asked["networks"] = donor(brain)
    if stage == "report":
        # a report shows the comparison and the accuracy on simulated pairs that it finds, and is
        # made anew after others; as inputs, they would be made whenever a report is
        shown = {"comparison": of_brain(brain, "compare", "index.html")}
        if brain in SHEET:
            simulated = brain + manifests.SIMULATED
            shown["simulated"] = of_brain(simulated, "evaluation", "summary.tsv")
        for name, path in shown.items():
            asked[name] = sha256_file(Path(path)) if Path(path).is_file() else None
    return sbr_config.canonical_json(asked)
