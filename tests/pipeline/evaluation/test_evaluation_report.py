"""The report of an evaluation."""

import json

import pyarrow.parquet as pq

from pipeline.evaluation.evaluation_report import write_evaluation_report
from pipeline.evaluation.results import COLUMNS, ResultsFile
from pipeline.report import write_report
from tests.support.evaluations import write_evaluation


def test_a_report_with_every_completion(tmp_path):
    directory = write_evaluation(tmp_path / "a", "<b>m</b>", ["0", "1", "2", "9", "9", "</script>"])
    html = write_evaluation_report(directory).read_text()
    assert "<b>m</b>" not in html and "&lt;b&gt;m&lt;/b&gt;" in html and "50.0%" in html
    table = pq.read_table(directory / "eval_results.parquet")
    assert table.column_names == list(COLUMNS) and table.num_rows == 6
    assert table.to_pylist() == list(ResultsFile(directory).rows())
    assert json.loads((directory / "summary.json").read_text())["results"][0]["answer_accuracy"] == 0.5
    assert (directory / "plots" / "evaluation.png").exists()
    assert write_report(directory, tmp_path / "out").read_text() == html  # what jobs/report.py calls
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("report.html", "summary.json", "eval_results.parquet", "plots")
    }
