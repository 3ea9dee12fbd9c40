"""The configuration: refused by name, layered, documented, and equal wherever it is written."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import jsonschema
import pytest
import yaml

from sbr_core import config
from sbr_core.config import (
    Config,
    GeneralOptions,
    GeneratorNetwork,
    NmiOptions,
    Options,
    TrainOptions,
    parse_options,
    resolve,
)
from sbr_core.config.generated import json_schema, table, with_tables
from sbr_core.errors import ConfigError
from sbr_core.io.manifests import BrainRow, SectionRow
from sbr_core.methods import (
    OWN_REGISTRAR_METHODS,
    SHARED_REGISTRAR_METHODS,
    TRAINED_METHODS,
    WITH_OPTIONS,
)
from sbr_core.revisions import REVISION

STAGES = {
    name: field.annotation
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Options)
}


@pytest.fixture
def presets(tmp_path):
    """A folder of presets."""
    (tmp_path / "demo.yaml").write_text("# nothing\n")
    (tmp_path / "fast.yaml").write_text("train_sbr: {steps: 5, augment: {scale: 0.1}}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nonsense": 1}, "unknown key 'nonsense'"),
        ({"train_sbr": {"stepz": 1}}, "unknown key 'train_sbr.stepz'"),
        ({"train_sbr": {"augment": {"x": 1}}}, "unknown key 'train_sbr.augment.x'"),
        ({"train_sbr": {"steps": "many"}}, 'train_sbr.steps: .*found "many"'),
        ({"prepare": {"working_pixel_mm": 0}}, "prepare.working_pixel_mm: .*greater than 0"),
        ({"prepare": {"working_pixel_mm": float("nan")}}, "prepare.working_pixel_mm"),
        ({"train_sbr": {"beta1": 1}}, "train_sbr.beta1: .*less than 1"),
        ({"train_sbr": {"intensity": {"low_quantile": 1}}}, "train_sbr.intensity: .*below high"),
        ({"train_registrar": {"decoder_channels": [8]}}, "train_registrar: .*as many"),
        ({"registered": {"pixel_mm": -1}}, "registered.pixel_mm: .*expected file, or a number"),
        ({"registered": {"pixel_mm": True}}, "registered.pixel_mm: .*expected file, or a number"),
        ({"methods": ["magic"]}, 'methods.0: .*found "magic"'),
        ({"preset": "huge"}, "preset 'huge': no such preset .known: demo, fast."),
        ({"preset": 3}, "preset: expected a name"),
        ({"results": "r {x}"}, "results: .*without {, }, < or >, found '{'"),
        ({"results": "r <x>"}, "results: .*found '<'"),
    ],
)
def test_wrong_key_or_value_is_named_in_one_line(presets, values, said):
    with pytest.raises(ConfigError, match=said) as caught:
        resolve(values, presets)
    assert "\n" not in str(caught.value)


def test_own_keys_win_over_the_preset_and_the_preset_over_defaults(presets):
    values = {"preset": "fast", "train_sbr": {"augment": {"field_grid": 4}, "batch_size": 2}}
    before = json.dumps(values)
    found = resolve(values, presets).train_sbr
    assert (found.steps, found.batch_size, found.learning_rate) == (5, 2, 2e-4)
    assert (found.augment.scale, found.augment.field_grid) == (0.1, 4)
    assert json.dumps(values) == before, "the user's values were changed in passing"
    assert resolve({"preset": str(presets / "fast.yaml")}, presets).train_sbr.steps == 5


def test_a_key_written_once_counts_for_every_method(presets):
    """But a default of a method's own is not overruled by what stands under another's name."""
    values = {
        "train_registrar": {"encoder_channels": [4, 8], "decoder_channels": [8, 4], "steps": 3},
        "train_sbr": {
            "minutes": 10,
            "contrastive_weight": 0.5,
            "warmup_fraction": 0.1,
            "generator_channels": 8,
            "learning_rate": 1e-3,
            "augment": {"scale": 0.2},
        },
        "train_nmi": {"bins": 30, "steps": 7},
        "train_cgan": {"augment": {"rotation_deg": 1.0}},
    }
    before = json.dumps(values)
    found = resolve(values, presets)
    for method in TRAINED_METHODS:
        section = getattr(found, f"train_{method}")
        assert section.minutes == 10 and section.augment.scale == 0.2, method
        if method not in ("nmi", "nmiw"):
            assert section.generator_channels == 8 and section.learning_rate == 1e-3, method
    assert found.train_registrar.minutes is None and found.train_registrar.augment.scale == 0.05
    assert found.train_sbr_r.contrastive_weight == found.train_sbr_g.contrastive_weight == 0.5
    assert found.train_sbr_n.contrastive_weight == 0
    assert found.train_nmi.learning_rate == NmiOptions().learning_rate
    assert found.train_cgan.augment.rotation_deg == 1.0
    assert found.train_cgan.warmup_fraction == found.train_sbr_g.warmup_fraction == 0.1
    for section in (found.train_nmi, found.train_nmiw, found.train_rot):
        assert section.encoder_channels == (4, 8)
    assert found.train_nmiw.bins == 30
    assert found.train_nmi.steps == found.train_nmiw.steps == 7 != found.train_rot.steps
    assert json.dumps(values) == before, "the user's values were changed in passing"


def test_what_is_inherited_is_refused_where_it_was_written(presets):
    with pytest.raises(ConfigError, match=r"train_sbr\.steps"):
        resolve({"train_sbr": {"steps": "many"}}, presets)
    with pytest.raises(ConfigError, match=r"train_registrar: .*as many"):
        resolve({"train_registrar": {"decoder_channels": [8]}}, presets)
    with pytest.raises(ConfigError, match=r"train_cgan: .*found \[1\]"):
        resolve({"train_cgan": [1]}, presets)


def test_every_trained_method_has_a_section_and_one_of_two_registrars():
    assert {f"train_{method}" for method in TRAINED_METHODS} <= set(STAGES)
    assert set(SHARED_REGISTRAR_METHODS) | set(OWN_REGISTRAR_METHODS) == set(TRAINED_METHODS)
    inheriting = {method.section for method in WITH_OPTIONS if method.inherits}
    assert inheriting | {"train_sbr"} == {f"train_{method}" for method in TRAINED_METHODS}


def test_the_shared_registrar_is_taken_to_go_through_it_or_to_start_at_it(repository):
    presets = repository / "sbr_core/config/presets"

    def taking(**values):
        found = resolve(values, presets)
        return {method for method in TRAINED_METHODS if found.takes_registrar(method)}

    shared = set(SHARED_REGISTRAR_METHODS)
    assert taking(preset="paper") == shared
    assert taking(preset="paper", train_nmi={"registrar_start": "shared"}) == shared | {
        "nmi",
        "nmiw",  # takes over what is written for nmi
    }
    assert taking(preset="paper", train_rot={"registrar_start": "shared"}) == shared | {"rot"}
    for preset in ("demo", "cpu"):
        assert taking(preset=preset) == set(TRAINED_METHODS)
        through = [getattr(resolve({"preset": preset}, presets), f"train_{m}") for m in shared]
        assert {(one.warmup_fraction, one.warmup_start) for one in through} == {(0.15, "section")}


TRAINED_OR_INFERRED = (
    "train_registrar",
    *(f"train_{method}" for method in TRAINED_METHODS),
    "syn_mi",
    "infer",
)
NOT_OF_THE_METHOD = {
    "device": "where it is computed",
    "seed": "any is as good",
    "threads": "speed; results differ in their last digits",
    "memory_gb": "where the images lie; the result is the same",
    "checkpoint_every_s": "what an interruption costs",
    "infer.batch_size": "memory and speed; each section has the same result",
    "estimator_channels": "of the pyramid only, and the paper's registrar is the U-Net",
    "radius_px": "likewise",
    "train_registrar.finetune_steps": "of `registrar: finetune` only, and the paper's is `train`",
    "train_registrar.finetune_learning_rate": "likewise",
    "medium_margin_px": "of planes that are cut, and a `medium_share` of 1 cuts none",
    "infer.refine_learning_rate": "of the refinement, of which no step is taken",
    "infer.refine_smoothness": "likewise",
    "infer.refine_window_px": "likewise",
    "infer.refine_edge_px": "likewise",
    "infer.refine_levels": "likewise",
    "infer.refine_l1_weight": "likewise",
    "infer.refine_mind_weight": "likewise: 0 leaves methods without a synthesis unrefined too",
    "infer.refine_mind_dilations_px": "likewise",
    "infer.refine_rim_px": "likewise",
}
"""Option -> why the preset `paper` may leave it to the default."""


def test_no_default_can_change_what_the_preset_paper_does(repository):
    """Each option is written in it, for a method where the method takes it from, or excused."""
    paper = config.load_yaml(repository / "sbr_core/config/presets/paper.yaml")
    written = config.with_inherited(paper)
    excused = set()
    for section in TRAINED_OR_INFERRED:
        for key, field in STAGES[section].model_fields.items():
            parts = getattr(type(field.default), "model_fields", None)
            for part in parts or ("",):
                value = written[section].get(key, {})
                if (part in value) if parts else key in written[section]:
                    continue
                reason = {key, f"{section}.{key}"} & set(NOT_OF_THE_METHOD)
                assert reason, (
                    f"sbr_core/config/presets/paper.yaml: {section}.{key} {part} is not written"
                )
                excused |= reason
    assert excused == set(NOT_OF_THE_METHOD)
    # what excuses some of them
    assert (paper["registrar"], paper["infer"]["refine_steps"]) == ("train", 0)
    assert paper["train_registrar"]["network"] == "unet"
    assert paper["train_sbr"]["medium_share"] == 1


def test_the_preset_paper_has_the_published_values(repository):
    """As the tables of the paper and its code have them, whatever this project's defaults are."""
    found = resolve({"preset": "paper"}, repository / "sbr_core/config/presets")
    sbr, registrar = found.train_sbr, found.train_registrar
    assert (sbr.contrastive_weight, sbr.temperature, sbr.n_samples) == (0.02, 0.05, 256)
    assert (sbr.generator_channels, sbr.residual_blocks, sbr.projection_channels) == (32, 6, 256)
    assert (sbr.batch_size, sbr.learning_rate, sbr.beta1, sbr.steps) == (1, 2e-4, 0.5, 400 * 93)
    assert (registrar.batch_size, registrar.learning_rate, registrar.smoothness) == (10, 1e-3, 1)
    assert registrar.encoder_channels == (16, 32, 32, 64, 64, 64)
    assert registrar.decoder_channels == (64, 64, 64, 32, 32, 16)
    assert (registrar.squaring_steps, registrar.lncc_window_px, registrar.neighbours) == (7, 9, 3)
    assert found.train_sbr_n.contrastive_weight == 0 and found.train_nmi.bins == 20
    for method in TRAINED_METHODS:
        section = getattr(found, f"train_{method}")
        drawn, scaled = section.augment, section.intensity
        assert (drawn.rotation_deg, drawn.scale, drawn.translation_px) == (3, 0.05, 2), method
        assert (drawn.field_grid, drawn.field_sigma_px) == (9, (3, 5)), method
        assert (scaled.low_quantile, scaled.high_quantile) == (0.01, 0.99), method
        assert not section.augment_together and section.precision == "auto", method
    assert registrar.precision == "float32"
    assert not found.infer.symmetric and found.infer.refine_steps == 0


