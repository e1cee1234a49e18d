"""Feedback that can be handed out: what each check said, without the hidden tests."""

from __future__ import annotations

from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor

from assignments.tools.sources import marks, regions, shown


class HideTests(NbGraderPreprocessor):
    """Remove hidden tests from the cells, and outputs that quote a line of them."""

    def preprocess(self, nb, resources):
        hidden = set()
        for cell in nb.cells:
            for line, kind in regions(cell.source):
                if kind == "HIDDEN TESTS" and len(line.strip()) > 15:
                    hidden.add(line.strip())
        for cell in nb.cells:
            if cell.cell_type != "code":
                continue
            graded = marks(cell).get("grade")
            if graded:
                cell.source = shown(cell.source)
            outputs = []
            for output in cell.outputs:
                # A traceback quotes the lines of the check; its message is enough.
                if graded and output.output_type == "error":
                    ename, evalue = output.ename, output.evalue
                    traceback = [f"{ename}: {evalue}"]
                    output = new_output("error", ename=ename, evalue=evalue, traceback=traceback)
                if not any(line in _text(output) for line in hidden):
                    outputs.append(output)
            cell.outputs = outputs
        return nb, resources


def _text(output) -> str:
    """All that an output says, plain and as Python would write it."""
    data = map(str, output.get("data", {}).values())
    parts = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", []), *data]
    return "\n".join([str(dict(output)), *parts])
