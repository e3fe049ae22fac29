"""Storage of reports: save, load and refuse damaged files."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from codes import edit_sealed_json
from reports import make_case, make_cases, make_report
from ushape.errors import RunError
from ushape.evaluation.object_pictures import KINDS, ObjectPicture
from ushape.evaluation.storage import FACTS, load_report, refuse_existing, save_report
from ushape.labels import LabelSpace

SPACE = LabelSpace(values=(0, 1), names=("background", "cell"))


@pytest.fixture(scope="module")
def report():
    return make_report([make_case(f"c{n}", seed=n, group=f"g{n % 3}") for n in range(6)])


def test_load_report_restores_what_was_saved(report, tmp_path):
    blank = np.zeros((8, 8, 3), np.uint8)
    numbers = dict.fromkeys(KINDS, 1)
    picture = ObjectPicture(
        case="c1", class_name="cell", part="", **numbers, annotated=blank, predicted=blank
    )
    save_report(tmp_path, replace(report, object_pictures=[picture]))
    found = load_report(tmp_path)
    assert [one.case for one in found.object_pictures] == ["c1"]
    assert found.summary == report.summary
    for name in ("split_lines", "leak_lines", "plan_lines", "reproduce_lines", "epochs"):
        assert list(getattr(found, name)) == list(getattr(report, name)), name
    assert [table.rows for table in found.breakdowns] == [t.rows for t in report.breakdowns]
    for own, other in zip(found.scores, report.scores, strict=True):
        assert (own.case, own.group, own.counts) == (other.case, other.group, other.counts)
        assert own.metrics == pytest.approx(dict(other.metrics), abs=1e-6)
    for own, other in zip(found.pictures, report.pictures, strict=True):
        assert (own.case, own.part) == (other.case, other.part)
        assert (own.truth == other.truth).all()
        assert (own.classes[0].percent == other.classes[0].percent).all()


def test_load_report_refuses_damaged_files(report, tmp_path):
    save_report(tmp_path, report)
    for content in ("", "[]", "{", '{"title": 3}', '{"titel": "x"}'):
        (tmp_path / FACTS).write_text(content)
        with pytest.raises(RunError, match=r"scores\.json") as error:
            load_report(tmp_path)
        assert error.value.code == "invalid_scores"
    shutil.rmtree(tmp_path)
    with pytest.raises(RunError) as error:
        load_report(tmp_path)
    assert error.value.code == "invalid_scores"


def test_load_report_refuses_a_truncated_table(report, tmp_path):
    save_report(tmp_path, report)
    content = (tmp_path / "scores.csv").read_text()
    for damaged, code in (
        (content[: content.rindex("both present")], "invalid_scores"),
        (content[: content.rstrip().rindex("\n") + 1], "scores_mismatch"),
        (content.replace("overlap_px", "overlap"), "invalid_scores"),
    ):
        (tmp_path / "scores.csv").write_text(damaged)
        with pytest.raises(RunError, match=r"scores\.csv") as error:
            load_report(tmp_path)
        assert error.value.code == code


def test_load_report_refuses_numbers_that_were_changed(report, tmp_path):
    for name in ("scores.csv", FACTS, "pictures/00001.json"):
        save_report(tmp_path, report)
        text = (tmp_path / name).read_text()
        digit = next(character for character in text if character in "12345678")
        (tmp_path / name).write_text(text.replace(digit, str(int(digit) + 1), 1))
        with pytest.raises(RunError):
            load_report(tmp_path)


def test_save_report_keeps_other_files_in_pictures(report, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.json").write_text("mine")
    save_report(tmp_path, report)
    save_report(tmp_path, report)
    assert (tmp_path / "pictures" / "mine.json").read_text() == "mine"
    with pytest.raises(RunError) as error:
        refuse_existing(tmp_path)
    assert error.value.code == "output_exists"


def test_load_report_reads_the_names_of_earlier_versions(tmp_path):
    report = make_report(make_cases())
    save_report(tmp_path, report)
    edit_sealed_json(tmp_path / FACTS)
    for name in ("scores.csv", FACTS):
        text = (tmp_path / name).read_text()
        for new, old in (("label_error_score", "mask_doubt"), ("false positive", "false alarm")):
            assert new in text
            text = text.replace(new, old)
        (tmp_path / name).write_text(text)
    found = load_report(tmp_path)
    assert found.summary == report.summary
    assert "label_error_score" in found.scores[0].metrics
