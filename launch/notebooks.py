"""Runs the notebooks and saves them with their outputs: notebooks/NN_name.ipynb from its source, notebooks/NN_name.py.

python launch/notebooks.py                            all of them; some minutes on two cores. Needs 'robustjax[notebooks]'.
python launch/notebooks.py --only=01_quickstart,03_corruption_gallery
"""

import base64
import io

import entry  # isort: skip
from absl import flags

_ONLY = flags.DEFINE_list("only", [], "Names without .py, separated by commas; default: all.")
FOLDER = entry.ROOT / "notebooks"


def smaller(picture: str) -> str:
    """Returns a PNG, in base64 as notebooks have it, with 256 colours of its own: a third of the bytes."""
    from PIL import Image

    file = io.BytesIO()
    whole = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    whole.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def joined(outputs: list) -> list:
    """Returns outputs with text that follows text made one, which stderr had parted."""
    found = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def executed(source):
    """Returns the notebook of a percent script, run from top to bottom; an error of a cell is an error here."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell{i:02d}"  # not random: a cell that stays is no change
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()  # times of execution
        # What goes to stderr are progress and notes about the machine.
        if cell.cell_type == "code":
            cell.outputs = joined([output for output in cell.outputs if output.get("name") != "stderr"])
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    notebook.metadata.pop("language_info", None)
    return notebook


def main() -> None:
    """Runs and writes."""
    import jupytext

    from robustjax.core import registry
    from robustjax.io import log

    known = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
    for name in _ONLY.value or known:
        if name not in known:
            raise registry.unknown("notebook", name, known)
    for name in _ONLY.value or known:
        log.say(f"running {name}")
        notebook = executed(known[name])
        jupytext.write(notebook, FOLDER / f"{name}.ipynb", fmt="ipynb")
        print(FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    entry.run(main)
