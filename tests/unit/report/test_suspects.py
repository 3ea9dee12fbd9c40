"""The suspects at the top of the page: the worst first, ten of them, then the rest folded away."""

from jinja2 import Environment, PackageLoader

from sbr_core.artifacts.rows import Trusted
from sbr_core.report.corrections import Corrected
from sbr_core.report.viewer import suspects


def trusted(section, wrong, reason="matches better 4 mm away", next_step="set three landmarks"):
    return Trusted(
        section=section,
        position_mm=0.0,
        expected_error_mm=2.0,
        likely_wrong=wrong,
        reason=reason,
        next_step=next_step,
    )


def test_the_worst_come_first_and_what_was_judged_or_is_no_suspect_not_at_all():
    rows = [trusted("a", 0.6), trusted("b", 0.9), trusted("c", 0.8), trusted("d", 0.1, "", "")]
    found = suspects({row.section: row for row in rows}, Corrected(verdicts={"c": "reject"}))
    assert [line["section"] for line in found] == ["b", "a"]
    assert found[0]["next_step"] == "set three landmarks" and "4 mm" in found[0]["reason"]


def test_a_page_shows_ten_and_folds_the_rest():
    rows = {f"s{i:02d}": trusted(f"s{i:02d}", 0.5 + i / 100) for i in range(14)}
    environment = Environment(loader=PackageLoader("sbr_core.report"), autoescape=True)
    template = environment.get_template("suspects.html.j2")
    html = template.render(suspects=suspects(rows, Corrected()))
    shown, _, folded = html.partition("<details>")
    assert shown.count("<li>") == 10 and folded.count("<li>") == 4
    assert "and 4 more" in folded and "s13" in shown and "s00" in folded
    few = template.render(suspects=suspects(dict(list(rows.items())[:10]), Corrected()))
    assert "<details>" not in few and few.count("<ol") == few.count("</ol>") == 1
    assert html.count("<ol") == html.count("</ol>") and html.count("<details>") == 1
    assert template.render(suspects=[]).strip() == ""
