"""What README and docs show of a run: tables and charts."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib import image
from rich.console import Console

from benchmarks import chart, names, render, tables
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Figures
from benchmarks.measure import Result, Series
from tests.benchmarks.conftest import made_up

pytestmark = pytest.mark.slow
README = f"# Us\n\n{render.START}\nold\n{render.END}\n\nThe rest.\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose README shows a run."""
    root = tmp_path_factory.mktemp("root")
    (root / "README.md").write_text(README)
    (root / "run.json").write_text(Figures({"date": "2026-01-02", "CPU": "small"}, made_up(), 600.0).to_json())
    render.render(root / "run.json", root)
    return root


def test_a_table_has_ours_first_and_says_how_many_times_better_it_is(results: list[Result]) -> None:
    row = next(tables.figure_rows(results))
    assert row.group == "demo: one stream of 128 tokens"
    assert row.cells[:3] == ("tokens/s", "160 [40.0 to 640] tok/s", "40.0 [10.0 to 160] tok/s (x4.00)")


def test_targets_that_were_not_measured_leave_their_cells_empty(results: list[Result]) -> None:
    rows = [row for row in tables.figure_rows(results) if "JSON schema" in row.group]
    assert rows
    assert not any(cell for row in rows for cell in row.cells[2:])


def test_a_target_that_failed_is_named_with_its_reason() -> None:
    result = Result("short", "answers of 1 token", names.DEMO, failures={names.PEER: "OSError: gone\nand more"})
    result.take(names.OURS, {"requests_per_second": 7.0})
    [row] = tables.figure_rows([result])
    assert row.cells == ("requests/s", "7.00 req/s", "failed")
    assert tables.failures([result]) == ["demo, answers of 1 token: mlx_lm.server failed: OSError: gone"]


def test_markdown_tables_have_as_many_cells_in_every_line(results: list[Result]) -> None:
    for heads, rows in (
        (tables.figure_heads(results), tables.figure_rows(results)),
        (tables.GOAL_HEADS, tables.goal_rows(results)),
    ):
        assert {line.count("|") for line in tables.markdown(heads, rows).splitlines()} == {len(heads) + 1}


def test_the_terminal_shows_figures_goals_and_failures(results: list[Result]) -> None:
    results[0].failures[names.PEER] = "OSError: gone"
    shown = io.StringIO()
    tables.show(Console(file=shown, width=200), Figures({"CPU": "small"}, results))
    assert "CPU small" in shown.getvalue()
    assert "not measured" not in shown.getvalue()
    assert "mlx_lm.server failed: OSError: gone" in shown.getvalue()


def test_render_writes_the_figures_into_readme_and_leaves_the_rest(root: Path) -> None:
    readme = (root / "README.md").read_text()
    assert readme.startswith("# Us\n")
    assert readme.endswith("The rest.\n")
    assert "\nold\n" not in readme
    assert "on 2026-01-02 in 10 minutes: CPU small." in readme
    assert "demo: one stream of 128 tokens" in readme
    shown = set(re.findall(r'(?:src|srcset)="(.+?)"', readme)) | set(re.findall(r"\]\((.+?)\)", readme))
    assert len(shown) == 3
    assert all((root / path).exists() for path in shown)


def test_rendering_what_was_kept_changes_nothing(root: Path) -> None:
    before = {path: path.read_bytes() for path in (root / render.FOLDER).iterdir()}
    assert len(before) == 6
    written = render.render(root / render.FOLDER / "figures.json", root)
    assert {path: path.read_bytes() for path in before} == before
    assert set(written) == {*before, root / "README.md"}


def test_a_readme_without_a_place_is_refused_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Us\n")
    with pytest.raises(BenchmarkError, match="no place"):
        render.render(root / "run.json", tmp_path)
    assert not (tmp_path / render.FOLDER).exists()


@pytest.mark.parametrize("theme", chart.THEMES, ids=lambda theme: theme.name)
def test_the_charts_are_pictures_on_no_ground_of_their_own(root: Path, theme: chart.Theme) -> None:
    path = root / render.FOLDER / f"chart-{theme.name}.svg"
    assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert all(colour in path.read_text() for colour in theme.bars.values())
    pixels = image.imread(path.with_suffix(".png"))
    assert pixels[0, 0, 3] == 0  # transparent
    assert pixels[..., 3].max() == 1


def test_the_chart_leaves_out_what_was_not_measured() -> None:
    result = Result("one-stream", "", names.DEMO, {names.OURS: {"tokens_per_second": Series([2.0, 3.0, 4.0])}})
    assert [area.get_title("left") for area in chart.draw([result], chart.THEMES[0]).axes] == [chart.PANELS[0].title]
    assert chart.draw([], chart.THEMES[0]).axes == []
