"""The workflow: each rule runs one notebook as a batch job, with a command that can be copied from the log.

    snakemake --cores 2 --config profile=smoke data=phantom method=fedmrg seed=0     one run, all notebooks, a report
    snakemake --cores 2 runs --config profile=standard experiment=main,ablation      every missing run of these experiments

Which notebooks make a run is its task's to say (`fedmrg_core/runs/task_notebooks.py`). The rules of reports stand here one by
one; `task_run` serves every other task. HTML report and teaching notebooks are the reports'.

What a rule leaves is the executed notebook; it stands beside the folder the notebook fills, so that deleting the one
deletes the other. A notebook picks up what an interrupted run of it has left: nothing in its folder is removed first.

On GPU servers every rule is sent to Slurm as a job of its own by

    snakemake --profile workflow_profiles/slurm --config profile=paper method=fedmrg seed=0 threads=8

It needs the package snakemake-executor-plugin-slurm, which requirements.lock does not hold, an account and a partition
filled in, and this environment on a file system that the nodes share. A run uses `threads` CPU threads; how many its
job asks for is in the profile (set-threads).
"""

import json
import os
import pathlib
import shlex

from snakemake.exceptions import WorkflowError

from snakemake.logging import logger
from snakemake.settings.enums import Quietness

from fedmrg_core.data.sources import corpus_name, data_source
from fedmrg_core.errors import InputError
from fedmrg_core.runs.experiments import RunSettings, check_run, runs_of
from fedmrg_core.runs.methods import method_table
from fedmrg_core.runs.task_notebooks import NOTEBOOKS, notebooks_of
from fedmrg_core.runs.task_registry import REPORTS
from fedmrg_core.paths import reference_folder
from fedmrg_core.evaluation.reference import is_stored
from fedmrg_core.tasks.reports.stored_base_models import choose_models

RUN_NAMES = list(RunSettings.model_fields)
WORKFLOW_DEFAULTS = {
    "data_root": "",  # the folder of a real data set
    "options": {},  # how it is read, e.g. options='{"threshold": 127}'
    "experiment": "",  # names in experiments.yaml, joined by commas
    "threads": 0,  # CPU threads of each hospital; 0: one, and in a single run as many hospitals at a time as cores
    "base_models": "stored",  # of the repository, where it has some of the profile; fresh: built here
    "rerun": False,  # of an experiment: also what figures/reference/ holds already
}
# What Snakemake's command line takes for a number or a mapping, though it is a name.
AS_WRITTEN = {
    "unseen": """; in a list every name is as written, e.g. unseen='["10", "a: b"]'""",
    "data_root": "; of a folder in this one write ./ before the name",
}


def check_settings():
    """The settings, or an end before anything is computed when one is unknown or ill-typed."""
    given = {name: value for name, value in config.items() if value is not None}  # "data_root=" is None
    known = WORKFLOW_DEFAULTS | {name: field.default for name, field in RunSettings.model_fields.items()}
    for name, value in given.items():
        if name not in known:
            raise WorkflowError(f"--config {name}: no such setting; expected one of {', '.join(known)}.")
        if type(value) is not type(known[name]) and not (name == "unseen" and isinstance(value, list)):
            expected = type(known[name]).__name__
            raise WorkflowError(f"--config {name}: expected {expected}, not {value!r}{AS_WRITTEN.get(name, '')}.")
    try:
        run = RunSettings(**{name: given[name] for name in RUN_NAMES if name in given})
        check_run(run)
        chosen = {**WORKFLOW_DEFAULTS, **{name: given[name] for name in WORKFLOW_DEFAULTS if name in given}}
        choose_models(chosen["base_models"], run.profile_name, run.data)
        names = [name for name in chosen["experiment"].split(",") if name]
        runs = runs_of(names, run.profile)
        for each in runs:
            check_run(each)
        for each in [run, *runs]:
            notebooks_of(each.task)
    except InputError as error:
        raise WorkflowError(str(error)) from None
    return chosen, run, names, runs


