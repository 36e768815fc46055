"""Who may import what, where import-linter can't see it."""

import ast
from pathlib import Path

import inferd

PACKAGE = Path(inferd.__file__).parent


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_only_four_modules_import_the_native_one():
    users = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if any(name.startswith("inferd._native") for name in imports(file))
    }
    assert users == {"client/grpc.py", "control/dataplane.py", "worker/channel.py", "worker/zygote.py"}


def test_every_module_opens_with_what_it_is():
    for file in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), file


def test_no_file_is_two_ideas():
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 600, file


def test_only_one_module_reads_the_environment():
    readers = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if "os.environ" in file.read_text() or "os.getenv" in file.read_text()
    }
    # The zygote only writes: it gives its children theirs.
    assert readers == {"control/resources.py", "worker/zygote.py"}
