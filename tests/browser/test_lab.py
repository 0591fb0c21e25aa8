"""The live explorer, the box drawer and the picker in a real JupyterLab: the page drives Python,
and the other way."""

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest

from .conftest import ROOT, Visit

pytestmark = pytest.mark.browser
TOKEN = "trial"
CELLS = [
    "import base64\nfrom dcgan_lib.widgets.explorer import Explorer\n\n"
    "explorer = Explorer('faces', seed=3)\nexplorer",
    "print(explorer.pad, explorer.values, explorer.seed)",
    "explorer.values = {'age': 0.5}\nexplorer.seed = 12",
    "print(base64.b64encode(explorer.picture.tobytes()).decode())",
]
BOX_CELLS = [
    "from dcgan_lib.widgets.box_drawer import BoxDrawer\n\n"
    "drawer = BoxDrawer('rooms', num_images=3)\ndrawer",
    "print([drawer.index, drawer.boxes])",
    "drawer.boxes = [[2, 0, 0, 9, 9]]\ndrawer.index = 2",
]
PICK_CELLS = [
    "from dcgan_lib.widgets.picker import ExemplarPicker\n\n"
    "picker = ExemplarPicker(count=6)\npicker",
    "import json\n\nprint(json.dumps(picker.picked))",
]
SANDBOX_CELLS = [
    "from dcgan_lib.widgets.sandbox import Sandbox\n\n"
    "sandbox = Sandbox(target='moons', seed=3)\nsandbox",
    "print(sandbox)",
    "sandbox.beta1 = 0.9",
]
JUDGE_CELLS = [
    "from dcgan_lib.widgets.judge import Judge\n\njudge = Judge()\njudge",
    "print(judge, round(judge.probability, 2))",
]
# Run one cell by Lab's own command, and return the text it printed.
RUN_CELL = """async (index) => {
  const panel = jupyterapp.shell.currentWidget;
  panel.content.activeCellIndex = index;
  await jupyterapp.commands.execute("notebook:run-cell");
  const outputs = panel.content.widgets[index].model.outputs.toJSON();
  return outputs.map((output) => output.text ?? "").flat().join("");
}"""
PIXELS = """() => {
  const canvas = document.querySelector(".dcgan-explorer canvas.dx-picture");
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""
ACTIVE = "jupyterapp.shell.currentWidget.content.activeCellIndex"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a JupyterLab in a folder of its own and return its address."""
    pytest.importorskip("jupyterlab")
    folder = tmp_path_factory.mktemp("lab")
    notebooks = {
        "trial": CELLS,
        "boxes": BOX_CELLS,
        "picks": PICK_CELLS,
        "sandbox": SANDBOX_CELLS,
        "judge": JUDGE_CELLS,
    }
    for name, cells in notebooks.items():
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells]
        )
        notebook.metadata = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        nbformat.write(notebook, folder / f"{name}.ipynb")
    places = {
        f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    settings = {
        "IdentityProvider.token": TOKEN,
        "ServerApp.root_dir": str(folder),
        "ServerApp.port": 0,
        "LabApp.expose_app_in_browser": True,
        "LabApp.extension_manager": "readonly",
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *options]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {
        **os.environ,
        **places,
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": paths,
    }
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield wait_for_lab(server, folder)
        finally:
            server.terminate()
            server.wait(30)


def wait_for_lab(server: subprocess.Popen, folder: Path) -> str:
    """Return the server's address once it answers."""
    for _ in range(240):
        assert server.poll() is None, (folder / "lab.log").read_text()
        for path in (folder / "runtime").glob("jpserver-*.json"):
            try:
                address = json.loads(path.read_text())["url"]
                urllib.request.urlopen(f"{address}api?token={TOKEN}", timeout=5).close()
                return address
            except (ValueError, OSError):
                pass  # half written, or not listening yet
        time.sleep(0.25)
    raise AssertionError((folder / "lab.log").read_text())


def test_explorer_drives_python_and_is_driven(lab, browser):
    with Visit(browser, width=1400) as visit:
        page = open_notebook(visit, lab, "trial")
        page.evaluate(RUN_CELL, 0)
        page.locator(".dcgan-explorer[data-ready=free]").wait_for()
        pad, slider = (
            page.locator(".dx-pad"),
            page.locator(".dcgan-explorer input[type=range]").first,
        )

        first = page.evaluate(PIXELS)
        pad.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate(ACTIVE) == 0, "an arrow key reached Lab"
        page.wait_for_function(
            f"before => String(({PIXELS})()) !== before", arg=",".join(map(str, first))
        )
        page.wait_for_timeout(500)  # the traits' way to Python
        pad_now, values, seed = eval_printed(page.evaluate(RUN_CELL, 1))
        assert pad_now[0] > 0 and pad_now[1] != 0 and seed == 3
        assert len(values) == 1 and next(iter(values.values())) > 0

        before = page.evaluate(PIXELS)
        page.evaluate(RUN_CELL, 2)
        page.wait_for_function(
            f"before => String(({PIXELS})()) !== before", arg=",".join(map(str, before))
        )
        page.wait_for_timeout(500)
        exact = np.frombuffer(base64.b64decode(page.evaluate(RUN_CELL, 3)), np.uint8).reshape(-1, 3)
        shown = np.array(page.evaluate(PIXELS), np.uint8).reshape(-1, 4)[:, :3]
        apart = np.abs(shown.astype(int) - exact)
        assert apart.mean() <= 1 and apart.max() <= 6
        assert page.locator(".dcgan-explorer input.dx-seed").input_value() == "12"


def open_notebook(visit: Visit, lab: str, name: str) -> object:
    """Open a notebook in a workspace of its own, where no other one is restored, and wait for its
    kernel."""
    page = visit.page
    page.set_default_timeout(120_000)
    page.goto(f"{lab}lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}")
    page.wait_for_function(
        "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    return page


def test_boxes_reach_python_and_come_back(lab, browser):
    with Visit(browser, width=1400) as visit:
        page = open_notebook(visit, lab, "boxes")
        page.evaluate(RUN_CELL, 0)
        page.locator(".dcgan-explorer[data-ready='0']").wait_for()
        page.locator(".dx-stage[role=application]").focus()
        for key in ("Enter", "ArrowRight", "ArrowDown", "PageDown"):
            page.keyboard.press(key)
        page.locator(".dcgan-explorer[data-ready='1']").wait_for()
        assert page.evaluate(ACTIVE) == 0, "an arrow key reached Lab"
        page.wait_for_timeout(500)  # the traits' way to Python
        assert json.loads(page.evaluate(RUN_CELL, 1)) == [1, [[0, 22, 22, 43, 43]]]
        page.evaluate(RUN_CELL, 2)
        page.locator(".dcgan-explorer[data-ready='2']").wait_for()
        assert "1 here; 1 in 1 of 3 pictures" in page.locator(".dx-hint").inner_text()


def test_ticks_reach_python(lab, browser):
    with Visit(browser, width=1400) as visit:
        page = open_notebook(visit, lab, "picks")
        page.evaluate(RUN_CELL, 0)
        page.get_by_role("checkbox", name="4", exact=True).wait_for()
        for number in ("1", "4"):
            page.get_by_role("checkbox", name=number, exact=True).check()
        page.get_by_role("button", name="later").click()
        page.get_by_role("checkbox", name="7", exact=True).check()
        page.get_by_text("A: 1, 4, 7").wait_for()
        page.get_by_role("combobox", name="concept").select_option("B")
        page.get_by_text("B: none yet").wait_for()
        page.get_by_role("checkbox", name="8", exact=True).check()
        page.get_by_text("B: 8 ").wait_for()
        assert json.loads(page.evaluate(RUN_CELL, 1)) == {"A": [1, 4, 7], "B": [8], "C": []}


def test_sandbox_trains_and_follows_python(lab, browser):
    with Visit(browser, width=1400) as visit:
        page = open_notebook(visit, lab, "sandbox")
        page.evaluate(RUN_CELL, 0)
        page.locator(".dcgan-sandbox[data-ready]").wait_for()
        page.get_by_label("Width").focus()
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(ACTIVE) == 0, "an arrow key reached Lab"
        page.get_by_role("button", name="Play").click()
        rounds = "document.querySelector('.dcgan-sandbox').dataset.rounds"
        page.wait_for_function(f"{rounds} > 20")
        page.wait_for_timeout(500)  # the traits' way to Python
        printed = page.evaluate(RUN_CELL, 1)
        assert printed.strip() == "Sandbox(target='moons', width=16, seed=3)"
        page.evaluate(RUN_CELL, 2)
        settings = "document.querySelector('.dcgan-sandbox').sandbox.settings"
        page.wait_for_function(f"{settings}.beta1 === 0.9")


def test_judge_hears_the_same_opinion_in_python(lab, browser):
    with Visit(browser, width=1400) as visit:
        page = open_notebook(visit, lab, "judge")
        page.evaluate(RUN_CELL, 0)
        page.locator(".dcgan-judge[data-ready]").wait_for()
        page.get_by_role("button", name="Draw the digit 4").click()
        page.wait_for_timeout(1_000)  # the traits' way to Python
        shown = float(page.get_attribute(".dcgan-judge", "data-opinion"))
        name, _, probability = page.evaluate(RUN_CELL, 1).strip().rpartition(" ")
        assert name == "Judge(checkpoint='mnist', 3 strokes)"
        assert float(probability) == pytest.approx(shown, abs=0.01)


def eval_printed(text: str) -> tuple[list[float], dict[str, float], int]:
    """Read the pad, the sliders and the seed that the notebook printed."""
    pad, _, rest = text.partition("] ")
    values, _, seed = rest.partition("} ")
    return json.loads(pad + "]"), json.loads(values.replace("'", '"') + "}"), int(seed)
