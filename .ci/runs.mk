# The runs and notebooks of `.ci/run`: each begins when what it reads is there, three at a time on two cores, as no
# notebook keeps both busy from its beginning to its end. What a step says is shown when it has ended, with its seconds.

FEDMRG := .venv/bin/fedmrg
notebook = $(FEDMRG) run notebooks/$(1).py $(3) --output results/$(2)/notebooks/$(1).ipynb
timed = @echo "CI: $@"; start=$$SECONDS; $(1) </dev/null && echo "CI: $@ took $$((SECONDS - start)) s"

SHELL := /bin/bash
.PHONY: runs figures other-tasks verify questions pictures picture-attacks report-attacks identity real-federation

runs: figures other-tasks verify questions pictures picture-attacks report-attacks identity real-federation

# The long ones stand first.
figures:
	$(call timed,$(MAKE) --file=Makefile --jobs=1 figures)

# Of the other tasks a run each, held against its reference. Other seeds are stored for the variance alone.
other-tasks:
	$(call timed,$(FEDMRG) verify --only smoke/medical_world/fed-lora/seed-0 --only smoke/phantom_findings/generator/seed-0)

real-federation:
	$(call timed,$(call notebook,14_real_federation,real_federation))

identity:
	$(call timed,$(call notebook,13_identity,identity))

# The run that was just made, and customised prompts.
verify: figures
	$(call timed,$(FEDMRG) verify --only fedmrg --only mrg-llm-prompt-wise)

report-attacks: figures
	$(call timed,$(call notebook,12d_report_attacks,smoke/phantom,-p batches=1 -p steps=1 -p draws=1 -p iterations=10))

# These go on with the runs that are there.
questions: other-tasks
	$(call timed,$(call notebook,11_medical_qa,smoke/medical_world,-p methods=fed-lora))

pictures: other-tasks
	$(call timed,$(call notebook,12_visual_prompts,smoke/phantom_findings,-p methods=generator))

picture-attacks: other-tasks
	$(call timed,$(call notebook,12c_visual_prompts_attacks,smoke/phantom_findings,-p methods=full$(,)generator -p iterations=10))

, := ,