def lacking(runs, file):
    """The runs without a reference that has the file and was made with today's numbers; with rerun=True all of them."""
    root = reference_folder(PROFILE).parent
    return [run for run in runs if SETTINGS["rerun"] or not is_stored(run, root, file)]


def tells_something(record):
    """Whether a record is for who asked for quiet: not the machinery's words before and after every step."""
    return not str(record.msg).startswith(("Select jobs to execute", "Execute ", "Using shell:", "host:", "Building DAG"))


if Quietness.RULES in (workflow.output_settings.quiet or ()):
    logger.addFilter(tells_something)

SETTINGS, SINGLE, EXPERIMENTS, RUNS = check_settings()
PROFILE_FILE = SINGLE.profile if SINGLE.profile.endswith(".yaml") else f"profiles/{SINGLE.profile}.yaml"
PROFILE = SINGLE.profile_name
BY_NAME = {run.name: run for run in [*RUNS, SINGLE]}
# Unlike workflow.cores it may be unknown: jobs sent to other machines ask for their threads each by itself.
CORES = workflow.resource_settings.cores or 1
THREADS = SETTINGS["threads"] or (1 if EXPERIMENTS else CORES)
RUN_CORES = THREADS if EXPERIMENTS else max(THREADS, CORES)
WORKERS = {"workers": 1} if EXPERIMENTS else {}
MISSING = lacking(RUNS, "metrics.csv")
JOINING = [name for name in EXPERIMENTS if name.endswith("adaptation")]  # a centre joins later
ADAPTED = lacking(runs_of(JOINING, SINGLE.profile), "adaptation.csv")
# One run of each way of dealing: methods and variants share it.
REPORTING = [run for run in [*MISSING, *ADAPTED] or [SINGLE] if run.task == REPORTS]
DEALT = list({(run.name.split("/")[1], run.seed): run for run in REPORTING}.values())
# A process computes on the first GPU it sees. Of several in CUDA_VISIBLE_DEVICES the runs of an experiment see one each,
# in turn. A resource and not a parameter: on another machine's GPUs nothing is made again.
GPUS = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
ON_GPU = "CUDA_VISIBLE_DEVICES={resources.visible_gpu} " if len(GPUS) > 1 else ""
PLACES = {run.name: place for place, run in enumerate(MISSING)} | {run.name: place for place, run in enumerate(ADAPTED)}
TEACHING = [
    "02_contrastive_encoder",
    "03_diagnosis_prompts",
    "03b_customised_prompts",
    "04_dual_adapters",
    "05b_one_round_by_hand",
]
RESULTS = pathlib.Path("results")
# Of tasks without rules of their own, by name: the notebook that a run needs before it, "" for the first.
BEFORE = {
    name: before
    for task in NOTEBOOKS.values()
    if not task.own_rules
    for before, name in zip(["", *task.runs], task.runs)
}


def data_notebook(data):
    return f"prepared/{PROFILE}/notebooks/{data}/01_data.ipynb"


def root_of(data):
    """The folder of the user's that a data set is read from; runs of others may stand beside it."""
    return SETTINGS["data_root"] if data_source(data).needs_root else ""


def options_of(data):
    """How that folder is read, as a notebook takes it."""
    return json.dumps(SETTINGS["options"]) if SETTINGS["options"] and root_of(data) else "{}"


def base_models_notebook(data):
    return f"base_models/{PROFILE}/notebooks/{corpus_name(data)}/05_base_models.ipynb"


def run_notebook(name, run):
    return str(RESULTS / run.name / "notebooks" / f"{name}.ipynb")


def finished_notebook(run):
    """The one that leaves the run's measures."""
    return run_notebook(notebooks_of(run.task).runs[-1], run)


def teaching_notebook(name):
    return str((RESULTS / SINGLE.name).parent.parent / "notebooks" / f"{name}.ipynb")


def command(name, output, **parameters):
    """The command line that runs a notebook; settings left at their defaults are left out."""
    defaults = {field: RunSettings.model_fields[field].default for field in RUN_NAMES} | WORKFLOW_DEFAULTS | {"options": "{}"}
    keep = ("profile", "data", "method", "seed")  # named always: they say what the run is
    given = {key: value for key, value in parameters.items() if key in keep or value != defaults.get(key)}
    options = [f"-p {shlex.quote(f'{key}={value}')}" for key, value in given.items()]
    return " ".join([f"fedmrg run notebooks/{name}.py", *options, "--output", shlex.quote(output)])