def test_options_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        Config().train_sbr.steps = 3


def test_section_json_is_canonical_and_complete():
    one = parse_options(Config, {"infer": {"batch_size": 2, "device": "cpu"}}, "")
    other = parse_options(Config, {"infer": {"device": "cpu", "batch_size": 2}}, "")
    assert one.section_json("infer") == other.section_json("infer")
    for name, model in STAGES.items():
        assert model.model_validate_json(Config().section_json(name)) == getattr(Config(), name)


def test_every_stage_has_a_revision():
    assert set(STAGES) <= set(REVISION)


def test_schema_in_the_workflow_is_that_of_the_options(repository):
    written = (repository / "workflow/schemas/config.schema.json").read_text()
    assert written == json_schema(), "run `make schema`"


def test_presets_and_config_file_fit_the_schema(repository):
    schema = json.loads((repository / "workflow/schemas/config.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    files = [
        repository / "config/config.yaml",
        *(repository / "sbr_core/config/presets").glob("*.yaml"),
    ]
    for file in files:
        jsonschema.validate(yaml.safe_load(file.read_text()) or {}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"nonsense": 1}, schema)


def option_classes(model: type[Options] = Options) -> list[type[Options]]:
    """All classes with options of their own; those that make up `Config` are private but one."""
    classes = [cls for child in model.__subclasses__() for cls in (child, *option_classes(child))]
    return [cls for cls in dict.fromkeys(classes) if hasattr(config, cls.__name__)]


