from reports import make_case, make_report
from ushape._version import __version__
from ushape.reports.model_card import write_card


def test_write_card_has_the_stored_wording(golden, tmp_path):
    report = make_report([make_case(f"c{n}", seed=n, group=f"g{n % 3}") for n in range(6)])
    write_card(tmp_path / "card.md", report)
    golden("model_card.md", (tmp_path / "card.md").read_text().replace(__version__, "VERSION"))


def test_write_card_escapes_markdown(tmp_path):
    report = make_report([make_case("c")], title="a|b `c` <d> *e*")
    write_card(tmp_path / "card.md", report)
    assert (tmp_path / "card.md").read_text().startswith("# a\\|b \\`c\\` \\<d> \\*e\\*\n")
