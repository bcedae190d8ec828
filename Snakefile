"""The workflow: each rule runs one notebook as a batch job, with a command that can be copied from the log.

    snakemake --cores 2 --config profile=smoke data=phantom method=fedmrg seed=0

What a rule leaves is the executed notebook; it stands beside the folder the notebook fills, so that deleting the one
deletes the other. A notebook picks up what an interrupted run of it has left: nothing in its folder is removed first.

On GPU servers: `snakemake --profile workflow_profiles/slurm --config profile=paper ...` sends every rule to Slurm as a
job of its own. It needs the package snakemake-executor-plugin-slurm, which requirements.lock does not hold, an account
and a partition filled in, and this environment on a file system that the nodes share.
"""

import pathlib
import shlex

from snakemake.exceptions import WorkflowError

from fedmrg_core.configuration import load_method, load_profile
from fedmrg_core.errors import InputError
from fedmrg_core.paths import base_models_folder, prepared_folder, run_folder

HERE = pathlib.Path()
DEFAULTS = {
    "profile": "smoke",  # a name in profiles/, or the path of a .yaml file
    "data": "phantom",
    "data_root": "",  # the folder of a real data set
    "partition": "site",
    "method": "fedmrg",  # a row of methods.yaml
    "seed": 0,
}
SETTINGS = DEFAULTS | {name: value for name, value in config.items() if value is not None}  # "data_root=" is None


def check_settings():
    """Stop before anything is computed when a setting is unknown."""
    unknown = sorted(set(SETTINGS) - set(DEFAULTS))
    if unknown:
        raise WorkflowError(f"--config {unknown[0]}: no such setting; expected one of {', '.join(DEFAULTS)}.")
    for name, default in DEFAULTS.items():
        if type(SETTINGS[name]) is not type(default):
            raise WorkflowError(f"--config {name}: expected {type(default).__name__}, not {SETTINGS[name]!r}.")
    try:
        load_profile(SETTINGS["profile"])
        load_method(SETTINGS["method"])
    except InputError as error:
        raise WorkflowError(str(error)) from None


check_settings()
PROFILE_FILE = SETTINGS["profile"] if SETTINGS["profile"].endswith(".yaml") else f"profiles/{SETTINGS['profile']}.yaml"
PROFILE, DATA = pathlib.Path(PROFILE_FILE).stem, SETTINGS["data"]
RUN = run_folder(HERE, PROFILE, DATA, SETTINGS["partition"], SETTINGS["method"], SETTINGS["seed"])
PREPARED = prepared_folder(HERE, PROFILE, DATA)
BASE_MODELS = base_models_folder(HERE, PROFILE, DATA)
TEACHING = RUN.parent.parent / "notebooks"

# Which settings each notebook takes. The seed is the run's: data and base models are the same for every seed.
PARAMETERS = {
    "01_data": ["profile", "data", "data_root"],
    "02_contrastive_encoder": ["profile", "data"],
    "03_diagnosis_prompts": ["profile", "data"],
    "04_dual_adapters": ["profile", "data"],
    "05_base_models": ["profile", "data", "data_root"],
    "06_federated_run": ["profile", "data", "partition", "method", "seed"],
    "07_evaluation": ["profile", "data", "partition", "method", "seed"],
    "08_figures": ["profile", "data", "partition", "method", "seed"],
}
EXECUTED = {
    "01_data": PREPARED.parent / "notebooks" / DATA / "01_data.ipynb",
    "05_base_models": BASE_MODELS.parent / "notebooks" / DATA / "05_base_models.ipynb",
    **{name: TEACHING / f"{name}.ipynb" for name in PARAMETERS if name.startswith(("02", "03", "04"))},
    **{name: RUN / "notebooks" / f"{name}.ipynb" for name in PARAMETERS if name.startswith(("06", "07", "08"))},
}


def command(name):
    """The command line that runs a notebook; settings left empty are left out."""
    given = [f"-p {shlex.quote(f'{key}={SETTINGS[key]}')}" for key in PARAMETERS[name] if SETTINGS[key] != ""]
    return " ".join([f"fedmrg run notebooks/{name}.py", *given, "--output", shlex.quote(str(EXECUTED[name]))])


rule all:
    input:
        "report/index.html",


rule data:
    input:
        "notebooks/01_data.py",
        PROFILE_FILE,
    output:
        EXECUTED["01_data"],
    params:
        command=command("01_data"),
    priority: 10
    shell:
        "{params.command}"


rule base_models:
    input:
        "notebooks/05_base_models.py",
        PROFILE_FILE,
    output:
        EXECUTED["05_base_models"],
    params:
        command=command("05_base_models"),
    threads: workflow.cores
    priority: 10
    shell:
        "{params.command}"


rule federated_run:
    input:
        "notebooks/06_federated_run.py",
        PROFILE_FILE,
        "methods.yaml",
        EXECUTED["01_data"],
        EXECUTED["05_base_models"],
    output:
        EXECUTED["06_federated_run"],
    params:
        command=command("06_federated_run"),
    threads: workflow.cores
    priority: 10
    shell:
        "{params.command}"


rule evaluation:
    input:
        "notebooks/07_evaluation.py",
        sorted(pathlib.Path("fedmrg_core/evaluation").rglob("*.py")),
        EXECUTED["06_federated_run"],
    output:
        EXECUTED["07_evaluation"],
    params:
        command=command("07_evaluation"),
    priority: 10
    shell:
        "{params.command}"


rule figures:
    input:
        "notebooks/08_figures.py",
        sorted(pathlib.Path("figures").glob("*.py")),
        EXECUTED["07_evaluation"],
    output:
        EXECUTED["08_figures"],
    params:
        command=command("08_figures"),
    priority: 10
    shell:
        "{params.command}"


# The teaching notebooks wait for the federated run, without reading anything of it: that run takes every core, and
# Snakemake 9.10 to 9.16 starts jobs beside it when an earlier job was ready alone (snakemake issue 3913).
for teaching_notebook in ("02_contrastive_encoder", "03_diagnosis_prompts", "04_dual_adapters"):

    rule:
        name:
            teaching_notebook[3:]
        input:
            f"notebooks/{teaching_notebook}.py",
            PROFILE_FILE,
            EXECUTED["01_data"],
            EXECUTED["05_base_models"],
            ancient(EXECUTED["06_federated_run"]),
        output:
            EXECUTED[teaching_notebook],
        params:
            command=command(teaching_notebook),
        shell:
            "{params.command}"


rule report:
    input:
        [EXECUTED[name] for name in PARAMETERS],
    output:
        "report/index.html",
    params:
        run=RUN,
    shell:
        "fedmrg report {params.run:q} --output {output:q} {input:q}"
