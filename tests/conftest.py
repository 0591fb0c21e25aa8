"""What every test shares: markers that skip with a reason, and a network that is out of reach."""

import importlib.util
import ipaddress
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MPLBACKEND", "Agg")  # figures are drawn in memory, with no window

# A busy machine is slow: no example is wrong for that. A test run tries the same examples each
# time, so that it fails only where something changed; `make faults` looks for new ones.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(
    "faults", settings.get_profile("patient"), max_examples=1_500, derandomize=False
)
settings.load_profile("patient")

MARKERS = {
    "gpu": "gpu: needs a CUDA device",
    "real_data": "real_data(*paths): needs DCGAN_DATA, and these files or folders in it",
    "browser": "browser: needs Chromium and playwright",
    "drives": "drives(*verbs): runs these commands of dcgan on small files, and looks at what each "
    "wrote; test_every_command.py wants one such test for every command",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)


def _reason_to_skip(marker: pytest.Mark) -> str | None:
    """Return what this machine lacks for a test with that marker, or None."""
    if marker.name == "gpu":
        import torch  # only here: most runs never need to ask

        return None if torch.cuda.is_available() else "no CUDA device"
    if marker.name == "real_data":
        root = os.environ.get("DCGAN_DATA")
        if not root:
            return "DCGAN_DATA is unset"
        missing = [path for path in marker.args if not (Path(root) / path).exists()]
        return f"not in DCGAN_DATA: {', '.join(missing)}" if missing else None
    if marker.name == "browser":
        ready = any(map(shutil.which, BROWSERS)) and importlib.util.find_spec("playwright")
        return None if ready else "no Chromium or no playwright"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        if reason := _reason_to_skip(marker):
            pytest.skip(reason)


@pytest.fixture
def reason_to_skip() -> Callable[[pytest.Mark], str | None]:
    """Hand the rule to the test that checks it."""
    return _reason_to_skip


def _is_here(address: object) -> bool:
    """Return whether a socket's address is a file's path or on this machine."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which would have to be looked up
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test that reaches for another machine fail, whether or not the network is up."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if not _is_here(address):
            pytest.fail(f"a test tried to reach {address!r}; tests use this machine only")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@contextmanager
def _commands_run() -> Iterator[set[str]]:
    """Collect the verbs of the commands that ``cli.main`` brings to a good end meanwhile."""
    from dcgan_lib import cli

    done, main = set(), cli.main

    def noting(arguments: Sequence[str] | None = None) -> int:
        status = main(arguments)
        if arguments and status == 0:
            done.add(arguments[0])
        return status

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "main", noting)
        yield done


@pytest.fixture
def commands_run() -> Callable[[], AbstractContextManager[set[str]]]:
    """Hand the collector to the test that checks it."""
    return _commands_run


@pytest.fixture(autouse=True)
def drives_what_it_says(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test that is marked as driving a command fail if it brought none to a good end."""
    verbs = {verb for mark in request.node.iter_markers("drives") for verb in mark.args}
    if not verbs:
        yield
        return
    with _commands_run() as done:
        yield
    if missing := verbs - done:
        pytest.fail(f"marked as driving dcgan {', '.join(sorted(missing))}, which did not end well")
