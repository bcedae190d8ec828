"""In whose wording a run writes: the share of reports in the wording of the centre that the study comes from.

    python benchmarks/own_wording.py figures/reference/standard/phantom,random/fed*/seed-0

For PhantomCXR (synthetic), whose study ids name the centre whoever the study was dealt to. A linear classifier of words
and pairs of words learns the five centres' wordings from the reference reports of the home test studies, half of
which it does not see while it is checked; it then reads the generated ones.
"""

from __future__ import annotations

import argparse
import pathlib

import pandas
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from fedmrg_core.errors import InputError
from fedmrg_core.runs.measures import PREDICTIONS
from fedmrg_core.tasks.reports.predictions import read_predictions


def home_reports(folder: pathlib.Path) -> pandas.DataFrame:
    """The run's own reports of home test studies, with the column ``centre``; of a run folder or a reference run.

    Raises:
        InputError: there are no predictions, or they are not of PhantomCXR.
    """
    path = next((folder / name for name in PREDICTIONS if (folder / name).is_file()), folder / PREDICTIONS[0])
    reports = read_predictions(path)
    reports = reports[(reports.system == "model") & (reports.role == "home")]
    reports = reports.assign(centre=reports.study_id.str.extract(r"^(centre-[a-e])-"))
    if reports.centre.isna().any():
        raise InputError(f"{folder}: its study ids name no centre of PhantomCXR; expected a run on phantom data.")
    return reports


def wording_classifier(reports: pandas.DataFrame) -> Pipeline:
    """The centre of a reference report, learned from them; prints how often it is right on the half it has not seen."""
    studies = reports.drop_duplicates("study_id")
    classifier = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2), LogisticRegression(C=10, max_iter=2000))
    right = cross_val_score(classifier, studies.reference, studies.centre, cv=2).mean()
    print(f"reference reports whose centre is recognised: {right:.3f}")
    return classifier.fit(studies.reference, studies.centre)


def main() -> None:
    """Print one line for each run and adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=pathlib.Path, nargs="+", help="run folders, or reference runs")
    try:
        runs = {folder: home_reports(folder) for folder in parser.parse_args().folders}
    except InputError as error:
        parser.error(str(error))
    classifier = wording_classifier(next(iter(runs.values())))
    for folder, reports in runs.items():
        for adapter, rows in reports.groupby("adapter"):
            own = (classifier.predict(rows.generated) == rows.centre).mean()
            print(f"{'/'.join(folder.parts[-3:]):45s} {adapter:12s} {own:.3f}")


if __name__ == "__main__":
    main()
