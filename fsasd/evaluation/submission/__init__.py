"""DCASE Task 2 submission files: write them, read anyone's, and evaluate them (``fsasd-evaluate``).

A submission is a folder of CSV files without header, one row per test clip in any order:

* ``anomaly_score_<machine>_section_<nn>_test.csv``: ``section_00_0000.wav,<score>``
* ``decision_result_<machine>_section_<nn>_test.csv``: ``section_00_0000.wav,<0 or 1>``, optional

Read as well: names without ``_test``; those of 2020, ``anomaly_score_<machine>_id_<nn>.csv``; those
of 2021, ``anomaly_score_<machine>_section_<nn>_<domain>_test.csv``, a file for each domain; the
baseline's, ``anomaly_score_DCASE2023T2<machine>_section_<nn>_test_seed<seed><tag>_Eval.csv``; and
clips called by their full attribute name (``section_00_source_test_normal_0001_res_2``), with or
without ``.wav`` and folders.

``package`` writes the package of a submission from a run and checks it (``fsasd-submit``).

The ground truth is what DCASE's evaluators publish, in the form of any year: see
``fsasd.data.ground_truth``.
"""

from fsasd.evaluation.submission.evaluation import Evaluation, evaluate
from fsasd.evaluation.submission.reading import SubmissionError, read_submission
from fsasd.evaluation.submission.writing import write_decisions, write_scores

__all__ = [
    "Evaluation",
    "SubmissionError",
    "evaluate",
    "read_submission",
    "write_decisions",
    "write_scores",
]
