"""Execute a notebook in a kernel of Jupyter's, and write it so that another execution changes as little as possible."""

import pathlib
import sys

import nbformat
from nbclient import NotebookClient

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(notebook: nbformat.NotebookNode, folder: pathlib.Path, timeout: int = 600) -> None:
    """Run all cells in place, in a new process whose working directory is `folder`. `timeout` is in seconds a cell.

    Raises CellExecutionError, with the traceback, if a cell does.
    """
    resources = {"metadata": {"path": str(folder)}}
    options = {"kernel_name": KERNEL["name"], "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, timeout=timeout, resources=resources, **options).execute()


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Remove what depends on the machine or on the editor: versions, timings, random ids, and objects' addresses."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data, output.metadata = nbformat.from_dict({"image/png": output.data["image/png"]}), {}


if __name__ == "__main__":
    path = pathlib.Path(sys.argv[1])
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path.parent)
    normalise(notebook)
    nbformat.write(notebook, path)
