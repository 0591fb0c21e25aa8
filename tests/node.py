"""Run a widget's own JavaScript in Node, for tests of its numbers."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dcgan_lib.widgets import page

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="Node is not installed")


def run_js(
    folder: Path, code: str, *, files: dict[str, Any] | None = None, script: str = "explorer.js"
) -> Any:
    """Run code that sees every name of a script and reads JSON files; return what it gives to
    `answer`."""
    source = page.script(script).removesuffix(page.EXPORT)
    for name, content in (files or {}).items():
        (folder / name).write_text(json.dumps(content))
    head = 'import { readFileSync } from "node:fs";\n'
    tools = (
        "const read = (name) => JSON.parse(readFileSync(new URL(name, import.meta.url)));\n"
        "const answer = (value) => process.stdout.write(JSON.stringify(value));\n"
    )
    (folder / "test.mjs").write_text(head + source + tools + code, encoding="utf-8")
    done = subprocess.run(
        ["node", folder / "test.mjs"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