@pytest.mark.parametrize("model", option_classes(), ids=lambda model: model.__name__)
def test_every_option_has_a_description(model):
    for key, field in model.model_fields.items():
        section = isinstance(field.default, Options) and model is Config
        meaning = type(field.default).__doc__ if section else field.description
        assert meaning and meaning.endswith("."), f"{model.__name__}.{key}"


def test_readme_has_a_table_of_every_option_class(repository):
    text = (repository / "config/README.md").read_text()
    assert with_tables(text) == text, "run `make schema`"
    tables = re.findall(r"^<!-- options: (\w+) -->$", text, re.M)
    part_of_others = {"Config", "IntensityOptions", "AugmentOptions"}
    assert sorted(tables) == sorted({c.__name__ for c in option_classes()} - part_of_others)


def test_a_table_has_what_its_class_declares_and_the_sections_that_have_it():
    lines = table(GeneratorNetwork).splitlines()
    assert lines[1].startswith("In `train_sbr`, ") and "`train_rot`" in lines[1]
    assert [line.split(" | ")[0] for line in lines[5:-1]] == [
        f"| `{key}`" for key in GeneratorNetwork.model_fields
    ]
    assert "| `generator_skips` | `false` | " in table(GeneratorNetwork)
    training = table(TrainOptions)
    assert "| `augment.field_sigma_px` | [3, 5] | " in training
    assert "| `minutes` | none | " in training and "| `steps` | below | " in training
    assert "([docs/cluster.md](../docs/cluster.md#software)) |" in table(GeneralOptions)


