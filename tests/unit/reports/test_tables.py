from dataclasses import replace

import numpy as np

from reports import CELL, make_cases, make_report
from ushape.evaluation.scores import score_case
from ushape.evaluation.summary import BestScore, summarize
from ushape.formatting import count_text, number_text
from ushape.reports.tables import (
    OBJECT_METRICS,
    baseline_table,
    kind_table,
    mean_table,
    mean_tables,
    object_count_table,
    object_table,
    score_table,
    size_table,
    threshold_table,
    topology_table,
    worst_first,
)


def score(name, truth_px, found_px):
    """A case whose first pixels are annotated, and whose first pixels are predicted."""
    truth, found = np.zeros((2, 100), np.uint8)
    truth[:truth_px], found[:found_px] = 1, 1
    return score_case(name, "g", found, truth, CELL)


def as_text(table):
    rows = [table.title, *(" | ".join(row) for row in (table.columns, *table.rows)), table.note]
    return "\n".join(row for row in rows if row) + "\n"


def test_tables_have_the_stored_wording(golden):
    report = make_report(make_cases())
    own = report.summary.classes[0]
    tables = [
        mean_table(own, report.summary),
        kind_table(report.summary),
        size_table(report.scores, own.name),
        score_table("Results of all images", report.scores, of_cases=True),
    ]
    golden("report_tables.txt", "\n".join(map(as_text, tables)))


def test_kind_table_counts_each_kind():
    scores = [*score("a", 5, 5), *score("b", 5, 0), *score("c", 0, 3), *score("d", 0, 0)]
    table = kind_table(summarize(scores, noun="images"))
    assert table.rows == [["cell", "1", "1", "1", "1", "1 of 2 (50%)"]]


def test_mean_tables_have_names_and_units_and_no_undefined_rows():
    (one,) = score("a", 5, 5)
    one = replace(one, metrics={"hausdorff95": 12.34, "own_idea": 0.5, "surface_dice": None})
    summary = replace(summarize([one], noun="images"), distance_unit="mm")
    table, others = mean_tables(summary.classes[0], summary)
    assert table.rows[0] == ["Dice", "1.000", "", "1", "1 is best"]
    assert ["Hausdorff distance (95th percentile)", "12.3", "", "1", "mm; 0 is best"] in table.rows
    assert ["Own idea", "0.500", "", "1", ""] in others.rows
    assert "Surface Dice" not in [row[0] for row in table.rows]
    assert table.is_number == (False, True, True, True, False)


def test_topology_table_states_the_optimal_threshold():
    best = BestScore(value=0.97, threshold=0.35, at_rule=0.88, images=1, at_default=0.86)
    summary = replace(summarize(score("a", 5, 5), noun="images"), topology={"rand": best})
    table = topology_table(summary)
    assert table.rows == [["V_rand", "0.8800", "0.8600", "0.9700", "0.35"]]
    assert table.note == ""
    many = replace(summary, cases=40)
    assert topology_table(many).note == "Computed for 1 of the 40 images."


def test_baseline_table_lists_the_best_first():
    scores, trivial = score("a", 5, 5), {"all_background": score("a", 5, 0)}
    trivial["all_foreground"] = score("a", 5, 20)
    summary = summarize(scores, noun="images", baselines=trivial)
    table = baseline_table(summary.classes[0], replace(summary, baseline_note="Chosen."))
    assert table.rows == [
        ["labeling every pixel as cell", "0.400", "+0.600", "", "yes"],
        ["labeling no pixel as cell", "0.000", "+1.000", "", "yes"],
    ]
    assert table.note.endswith("Chosen.")


def test_object_table_has_a_column_for_each_class_with_objects():
    summary = make_report(make_cases()).summary
    table = object_table(summary)
    assert table.columns == ["IoU threshold", "cell"]
    assert table.rows[0] == ["0.50", "0.500"]
    assert table.rows[-1] == ["0.95", "0.050"]
    assert object_table(summarize(score("a", 5, 5), noun="images")).rows == []
    assert not any("Object ap" in row[0] for row in mean_table(summary.classes[0], summary).rows)


