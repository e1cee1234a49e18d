"""The build forgets the results that a change has made out of date, and no others."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book._ext import build, cache
from book._ext.timings import last_times, longest_first
from helpers.settings import Settings

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    """A book of two chapters: one imports near, and so deep; the other imports other."""
    monkeypatch.setattr(cache, "SETTINGS", Settings())  # whatever this test run is set to
    files = {
        "helpers/__init__.py": "",
        "helpers/near.py": "from . import deep\n",
        "helpers/deep.py": "DEPTH = 1\n",
        "helpers/other.py": "import helpers\n",
        "helpers/prompts/data/table.csv": "a,b\n",
        "book/results/grid.csv": "a,b\n",
        "book/results/grid.json": "{}\n",
        "constraints.txt": "numpy==1\n",
        "book/_toc.yml": "{format: jb-book, root: one, chapters: [{file: two}]}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    write(tmp_path / "book/one.ipynb", "%matplotlib inline\nfrom helpers import near\n!ls")
    write(
        tmp_path / "book/two.ipynb", "import helpers.other as other\ntable = '../results/grid.csv'"
    )
    return tmp_path


@pytest.fixture
def results(root: Path):
    return get_cache(root / "cache")


def write(path: Path, code: str, prose: str = "Some words.") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell(prose), new_code_cell(code)]), path)


def execute(results, root: Path) -> None:
    """Store a result of every notebook that has none."""
    for path, key in cache.stale(results, root).items():
        cache.keep(results, path, nbformat.read(path, as_version=4), 1.0, key)


def waiting(results, root: Path) -> set[str]:
    return {path.stem for path in cache.stale(results, root)}


@pytest.fixture
def built(results, root: Path):
    """The cache after a first cache."""
    assert waiting(results, root) == {"one", "two"}
    execute(results, root)
    assert waiting(results, root) == set()
    return results


@pytest.mark.parametrize(
    ("file", "affected"),
    [
        ("helpers/near.py", {"one"}),
        ("helpers/deep.py", {"one"}),
        ("helpers/other.py", {"two"}),
        ("helpers/__init__.py", {"one", "two"}),
        ("helpers/prompts/data/table.csv", {"one", "two"}),
        ("book/results/grid.csv", {"two"}),
        ("book/results/grid.json", {"two"}),
        ("book/results/of-no-chapter.csv", set()),
        ("constraints.txt", {"one", "two"}),
    ],
)
def test_a_change_runs_again_what_depends_on_it_and_nothing_else(
    built, root: Path, file: str, affected: set[str]
) -> None:
    with (root / file).open("a") as changed:
        changed.write("# changed\n")
    assert waiting(built, root) == affected
    assert len(built.list_cache_records()) == 2 - len(affected)


def test_a_table_that_is_recorded_or_taken_away_runs_the_chapter_that_names_it(
    built, root: Path
) -> None:
    (root / "book/results/grid.csv").unlink()
    assert waiting(built, root) == {"two"}
    execute(built, root)
    (root / "book/results/grid.csv").write_text("a,b\n")
    assert waiting(built, root) == {"two"}


def test_a_helper_that_no_chapter_imports_runs_nothing(built, root: Path) -> None:
    (root / "helpers/of_none.py").write_text("")
    assert waiting(built, root) == set()


@pytest.mark.parametrize("change", [{"profile": "smoke"}, {"model": "gpt2"}, {"seed": 1}])
def test_other_settings_run_everything_again(built, root: Path, monkeypatch, change: dict) -> None:
    monkeypatch.setattr(cache, "SETTINGS", Settings(**change))
    assert waiting(built, root) == {"one", "two"}


def test_another_device_runs_everything_again(built, root: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "device_name", lambda: "cuda:7")
    assert waiting(built, root) == {"one", "two"}


def test_new_code_runs_its_chapter_and_new_prose_does_not(built, root: Path) -> None:
    write(
        root / "book/two.ipynb",
        "import helpers.other as other\ntable = '../results/grid.csv'",
        prose="Other words.",
    )
    assert waiting(built, root) == set()
    write(root / "book/two.ipynb", "import helpers.other as o")
    assert waiting(built, root) == {"two"}


def test_an_earlier_text_does_not_bring_back_a_result_of_older_helpers(built, root: Path) -> None:
    write(root / "book/two.ipynb", "import helpers.other as o")
    waiting(built, root)
    execute(built, root)
    (root / "helpers/other.py").write_text("CHANGED = True\n")
    waiting(built, root)
    execute(built, root)
    write(root / "book/two.ipynb", "import helpers.other as other\ntable = '../results/grid.csv'")
    assert waiting(built, root) == {"two"}


def test_a_chapter_that_failed_waits_again(built, root: Path) -> None:
    built.remove_cache(
        cache.record_of(built, root / "book/one.ipynb").pk
    )  # failed results are never cached
    assert waiting(built, root) == {"one"}


def test_a_notebook_that_is_not_in_the_table_of_contents_is_no_chapter(built, root: Path) -> None:
    write(root / "book/draft.ipynb", "1")
    assert waiting(built, root) == set()


def test_metadata_written_while_executing_does_not_hide_the_result(results, root: Path) -> None:
    path = root / "book/one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.cells[1].metadata["execution"] = {"iopub.execute_input": "now"}
    cache.keep(results, path, notebook, 1.0, cache.key_of(path, root))
    assert waiting(results, root) == {"two"}


def test_a_result_without_a_key_is_not_trusted(built, root: Path) -> None:
    path = root / "book/one.ipynb"
    bundle = CacheBundleIn(nbformat.read(path, as_version=4), str(path))
    built.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    assert waiting(built, root) == {"one"}


def test_a_chapter_that_is_no_python_is_left_to_fail_in_its_kernel(built, root: Path) -> None:
    write(root / "book/two.ipynb", "this is no python")
    assert waiting(built, root) == {"two"}


def test_a_module_beside_a_notebook_counts(results, root: Path) -> None:
    (root / "book/beside.py").write_text("ONE = 1\n")
    write(root / "book/one.ipynb", "from beside import ONE")
    execute(results, root)
    assert waiting(results, root) == set()
    (root / "book/beside.py").write_text("ONE = 2\n")
    assert waiting(results, root) == {"one"}


@pytest.mark.parametrize("cell", ["%%time\nfrom helpers import other", "from helpers import other"])
def test_a_cell_that_is_no_python_does_not_hide_what_others_import(
    results, root: Path, cell: str
) -> None:
    cells = map(new_code_cell, [cell, "%%html\n<b>x</b>", "this is no python"])
    nbformat.write(new_notebook(cells=list(cells)), root / "book/two.ipynb")
    execute(results, root)
    (root / "helpers/other.py").write_text("CHANGED = True\n")
    assert waiting(results, root) == {"two"}


def test_a_helper_that_is_edited_while_a_chapter_runs_makes_its_result_stale(
    results, root: Path
) -> None:
    keys = cache.stale(results, root)
    (root / "helpers/other.py").write_text("EDITED = True\n")
    for path, key in keys.items():
        cache.keep(results, path, nbformat.read(path, as_version=4), 1.0, key)
    assert waiting(results, root) == {"two"}


def test_pages_are_drawn_again_whoever_executed_them(built, root: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "notebooks", lambda: [root / "book/one.ipynb"])
    before = cache.executions(built)
    assert cache.executions(built) == before
    path = root / "book/one.ipynb"
    cache.keep(built, path, nbformat.read(path, as_version=4), 1.0, cache.key_of(path, root))
    assert cache.executions(built) != before


def test_the_longest_notebook_starts_first_and_an_unknown_one_before_it(tmp_path: Path) -> None:
    recorded, last = tmp_path / "recorded.csv", tmp_path / "timings.csv"
    recorded.write_text("case,variant,seconds\nchapters,a,9\nchapters,b,1\nload,c,99\n")
    paths = [Path("a.ipynb"), Path("b.ipynb"), Path("c.ipynb")]

    def order() -> str:
        return "".join(path.stem for path in longest_first(paths, last_times(last, recorded)))

    assert order() == "cab"
    last.write_text("chapter,cell,seconds\na,1,1\nb,1,1\nb,2,2\n")
    assert order() == "cba"


@pytest.mark.parametrize(("free", "jobs"), [(1e9, 1), (9e9, 2), (99e9, 4)])
def test_chapters_side_by_side_are_limited_by_cores_and_memory(monkeypatch, free, jobs) -> None:
    monkeypatch.setattr(build, "SETTINGS", Settings(device="cpu"))
    monkeypatch.setattr(build, "device_name", lambda: "cpu")
    monkeypatch.setattr(build, "free_memory", lambda: free)
    monkeypatch.setattr(build.os, "sched_getaffinity", lambda process: set(range(4)))
    assert build.n_jobs() == jobs
    monkeypatch.setattr(build, "SETTINGS", Settings(jobs=7))
    assert build.n_jobs() == 7
    monkeypatch.undo()
    assert 1e6 < build.free_memory() < 1e15


def test_pages_are_drawn_only_if_something_has_changed(built, root: Path, monkeypatch) -> None:
    calls = []

    def jupyter_book(out: Path, *options: str) -> int:
        calls.append((out / "_build/.doctrees").exists())
        (out / "_build/.doctrees").mkdir(exist_ok=True)
        (out / "_build/html").mkdir(exist_ok=True)
        (out / "_build/html/index.html").touch()
        return int("broken" in (root / "book/_toc.yml").read_text())

    def drawn() -> tuple[int, list[bool]]:
        """The exit status, and whether pages were drawn with what Sphinx knew before."""
        calls.clear()
        return build.draw(built, root / "out"), list(calls)

    digest = build.sources_digest
    monkeypatch.setattr(build, "run_jupyter_book", jupyter_book)
    monkeypatch.setattr(build, "sources_digest", lambda: digest(root))
    monkeypatch.setattr(build, "executions", lambda results: cache_state[0])
    (root / "out/_build").mkdir(parents=True)
    (root / "_config.yml").touch()
    cache_state = ["first"]
    assert drawn() == (0, [False])
    assert drawn() == (0, [])
    for name in ("book/page.md", "_config.yml", "helpers/near.py", "book/_assets/css/book.css"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("changed")
        assert drawn() == (0, [True]) and drawn() == (0, []), name
    cache_state[0] = "second"  # a chapter was executed
    assert drawn() == (0, [False])
    (root / "out/_build/html/index.html").unlink()
    assert drawn() == (0, [True])
    # After a failure everything is drawn again, so that it fails again.
    (root / "book/_toc.yml").write_text("broken")
    assert drawn() == (1, [True]) and drawn() == (1, [False])


def test_a_device_that_is_not_there_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(cache, "SETTINGS", Settings(device="cuda:99"))
    cache.device_name.cache_clear()
    try:
        with pytest.raises(ValueError, match="cuda:99"):
            cache.device_name()
    finally:
        cache.device_name.cache_clear()
