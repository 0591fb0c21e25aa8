"""A short campaign of kills and full disks; `make faults` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("faults.py")


@pytest.mark.skipif(sys.platform == "win32", reason="forks and SIGKILL")
def test_killed_commands_and_full_disks_lose_nothing():
    words = [sys.executable, SCRIPT, "--kills", "8", "--full-disks", "6", "--seed", "3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1_800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 went wrong" in done.stdout


def test_what_a_kill_changed_is_seen():
    """The comparison itself: a lost file, a changed weight or a missing line is a difference."""
    sys.path.insert(0, str(SCRIPT.parent))
    from faults import differences, without_times

    whole = {"a.json": {"n": 1}, "samples/1.png": "x", "m.jsonl": [{"step": 1}]}
    assert differences(whole, whole, r"$^") == []
    assert differences(whole | {"a.json": {"n": 2}}, whole, r"$^") == ["a.json"]
    assert differences({"a.json": {"n": 1}}, whole, r"samples/") == ["m.jsonl"]
    assert without_times({"seconds": 3.0, "n": [{"date": "x", "k": 1}]}) == {"n": [{"k": 1}]}
