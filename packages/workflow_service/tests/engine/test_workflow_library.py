"""Where workflows come from: those that ship, a folder, plug-ins; a broken one harms no other."""

import logging
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from workflow_service.workflows.engine.loading import load_folder, shipped_definitions
from workflow_service.workflows.library import all_workflows
from workflow_service.workflows.plugins import WorkflowTools, plugin_workflows

GOOD = "name: {}\ndescription: Good.\nsteps:\n  a: {{type: transform, value: 1}}\noutput: {{}}\n"


@pytest.fixture
def tools(services: Any, model: Any, in_memory: Any) -> WorkflowTools:
    """What plug-ins are given; documents and parser are of no use here."""
    absent: Any = None
    return WorkflowTools(documents=absent, parser=absent, services=services, model=model, checkpointer=in_memory)


class Written:
    """A workflow written in Python."""

    description = "Written."
    input_schema: Mapping[str, Any] = {"type": "object"}

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self, input_data: Mapping[str, Any]) -> None: ...

    async def run(self, context: Any) -> Mapping[str, Any]:
        return {}

    async def forget(self, run_id: Any) -> None: ...


def test_a_folder_s_definitions_are_found(tmp_path: Path) -> None:
    """In YAML and JSON; hidden files, sub-folders and other files are left out."""
    (tmp_path / "a.yaml").write_text(GOOD.format("first"))
    (tmp_path / "b.yml").write_text(GOOD.format("second"))
    (tmp_path / "c.json").write_text(
        '{"name": "third", "description": "Good", "output": {}, "steps": {"a": {"type": "transform", "value": 1}}}'
    )
    (tmp_path / ".d.yaml").write_text("broken")
    (tmp_path / "readme.md").write_text("broken")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "e.yaml").write_text("broken")
    loaded = load_folder(tmp_path)
    assert sorted(loaded.definitions) == ["first", "second", "third"]
    assert loaded.problems == ()


def test_a_broken_file_names_itself_and_harms_no_other(tmp_path: Path) -> None:
    """Also one that is no text, one that cannot be read, and one whose name is taken."""
    (tmp_path / "a.yaml").write_text(GOOD.format("good"))
    (tmp_path / "b.yaml").write_text("name: x\n")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "d.yaml").symlink_to(tmp_path / "gone")
    (tmp_path / "e.yaml").write_text(GOOD.format("good"))
    (tmp_path / "f.yaml").mkdir()
    loaded = load_folder(tmp_path)
    assert list(loaded.definitions) == ["good"]
    told = [str(problem).removeprefix(f"{tmp_path}/") for problem in loaded.problems]
    assert told == [
        "b.yaml:1:1: the definition lacks 'description', 'steps', 'output'",
        "c.yaml:1:1: the file is no UTF-8 at byte 0, or too large; save it as UTF-8",
        "d.yaml:1:1: the file cannot be read: No such file or directory",
        f"e.yaml:1:7: the name 'good' is taken by {tmp_path}/a.yaml; choose another",
        "f.yaml:1:1: the file cannot be read: Is a directory",
    ]
    assert "no such folder" in str(load_folder(tmp_path / "gone").problems[0])


def test_a_definition_may_replace_one_that_ships_but_nothing_in_python(
    tools: WorkflowTools, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what was left out, and why."""
    (tmp_path / "a.yaml").write_text(GOOD.format("emergency_contacts"))
    (tmp_path / "b.yaml").write_text(GOOD.format("written"))
    (tmp_path / "c.yaml").write_text(
        GOOD.format("asks").replace(
            "type: transform, value: 1", "type: external_service, service: s, operation: o"
        )
    )
    written = Written("written")
    with caplog.at_level(logging.ERROR):
        workflows = all_workflows([written], tools, tmp_path)
    assert sorted(workflows) == ["asks", "emergency_contacts", "written"]
    assert workflows["emergency_contacts"].description == "Good."
    assert workflows["written"] is written
    assert [
        record.getMessage().removeprefix(f"workflow definition: {tmp_path}/") for record in caplog.records
    ] == [
        "b.yaml:1:7: the name 'written' belongs to a workflow written in Python; choose another",
        "c.yaml:4:40: there is no service 's'; there are none",
    ]


def test_those_that_ship_are_right() -> None:
    """emergency_contacts among them."""
    assert "emergency_contacts" in shipped_definitions()


PLUGIN = """
class Hello:
    name, description, input_schema = "hello", "Says hello.", {"type": "object"}
    def check(self, input_data): ...
    async def run(self, context): return {}
    async def forget(self, run_id): ...

def hello(tools): return Hello()
def named_twice(tools): return Hello()
def breaks(tools): raise RuntimeError("no licence")
def nothing(tools): return object()
"""


def test_plug_ins_are_loaded_and_broken_ones_are_named(
    tools: WorkflowTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is not there, one that raises, one that is no workflow, one whose name is taken."""
    (tmp_path / "a_plugin_of_workflows.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [
        EntryPoint(name, f"a_plugin_of_workflows:{name}", "workflow_service.workflows")
        for name in ("nothing", "named_twice", "hello", "gone", "breaks")
    ]
    with caplog.at_level(logging.ERROR):
        workflows = plugin_workflows(tools, {}, found)
    assert list(workflows) == ["hello"]
    assert [record.getMessage() for record in caplog.records] == [
        "the workflow 'breaks' (a_plugin_of_workflows:breaks) cannot be used: no licence",
        "the workflow 'gone' (a_plugin_of_workflows:gone) cannot be used: "
        "module 'a_plugin_of_workflows' has no attribute 'gone'",
        "the workflow 'named_twice' (a_plugin_of_workflows:named_twice) cannot be used: "
        "the name 'hello' is taken; choose another",
        "the workflow 'nothing' (a_plugin_of_workflows:nothing) cannot be used: "
        "object is no workflow: it lacks name, description, input_schema, check, run, forget",
    ]