def with_objects(name, **numbers):
    metrics = dict.fromkeys(OBJECT_METRICS, 0.0) | numbers
    return [replace(one, metrics=metrics) for one in score(name, 5, 5)]


def test_object_count_table_adds_the_numbers_of_all_images():
    scores = with_objects("a", true_objects=1000.0, missed_objects=2.0, object_splits=3.0)
    scores += with_objects("b", true_objects=500.0, predicted_objects=7.0, object_merges=4.0)
    table = object_count_table(scores)
    names = ["annotated", "missed", "splits", "predicted", "false positives", "merges"]
    assert table.columns == ["class", *names]
    assert table.rows == [[scores[0].class_name, "1\u202f500", "2", "3", "7", "0", "4"]]
    assert object_count_table(score("a", 5, 5)).rows == []


def test_mean_tables_begin_with_the_objects_if_the_masks_are_about_them():
    plain = summarize(with_objects("a") + with_objects("b"), noun="images")
    about = replace(plain, is_about_objects=True)
    first, others = mean_tables(about.classes[0], about)
    assert [row[0] for row in first.rows][:2] == ["Object F1", "Object AP (StarDist)"]
    assert mean_tables(plain.classes[0], plain)[0].rows[0][0] == "Dice"
    names = [row[0] for row in (*first.rows, *others.rows)]
    assert len(names) == len(set(names))


def test_threshold_table_shows_every_tenth():
    table = threshold_table(make_report(make_cases()).summary.classes[0])
    assert [row[0] for row in table.rows] == [f"0.{n}0" for n in range(1, 10)]
    assert threshold_table(summarize(score("a", 5, 5), noun="images").classes[0]).rows == []


def test_size_table_has_bins_of_equally_many_cases():
    sizes = (1, 2, 3, 4, 10, 20, 20, 50)
    scores = [one for size in sizes for one in score(str(size), size, 2)]
    table = size_table(scores, "cell")
    # Two pixels are predicted: Dice 2/3 for size 1, 1 for 2, then 4/5, 4/6, 4/12, 4/22 and 4/52.
    assert table.rows == [
        ["1 to 4", "4", "0.733", "0.667", "0"],
        ["10 to 50", "4", "0.182", "0.077", "0"],
    ]
    assert "unreliable" in table.note
    assert size_table(score("empty", 0, 4), "cell").rows == []


def test_size_table_has_no_bins_of_few_cases():
    scores = [one for size in range(1, 8) for one in score(str(size), size, 2)]
    assert size_table(scores, "cell").rows == []


def test_worst_first_lists_false_positives_after_annotated_cases():
    scores = [
        *score("empty", 0, 0),
        *score("small alarm", 0, 1),
        *score("good", 5, 5),
        *score("large alarm", 0, 9),
        *score("missed", 5, 0),
    ]
    ranked = worst_first(scores)
    assert [one.case for one in ranked] == [
        *("missed", "good", "large alarm", "small alarm", "empty")
    ]
    table = score_table("all", ranked, of_cases=True)
    dice = table.columns.index("Dice")
    assert [row[dice] for row in table.rows] == ["0.000", "1.000", "", "", ""]


def test_score_table_states_how_many_rows_are_omitted():
    many = score("a", 1, 1) * 2500
    table = score_table("all", many, of_cases=True)
    assert len(table.rows) == 1000
    assert table.note == "1\u202f500 more rows are in scores.csv."


def test_number_text_has_three_significant_places():
    assert [number_text(value) for value in (None, 0.12345, 9.9996, 12.34)] == [
        *("", "0.123", "10.000", "12.3")
    ]
    assert number_text(8.1, like=12.3) == "8.1"
    assert count_text(1234567) == "1\u202f234\u202f567"
