"""The example of a plug-in, installed as pip does it, but in a folder of the test's."""

import tomllib
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "approval"
GROUP = "workflow_service.workflows"


def python_path_with_example(folder: Path) -> str:
    """Make the example's metadata in ``folder``; return what PYTHONPATH must be for a process to find it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head, "utf-8")
    lines = [f"{name} = {value}" for name, value in project["entry-points"][GROUP].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]), "utf-8")
    return f"{folder}:{EXAMPLE}"