def run_command(name, wildcards, **further):
    run = BY_NAME[wildcards.run]
    return command(name, run_notebook(name, run), **run.model_dump(), **further)


def gpu_of(wildcards):
    return GPUS[PLACES.get(wildcards.run, 0) % len(GPUS)] if GPUS else "none"


wildcard_constraints:
    run=r"[^/]+/[^/]+/[^/]+/seed-\d+",
    data=r"[^/]+",
    corpus=r"[^/]+",


rule all:
    input:
        ["report/index.html"] if SINGLE.task == REPORTS else finished_notebook(SINGLE),
        "report/result.txt",


rule data:
    input:
        "notebooks/01_data.py",
        PROFILE_FILE,
    output:
        data_notebook("{data}"),
    params:
        command=lambda wildcards, output: command(
            "01_data",
            output[0],
            profile=SINGLE.profile,
            data=wildcards.data,
            data_root=root_of(wildcards.data),
            options=options_of(wildcards.data),
        ),
    priority: 10
    shell:
        "{params.command}"


# What cannot be dealt to clients is refused here, before base models are built; later runs refuse it themselves, before
# they train. One file for all runs, and ancient: what was dealt otherwise the last time leaves what is there as it is.
# The runs are a resource and no parameter: with a changed one Snakemake 9.16 makes this file alone and ends, and nothing
# that is missing behind it.
rule partitions:
    input:
        lambda wildcards: sorted({data_notebook(run.data) for run in DEALT if corpus_name(run.data) == wildcards.corpus}),
    output:
        f"prepared/{PROFILE}/notebooks/{{corpus}}/partitions.tsv",
    resources:
        runs=lambda wildcards: shlex.join(run.name for run in DEALT if corpus_name(run.data) == wildcards.corpus),
    priority: 10
    shell:
        "TQDM_DISABLE=1 fedmrg check-partition {resources.runs} > {output:q}"  # flwr-datasets shows a bar for each deal


rule base_models:
    input:
        "notebooks/05_base_models.py",
        PROFILE_FILE,
        lambda wildcards: ancient(f"prepared/{PROFILE}/notebooks/{wildcards.corpus}/partitions.tsv"),
    output:
        f"base_models/{PROFILE}/notebooks/{{corpus}}/05_base_models.ipynb",
    params:
        command=lambda wildcards, output: command(
            "05_base_models",
            output[0],
            profile=SINGLE.profile,
            data=wildcards.corpus,
            data_root=root_of(wildcards.corpus),
            base_models=SETTINGS["base_models"],
        ),
    # Handed on as OMP_NUM_THREADS: an experiment's base models do not depend on the machine's number of cores either.
    threads: THREADS
    priority: 10
    shell:
        "{params.command}"


rule federated_run:
    input:
        "notebooks/06_federated_run.py",
        PROFILE_FILE,
        "methods.yaml",
        lambda wildcards: data_notebook(BY_NAME[wildcards.run].data),
        lambda wildcards: base_models_notebook(BY_NAME[wildcards.run].data),
    output:
        "results/{run}/notebooks/06_federated_run.ipynb",
    params:
        command=lambda wildcards: run_command("06_federated_run", wildcards, threads=SETTINGS["threads"] or 1, **WORKERS),
    threads: RUN_CORES
    priority: 10
    resources:
        visible_gpu=gpu_of,
    shell:
        ON_GPU + "{params.command}"


rule evaluation:
    input:
        "notebooks/07_evaluation.py",
        sorted(path for room in ("metrics", "tasks/reports") for path in pathlib.Path("fedmrg_core", room).rglob("*.py")),
        "results/{run}/notebooks/06_federated_run.ipynb",
    output:
        "results/{run}/notebooks/07_evaluation.ipynb",
    params:
        command=lambda wildcards: run_command("07_evaluation", wildcards, **WORKERS),
    threads: 1 if EXPERIMENTS else CORES
    priority: 20
    resources:
        visible_gpu=gpu_of,
    shell:
        ON_GPU + "{params.command}"


