# What all rules share: the study that is planned, and what planning is told of Snakemake. What is
# decided here is decided in sbr_core/planning; these files hold rules alone.

import logging
import sys
from pathlib import Path

from snakemake.logging import logger

from sbr_core.artifacts.names import COLOUR_ENDINGS
from sbr_core.methods import TRAINED_METHODS
from sbr_core.planning import inputs, lock, progress, upkeep
from sbr_core.planning.parameters import (
    accepted_sections,
    card_resources,
    cards,
    chunk_json,
    flags,
    folder_of,
    inference_cards,
    inference_section,
    label_values,
    method_folders,
    one_of,
    plane_json,
    report_values,
    rows_file,
    training_options,
    work_json,
)
from sbr_core.planning.plan import plan_text
from sbr_core.planning.study import (
    METHOD_FOLDERS,
    SECTION_STAGES,
    compared_folders,
    method_of,
    own_folders,
    study_or_exit,
)
from sbr_core.revisions import REVISION

# a scheduler and Ctrl-C signal every process of a job: the shell and `tee` wait for `sbr`, which
# writes its checkpoint and says so
shell.prefix("set -euo pipefail; trap '' INT TERM; ")

# what planning logs appears as lines of Snakemake's own
logging.getLogger("sbr_core").parent = logger

STUDY = study_or_exit(config, compare_sums=workflow.is_main_process)
CONFIG = STUDY.config
CORRECTED = [inputs.corrected(STUDY, brain) for brain in STUDY.of_sheet]
ENVIRONMENT_OF_NETWORKS = f"../../envs/sbr{'_cuda' if CONFIG.gpus else ''}.yaml"

# whether the user forces a rule; known only when its inputs are asked for
is_forced = lambda rule: workflow.dag_settings.forceall or rule in workflow.dag_settings.forcerun
# input paths as Snakemake takes them
marked = lambda paths: inputs.with_ancient(paths, ancient)

if workflow.is_main_process:
    upkeep.log_faults(STUDY)
    upkeep.tidy_up(STUDY, dry_run=workflow.output_settings.dryrun)
