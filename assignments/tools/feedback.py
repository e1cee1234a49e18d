"""Feedback that can be handed out: what each check said, without the hidden tests."""

from __future__ import annotations

from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor

from assignments.tools.sources import marks, regions, shown


class HideTests(NbGraderPreprocessor):
    """Takes the hidden tests out of the cells, and out of every output in which they were quoted."""

    def preprocess(self, nb, resources):
        hidden = {
            line.strip()
            for cell in nb.cells
            for line, kind in regions(cell.source)
            if kind == "hidden test"
        }
        hidden = {line for line in hidden if len(line) > 15}
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            graded = marks(cell).get("grade")
            if graded:
                cell.source = shown(cell.source)
            outputs = []
            for output in cell.outputs:
                if output.output_type == "error":
                    traceback = [f"{output.ename}: {output.evalue}"] if graded else output.traceback
                    output = new_output(
                        "error", ename=output.ename, evalue=output.evalue, traceback=traceback
                    )
                if not any(line in str(dict(output)) or line in _text(output) for line in hidden):
                    outputs.append(output)
            cell.outputs = outputs
        return nb, resources


def _text(output) -> str:
    """All that an output says, as one text."""
    parts = [
        output.get("text", ""),
        output.get("evalue", ""),
        *output.get("traceback", []),
        *map(str, output.get("data", {}).values()),
    ]
    return "\n".join(parts)