# A run prepares what it starts from if nobody has: runs that start at the same time wait for the one that does.
rule task_run:
    input:
        "notebooks/{notebook}.py",
        PROFILE_FILE,
        lambda wildcards: str(method_table(BY_NAME[wildcards.run].task).path),
        lambda wildcards: [
            run_notebook(before, BY_NAME[wildcards.run]) for before in [BEFORE[wildcards.notebook]] if before
        ],
    output:
        "results/{run}/notebooks/{notebook}.ipynb",
    wildcard_constraints:
        notebook="|".join(BEFORE),
    params:
        command=lambda wildcards: run_command(
            wildcards.notebook,
            wildcards,
            data_root=root_of(BY_NAME[wildcards.run].data),
            options=options_of(BY_NAME[wildcards.run].data),
            base_models=SETTINGS["base_models"],
            threads=SETTINGS["threads"] or 1,
            **WORKERS,
        ),
    threads: RUN_CORES
    priority: 10
    resources:
        visible_gpu=gpu_of,
    shell:
        ON_GPU + "{params.command}"


rule figures:
    input:
        "notebooks/08_figures.py",
        sorted(pathlib.Path("figures").glob("*.py")),
        "results/{run}/notebooks/07_evaluation.ipynb",
    output:
        "results/{run}/notebooks/08_figures.ipynb",
    params:
        command=lambda wildcards: run_command("08_figures", wildcards),
    priority: 10
    shell:
        "{params.command}"


rule adaptation:
    input:
        "notebooks/09_adaptation.py",
        "results/{run}/notebooks/07_evaluation.ipynb",  # whose reports without adaptation it goes on with
    output:
        "results/{run}/notebooks/09_adaptation.ipynb",
    params:
        command=lambda wildcards: run_command("09_adaptation", wildcards),
    resources:
        visible_gpu=gpu_of,
    shell:
        ON_GPU + "{params.command}"


# The teaching notebooks wait for the federated run, without reading anything of it: that run takes every core, and
# Snakemake 9.10 to 9.16 starts jobs beside it when an earlier job was ready alone (snakemake issue 3913).
for teaching_name in TEACHING if SINGLE.task == REPORTS else []:

    rule:
        name:
            teaching_name.partition("_")[2]
        input:
            f"notebooks/{teaching_name}.py",
            PROFILE_FILE,
            data_notebook(SINGLE.data),
            base_models_notebook(SINGLE.data),
            ancient(run_notebook("06_federated_run", SINGLE)),
        output:
            teaching_notebook(teaching_name),
        params:
            command=command(
                teaching_name, teaching_notebook(teaching_name), profile=SINGLE.profile, data=SINGLE.data
            ),
        shell:
            "{params.command}"


if SINGLE.task == REPORTS:

    rule report:
        input:
            sorted(
                [
                    data_notebook(SINGLE.data),
                    base_models_notebook(SINGLE.data),
                    *(teaching_notebook(name) for name in TEACHING),
                    *(run_notebook(name, SINGLE) for name in ("06_federated_run", "07_evaluation", "08_figures")),
                ],
                key=lambda path: pathlib.Path(path).name,  # in reading order
            ),
        output:
            page="report/index.html",
            result="report/result.txt",
        params:
            run=RESULTS / SINGLE.name,
        shell:
            "fedmrg report {params.run:q} --output {output.page:q} {input:q} > {output.result:q}"

else:

    rule result:
        input:
            finished_notebook(SINGLE),
        output:
            "report/result.txt",
        params:
            sentence=f"{SINGLE.name}: measures in results/{SINGLE.name}/metrics.csv, figures and tables in "
            f"{finished_notebook(SINGLE)}",
        shell:
            "printf '%s\\n' {params.sentence:q} > {output:q}"


rule runs:
    input:
        [finished_notebook(run) for run in MISSING],
        [run_notebook("09_adaptation", run) for run in ADAPTED],

