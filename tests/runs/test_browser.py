"""TensorBoard in a browser: what a person sees of two runs. Needs Chromium and its driver; skipped without them."""

import re
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from configs import SMALL
from helpers.processes import ON_THE_CPU, at_most
from ptb.config import flatten, override
from ptb.runs.folder import RunFolder
from ptb.runs.tensorboard import LEARNING_RATE, TEST, TRAIN, VALID, Curves

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
SECONDS = 60


def write_run(folder, rate, test, success):
    """Write the curves of a run of three epochs whose learning rate ends at 0.043."""
    values = {"model": "small", "seed": 1, "precision": "float32"} | flatten(override(SMALL, {"learning_rate": rate}))
    folder.mkdir(parents=True)
    curves = Curves(RunFolder(folder), [], values, published_valid=120.7)
    for epoch, (train, valid) in enumerate([(270.0, 180.0), (150.0, 155.0), (110.0, 125.0)], 1):
        curves.add(LEARNING_RATE, 2323 * epoch, rate if epoch < 3 else 0.043)
        curves.add(VALID, 2323 * epoch, valid)
        curves.add(TRAIN, 2323 * epoch, train)
    curves.add(TEST, 3 * 2323, test)
    curves.close(success)


@pytest.fixture(scope="module")
def tensorboard(tmp_path_factory):
    """The address of TensorBoard, which shows two runs."""
    logs = tmp_path_factory.mktemp("runs")
    write_run(logs / "whole", 1.0, 114.4, True)
    write_run(logs / "stopped", 0.5, 119.9, False)
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logs}", "--port=0", "--load_fast=false"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ON_THE_CPU)
    try:
        with at_most(SECONDS):
            address = next(match[0] for line in process.stderr if (match := re.search(r"http://localhost:\d+/", line)))
            while urllib.request.urlopen(f"{address}data/runs").read() == b"[]":  # it is still loading them
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def browser():
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1000"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def text_of(browser, address, tab, *awaited):
    """Return the text of a tab once all `awaited` texts are in it."""
    browser.get("about:blank")
    browser.get(f"{address}#{tab}")
    body = lambda: browser.find_element(By.TAG_NAME, "body").text  # noqa: E731
    WebDriverWait(browser, SECONDS, ignored_exceptions=[Exception]).until(lambda _: all(text in body() for text in awaited))
    return body()


def test_the_table_of_runs_has_hyperparameters_scores_and_status(browser, tensorboard):
    text = text_of(browser, tensorboard, "hparams", "test perplexity", "114.40", "119.90")
    assert "0.043" not in text  # the last learning rate is no hyperparameter
    rows = {
        name: re.search(rf"^\S+/{name}\n((?:.*\n?){{1,8}})", text, re.MULTILINE)[1].split() for name in ("whole", "stopped")
    }
    assert "1.0000" in rows["whole"] and "0.50000" in rows["stopped"]
    for name in ("model", "seed", "model.layers", "optimizer.learning_rate", "test perplexity", "valid perplexity"):
        assert name in text
    assert rows["whole"].index("114.40") < rows["whole"].index("125.00")


def test_the_curves_begin_with_perplexity(browser, tensorboard):
    text = text_of(browser, tensorboard, "timeseries", "/published_valid", "/train")
    assert re.findall(r"^(\w+?)\d+ cards?$", text, re.MULTILINE)[0] == "perplexity"  # groups, in their order
    assert "whole" in text and "whole/train" not in text


def test_one_chart_has_train_valid_and_published(browser, tensorboard):
    text_of(browser, tensorboard, "custom_scalars", "perplexity by epoch", "Matches (6)")  # three curves of two runs
