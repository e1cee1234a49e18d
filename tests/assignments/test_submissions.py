"""What was handed in is found, is the right person's, and nothing is lost on the way."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from assignments.tools.frame import read_frame
from assignments.tools.reading import Unreadable, read_cells
from assignments.tools.roster import Roster
from assignments.tools.sources import set_names
from assignments.tools.submissions import Handed, find

pytestmark = pytest.mark.unit
FRAMES = {name: read_frame(name) for name in set_names()}


def write(path: Path, text: str = '{"cells": []}', age: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (1e9 - age, 1e9 - age))


def found(folder: Path, *places: str, roster: Roster | None = None) -> list[Handed]:
    for place in places:
        write(folder / place)
    return find(folder, FRAMES, roster or Roster())


def who(handed: list[Handed]) -> list[tuple[str, str]]:
    return [(one.student, one.set) for one in handed]


@pytest.mark.parametrize(
    "place",
    [
        "ada/ps1.ipynb",
        "ada/ps1/ps1.ipynb",
        "ada-ps1.ipynb",
        "ps1_ada.ipynb",
        "ps1/ada.ipynb",
        "ada/PS1 (2).ipynb",
        "section 2/ada/ps1.ipynb",
        "ps1/ada/homework.ipynb",
        "ada/ps1-final-v2.ipynb",
        "submitted/ada/ps1/ps1.ipynb",
        "ada/ps1.ipynb.txt",
        "ada/PS1.IPYNB",
        "ada+ps1+2026-11-20 14:03:22 UTC+4f5/ps1.ipynb",  # nbgrader's exchange
        "PS1_ada_attempt_2026-11-20-14-03-22_ps1.ipynb",  # Blackboard
    ],
)
def test_a_submission_is_found_in_any_usual_layout(tmp_path: Path, place: str) -> None:
    (one,) = found(tmp_path, place)
    assert (one.student, one.set, one.notes) == ("ada", "ps1", [])


@pytest.mark.parametrize(
    "places",
    [
        ["section-1/ada/ps1.ipynb", "section-1/bob/ps1.ipynb"],
        ["monday/ada-ps1.ipynb", "monday/bob-ps1.ipynb"],
        ["monday/ps1/ada.ipynb", "monday/ps1/bob.ipynb"],
        ["a b/ps1.ipynb", "a_b/ps1.ipynb"],
        ["ada/ps1.ipynb", "Ada/ps1.ipynb"],
        ["new/ps1.ipynb", "last/ps1.ipynb"],
        ["doejane_11_901_ps1.ipynb", "doejane_12_902_ps1.ipynb"],
        ["team-ps1-1/ps1.ipynb", "team-ps1-2/ps1.ipynb"],
        ["final-ada/ps1.ipynb", "draft-ada/ps1.ipynb"],
        [
            "Jane Doe_11_assignsubmission_file/ps1.ipynb",
            "Jane Doe_12_assignsubmission_file/ps1.ipynb",
        ],
    ],
)
def test_two_people_never_become_one(tmp_path: Path, places: list[str]) -> None:
    handed = found(tmp_path, *places)
    assert len({one.student for one in handed}) == 2 and len(handed) == 2


@pytest.mark.parametrize(
    "places",
    [
        ["ada/ps1.ipynb", "ada/ps2/ps2.ipynb"],
        ["ada/ps1-draft.ipynb", "ada/ps1-final.ipynb"],
        ["ada/ps1.ipynb", "ada/ps1_ada.ipynb"],
        ["ps1/ada/ps1.ipynb", "ps2/ada/ps2.ipynb"],
        ["e\u0301va/ps1.ipynb", "\u00e9va/ps2.ipynb"],
        ["doejane_11_901_ps1.ipynb", "doejane_LATE_11_902_ps2-1.ipynb"],
        ["ada_ps1_final.ipynb", "ada-ps2-v2/ps2.ipynb", "ps3_ada_draft.ipynb"],
        ["ada ps1 (2).ipynb", "ada/ps2.ipynb", "ps3-ada (1).ipynb"],
    ],
)
def test_one_person_never_becomes_two(tmp_path: Path, places: list[str]) -> None:
    assert len({one.student for one in found(tmp_path, *places)}) == 1


ROSTER = """id;name;section;lms_id
jd1;Jane Doe;A;11
jd2;Jane Doe;B;12
al;Ada Lovelace;A;13
mö;Jürgen Möller;B;14
"""


def test_a_roster_says_who_is_who_in_every_export(tmp_path: Path) -> None:
    (tmp_path / "students.csv").write_bytes(ROSTER.encode("utf-8-sig"))
    roster = Roster.read(tmp_path / "students.csv")
    places = {
        "doejane_11_901_ps1.ipynb": "jd1",
        "Jane Doe_12_assignsubmission_file/ps1.ipynb": "jd2",
        "lovelaceada_LATE_13_55_ps1-2.ipynb": "al",
        "PS2_al_attempt_2026-11-20-14-03-22_ps2.ipynb": "al",
        "mö+ps1+2026-11-20 14:03:22 UTC+4f5/ps1.ipynb": "mö",
        "monday/Möller, Jürgen/ps2.ipynb": "mö",
        "monday/ADA LOVELACE/ps3.ipynb": "al",
        "Jane Doe/ps3.ipynb": "Jane Doe",  # two have this name
        "stranger/ps1.ipynb": "stranger",
    }
    handed = {one.place: one for one in found(tmp_path / "in", *places, roster=roster)}
    assert {place: one.student for place, one in handed.items()} == places
    for place, one in handed.items():
        strange = one.student in ("Jane Doe", "stranger")
        late = ["the platform says that it was late"] if "_LATE_" in place else []
        assert one.notes == (["not in the roster"] if strange else late), place


@pytest.mark.parametrize("table", ["name\nx", "id,lms_id\na,1\nb,1", "id\na\nA", "id,name\n,x"])
def test_a_roster_that_cannot_tell_people_apart_is_refused(tmp_path: Path, table: str) -> None:
    write(tmp_path / "students.csv", table)
    with pytest.raises(ValueError, match="no column id|twice|neither"):
        Roster.read(tmp_path / "students.csv")


def test_the_newest_counts_and_every_other_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "ada" / "ps1.ipynb", '{"cells": [1]}')
    write(tmp_path / "ada" / "ps1-draft.ipynb", age=60)
    write(tmp_path / "ada" / "ps1.pdf")
    write(tmp_path / "ada" / ".ipynb_checkpoints" / "ps1.ipynb")
    write(tmp_path / "ada" / "checks" / "values.py")
    write(tmp_path / "bob" / "thoughts.ipynb")
    write(tmp_path / "bad.zip", "no zip")
    handed = {one.student: one for one in found(tmp_path)}
    assert handed["ada"].data == b'{"cells": [1]}'
    said = " ".join(handed["ada"].notes)
    assert "ps1.ipynb counts, not ada/ps1-draft" in said and "not read: ada/ps1.pdf" in said
    assert "values.py" not in said and "checkpoints" not in said
    for student in ("bob", "bad"):
        assert "a person has to look" in " ".join(handed[student].notes)


def test_a_zip_is_a_folder_and_nothing_leads_out_of_it(tmp_path: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in ("ps1/ps1.ipynb", "../bob/ps2.ipynb", "__MACOSX/ps1/._ps1.ipynb"):
            archive.writestr(name, "{}")
    (tmp_path / "ada.zip").write_bytes(data.getvalue())
    assert who(found(tmp_path)) == [("ada", "ps1")]


def test_zip_files_in_a_zip_file_are_opened_and_nothing_damaged_stops_the_class(tmp_path) -> None:
    inner, outer, folder = io.BytesIO(), io.BytesIO(), "Jane Doe_11_assignsubmission_file"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ps1/ps1.ipynb", "{}" * 99)
    broken = bytearray(inner.getvalue())
    broken[50:60] = b"damaged up"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr(f"{folder}/my work.zip", inner.getvalue())
        archive.writestr("Ann Lee_12_assignsubmission_file/ps1.zip", bytes(broken))
        archive.writestr("Bo Ek_13_assignsubmission_file/ps1.docx", inner.getvalue())
    (tmp_path / "all.zip").write_bytes(outer.getvalue())
    jane, *others = sorted(found(tmp_path), key=lambda one: one.student != "Jane Doe_11")
    assert jane.data == b"{}" * 99 and jane.set == "ps1" and not jane.notes
    assert [one.student for one in others] == ["Ann Lee_12", "Bo Ek_13"]
    assert all("a person has to look" in " ".join(one.notes) for one in others)


def packed(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return data.getvalue()


BLACKBOARD = "_attempt_2026-11-20-14-03-22_"


@pytest.mark.parametrize(
    "place, inside, owner",
    [
        ("bob.zip", ["ada/ps1.ipynb"], "bob"),
        ("bob/my work.zip", ["my work/ps1.ipynb", "my work/figure.png"], "bob"),
        ("doebob_12_902_ps1.zip", ["doeada_11_901_ps1.ipynb"], "doebob_12"),
        ("Bob_12_assignsubmission_file/Ada_11_assignsubmission_file_ps1.ipynb", [], "Bob_12"),
        (f"PS1_bob{BLACKBOARD}PS1_ada{BLACKBOARD}ps1.ipynb", [], "bob"),
        (f"Problem Set 1_b_doe{BLACKBOARD}ps1.ipynb", [], "b_doe"),
        ("submissions.zip", ["bob/ps1.ipynb"], "bob"),
    ],
)
def test_a_name_that_a_student_writes_inside_makes_nobody_else_of_him(
    tmp_path: Path, place: str, inside: list[str], owner: str
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(*inside) if inside else b"{}")
    write(tmp_path / "ada" / "ps1.ipynb", age=60)
    assert sorted(who(found(tmp_path))) == sorted([("ada", "ps1"), (owner, "ps1")])


def test_a_zip_file_of_a_class_holds_a_class(tmp_path: Path) -> None:
    inner = packed("x/ps1.ipynb")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for student in ("ada", "bob"):
            archive.writestr(f"{student}.zip", inner)
            archive.writestr(f"{student}/ps2.ipynb", "{}")
    for name in ("monday.zip", "all.zip"):
        (tmp_path / name).write_bytes(data.getvalue())
    both = [(student, name) for student in ("ada", "bob") for name in ("ps1", "ps2")]
    assert who(found(tmp_path)) == both
    (tmp_path / "all.zip").unlink()
    roster = Roster({"monday": {"name": "Mo"}, "ada": {"name": "A"}, "bob": {"name": "B"}})
    handed = found(tmp_path, roster=roster)
    assert who(handed) == [("monday", "ps1"), ("monday", "ps2")], "in the roster: a student"


def test_group_work_by_number_stays_apart(tmp_path: Path) -> None:
    handed = found(tmp_path, "section-1/group1.ipynb", "section-1/group2.ipynb")
    assert len({one.student for one in handed}) == 2


def test_a_set_is_recognised_by_what_it_asks_for(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": "def on_the_front(points): ...\ndef psi(): ..."}]
    write(tmp_path / "ada" / "Untitled.ipynb", json.dumps({"cells": cells}))
    assert who(found(tmp_path)) == [("ada", "ps2")]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"3", b'{"cells": 3}', b"%PDF", b"\xff\xfe"])
def test_a_file_that_is_no_notebook_says_so(data: bytes) -> None:
    with pytest.raises(Unreadable, match="no notebook|empty"):
        read_cells(data)


def test_pictures_are_kept_and_nothing_else_of_an_output(tmp_path: Path) -> None:
    bundle = {"image/png": ["iVBO", "Rw0K"], "text/html": "<script>", "image/svg+xml": "<svg>"}
    outputs = [{"output_type": "display_data", "data": bundle}, {"data": {"image/png": '"><b>'}}]
    cell = {"cell_type": "code", "source": ["a\r\n", "b"], "outputs": outputs}
    (one,), _ = read_cells(json.dumps({"cells": [cell]}).encode())
    assert one.images == ["data:image/png;base64,iVBORw0K"] and one.source == "a\nb"
