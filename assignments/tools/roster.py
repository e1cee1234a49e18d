"""Who is in the class: ``students.csv`` with the columns id, name, section, lms_id."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from assignments.tools.reading import text_of


def folded(name: str) -> str:
    """A name without case, accents and everything but letters and digits."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return re.sub(r"[\W_]", "", "".join(one for one in plain if not unicodedata.combining(one)))


def read_table(text: str) -> csv.DictReader:
    """A table with commas or, as many spreadsheets write it, semicolons."""
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)


@dataclass
class Roster:
    """The class, by id; without a roster everybody who hands in is in it.

    Attributes:
        people: rows of the table, by id.
        unknown: note on somebody who is not in it.
    """

    people: dict[str, dict[str, str]] = field(default_factory=dict)
    unknown: str = ""

    @classmethod
    def read(cls, path: Path) -> Roster:
        """Read a roster, with commas or semicolons.

        Raises:
            ValueError: a column or an id is missing, or two rows have one id or one lms_id.
        """
        table = read_table(text_of(path.read_bytes())[0])
        columns = [name.strip().lower().replace(" ", "_") for name in table.fieldnames or ()]
        if "id" not in columns:
            raise ValueError(f"{path} has no column id; it needs id, name, section, lms_id.")
        people: dict[str, dict[str, str]] = {}
        taken: set[str] = set()
        for values in table:
            row = dict(zip(columns, ((value or "").strip() for value in values.values())))
            if not any(row.values()):
                continue
            # Nobody is left out, and no two have one id.
            row["id"] = row.get("id") or row.get("lms_id", "")
            if not row["id"]:
                raise ValueError(f"{path}: {row.get('name')!r} has neither an id nor an lms_id.")
            for key in {folded(row["id"]), folded(row.get("lms_id", ""))} - {""}:
                if key in taken:
                    raise ValueError(f"{path}: the id {row['id']} or its lms_id is there twice.")
                taken.add(key)
            people[row["id"]] = row
        return cls(people, "not in the roster")

    def find(self, told: list[str]) -> str:
        """The id of the one person whom all of an id, an LMS id or a name fit; "" for none."""
        for one in filter(None, told):
            key = folded(one)
            exact, named = set(), set()
            for number, row in self.people.items():
                if key in {folded(number), folded(row.get("lms_id", ""))}:
                    exact.add(number)
                words = re.split(r"[\s,]+", row.get("name", ""))[:4]
                orders = permutations([folded(word) for word in words if folded(word)])
                if key and any(key == "".join(order) for order in orders):
                    named.add(number)
            for fitting in (exact, named):
                if len(fitting) == 1:
                    return fitting.pop()
        return ""
