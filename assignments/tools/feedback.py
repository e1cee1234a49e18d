"""Pages that can be handed out, and pages to mark from. All text of students is shown as text."""

from __future__ import annotations

from html import escape
from pathlib import Path

from assignments.tools.frame import Frame
from assignments.tools.records import Record, Row, slug, write

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
table {{ border-collapse: collapse }} td, th {{ padding: .3rem .8rem; text-align: left;
 border-bottom: 1px solid #ccc; vertical-align: top }}
pre {{ white-space: pre-wrap; background: #f4f4f4; padding: .6rem; overflow-wrap: anywhere }}
img {{ max-width: 100% }}
</style></head><body>
{body}
</body></html>
"""


def student_page(row: Row, frame: Frame) -> str:
    """One student's points with reasons, notes, and the teacher's comments."""
    record = row.record
    lines = [f"<h1>{escape(frame.name)}: {escape(record.student)}</h1>"]
    waits = f", {row.to_mark} still to be marked" if row.to_mark else ""
    lines.append(f"<p><strong>{row.points:g} of {row.total:g} points{waits}</strong></p><table>")
    lines.append("<tr><th>Part</th><th>Points</th><th>Why</th></tr>")
    for part in frame.parts.values():
        points = row.parts.get(part.id)
        shown = "to be marked" if points is None else f"{points:g}"
        why = [record.reasons.get(part.id, ""), row.comments.get(part.id, "")]
        cells = [part.title, f"{shown} of {part.points:g}", " ".join(filter(None, why))]
        lines.append("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in cells) + "</tr>")
    lines.append("</table>")
    if record.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in record.notes)
        lines.append(f"<h2>Notes</h2><ul>{items}</ul>")
    for part in frame.parts.values():
        lines += _answer(part.title, record.answers.get(part.id, {}))
    return PAGE.format(title=escape(f"{frame.name} {record.student}"), body="\n".join(lines))


def _answer(title: str, answer: dict) -> list[str]:
    lines = [f"<h2>{escape(title)}</h2>"]
    if answer.get("text"):
        lines.append(f"<pre>{escape(answer['text'])}</pre>")
    for uri in answer.get("images", ()):  # data URIs of base64 alone, see reading.py
        lines.append(f'<p><img alt="a picture in the answer" src="{escape(uri)}"></p>')
    return lines


def marking_page(rows: list[Row], frame: Frame, rubric: str) -> str:
    """All answers of a set that wait to be marked, question by question, with the rubric."""
    lines = [f"<h1>{escape(frame.name)}: to be marked</h1>"]
    lines.append("<p>Points and comments go into <code>marks.csv</code>; then grade again.</p>")
    lines.append(f"<details><summary>Rubric</summary><pre>{escape(rubric)}</pre></details>")
    for part in frame.parts.values():
        for row in rows:
            if part.id in row.parts and row.parts[part.id] is None:
                record: Record = row.record
                answer = record.answers.get(part.id, {})
                title = f"{part.id}, {record.student} ({part.points:g} points)"
                lines += _answer(title, answer)
                about = [record.reasons.get(part.id, ""), *record.references.values()]
                lines.append(f"<p>{escape(' '.join(filter(None, about)))}</p>")
    return PAGE.format(title=escape(f"{frame.name}: to be marked"), body="\n".join(lines))


def write_pages(rows: list[Row], frames: dict[str, Frame], out: Path, rubrics: Path) -> None:
    """Write feedback for everybody, and a page to mark from for each set."""
    for name, frame in frames.items():
        theirs = [row for row in rows if row.record.set == name and row.parts]
        for row in theirs:
            page = out / "feedback" / name / f"{slug(row.record.student)}.html"
            write(page, student_page(row, frame))
        if theirs:
            rubric = rubrics / f"{name}.md"
            text = rubric.read_text(encoding="utf-8") if rubric.exists() else ""
            write(out / "to-mark" / f"{name}.html", marking_page(theirs, frame, text))