def test_readme_teaches_every_column(repository):
    text = (repository / "config/README.md").read_text()
    sheet, manifest = text.split("## `config/brains.tsv`")[1].split("## The manifest")
    for column in (f.name for f in fields(BrainRow)):
        assert f"| `{column}` |" in sheet
    for column in (f.name for f in fields(SectionRow)):
        assert f"| `{column}` |" in manifest


@pytest.mark.parametrize("environment, torch", [("sbr", "cpu"), ("sbr_cuda", "gpu")])
def test_conda_environments_have_the_pinned_versions(repository, environment, torch):
    pins = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)$", (repository / "requirements.txt").read_text(), re.M)
    )
    listed = (repository / "requirements.in").read_text().split("# tests")[0]
    direct = set(re.findall(r"^([a-z][\w-]*)", listed, re.M))
    path = repository / "envs" / f"{environment}.yaml"
    assert path.with_suffix(".post-deploy.sh").is_file()
    wanted = yaml.safe_load(path.read_text())["dependencies"]
    pip = wanted.pop()["pip"]
    conda_name = {
        "matplotlib-base": "matplotlib",
        "snakemake-minimal": "snakemake",
        f"pytorch-{torch}": "torch",
    }
    found = {}
    for line in [*wanted, *pip]:
        if "==" in line:
            name, version = re.split(r" ?==", line)
            found[conda_name.get(name, name)] = version
    assert found == {name: pins[name] for name in direct}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-docs.txt"])
def test_requirements_come_from_nowhere_in_particular(repository, name):
    lines = (repository / name).read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line) for line in lines)


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "stands for more than 100000 values"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a]}\n" + "c: &c [*c]\n", "stands for more than"),
        ("{" * 5000, "nested more than 32 levels"),
        (
            "a0: &a0 []\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(40)),
            "nested more than 32",
        ),
        ("a: 2001-99-99\n", "month must be in"),
        ("a: !!timestamp x\n", "not what its tag says"),
        ("a: " + "9" * 5000, "digits"),
        ("a: " + "x" * (1 << 20), "larger than 1 MiB"),
        ("a: !!python/name:os.system\n", "could not determine a constructor"),
    ],
)
def test_yaml_that_stands_for_more_than_it_says_is_refused(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words) as refused:
        config.load_yaml(tmp_path / "a.yaml")
    assert str(tmp_path / "a.yaml") in str(refused.value)


def test_yaml_with_aliases_and_merges_is_read_as_it_is_meant(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\nd: [*a, *a]\n")
    read = config.load_yaml(tmp_path / "a.yaml")
    assert read == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}, "d": [{"x": 1}] * 2}


def test_values_that_snakemake_read_are_bounded_too(repository):
    value = ["x"] * 9
    for _ in range(9):
        value = [value] * 9
    circle = {}
    circle["prepare"] = circle
    for values in ({"a": value}, circle):
        with pytest.raises(ConfigError, match="stands for more than"):
            config.resolve(values, repository / "sbr_core" / "config" / "presets")


@pytest.mark.parametrize("text", ['{"a": ' * 99999, '{"a": ' * 40 + "1" + "}" * 40, '{"a": 1'])
def test_options_nested_or_cut_are_refused(text):
    with pytest.raises(ConfigError, match=r"--options: (nested|not readable)"):
        config.load_json(text, "--options")


def test_a_fault_is_one_line_of_what_can_be_shown():
    message = str(ConfigError(f"a.yaml: found {'x' * 9999}\n\x1b[2J\udc80 end"))
    assert len(message) < 1600 and message.isprintable()
    assert message.startswith("a.yaml: found") and message.endswith(r"\x1b[2J\udc80 end")
