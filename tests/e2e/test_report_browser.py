"""The report in a real browser without a network."""

import pytest

from holdfast_slo.phases import PhaseWindow
from holdfast_slo.report import write_bundle
from support import verdicts
from support.chromium import chromium
from support.verdicts import START_S


@pytest.fixture
async def browser():
    async with chromium() as running:
        yield running


async def opened(browser, folder, verdict, width=1200, fleet=(), timeline=None, **options):
    """The page of a verdict, with what it complained of and asked the network for."""
    write_bundle(folder, verdict, timeline or verdicts.timeline(fleet=fleet))
    context = await browser.new_context(viewport={"width": width, "height": 900}, **options)
    await context.set_offline(True)
    page = await context.new_page()
    complaints, requests = [], []

    async def only_files(route):
        url = route.request.url
        if url.startswith(("file:", "data:")):
            await route.continue_()
        else:
            requests.append(url)
            await route.abort()

    await page.route("**/*", only_files)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto((folder / "report.html").as_uri())
    return page, complaints, requests


@pytest.mark.parametrize("name", ["passing", "failing", "undecided", "unclean"])
async def test_the_verdict_stands_first_and_nothing_is_fetched(browser, tmp_path, name):
    verdict = getattr(verdicts, name)()
    page, complaints, requests = await opened(browser, tmp_path, verdict)
    heading = page.locator("h1").first
    assert await page.locator("#verdict").inner_text() == verdict.verdict
    box = await heading.bounding_box()
    assert box["y"] < 150
    for reason in verdict.reasons:
        assert await page.get_by_text(reason.code, exact=True).first.is_visible()
    assert (complaints, requests) == ([], [])


@pytest.mark.parametrize(("width", "size"), [(1200, "wide"), (390, "narrow")])
async def test_the_plot_has_a_visible_labelled_band_for_each_fault(browser, tmp_path, width, size):
    page, _, _ = await opened(browser, tmp_path, verdicts.passing(), width)
    plot = page.locator(f"svg.latency.{size}")
    assert await plot.is_visible()
    for fault in verdicts.FAULT_IDS:
        band = await plot.locator(f'rect[data-fault="{fault}"]').bounding_box()
        assert band["width"] > 3
        assert band["height"] > 100
        assert await plot.get_by_text(fault, exact=True).first.is_visible()
    for series in ("p50", "p95", "p99"):
        line = await plot.locator(f"path.{series}").bounding_box()
        assert line["width"] > width / 2
        assert line["height"] > 20
    slow = await plot.locator('rect[data-fault="slow-net"]').bounding_box()
    crash = await plot.locator('rect[data-fault="crash"]').bounding_box()
    assert slow["x"] + slow["width"] < crash["x"]


@pytest.mark.parametrize(("width", "size"), [(1200, "wide"), (390, "narrow")])
async def test_a_fleet_has_plots_of_its_work_and_of_who_is_there(browser, tmp_path, width, size):
    page, complaints, _ = await opened(browser, tmp_path, verdicts.passing(), width, verdicts.fleet())
    assert await page.get_by_text("Agents heard from").first.is_visible()
    work, fleet = page.locator(f"svg.work.{size}"), page.locator(f"svg.fleet.{size}")
    assert (await work.locator("rect.error").count(), await work.locator("rect.good").count()) == (10, 55)
    line = await fleet.locator("path.series").bounding_box()
    assert line["width"] > width / 2
    assert line["height"] > 15
    assert complaints == []


async def test_a_run_without_a_fleet_has_no_plots_of_one(browser, tmp_path):
    page, _, _ = await opened(browser, tmp_path, verdicts.passing())
    assert await page.locator("#fleet").count() == 0


@pytest.mark.parametrize("width", [390, 1200])
async def test_labels_of_faults_close_to_each_other_do_not_overlap(browser, tmp_path, width):
    names = ["fault:" + "-".join(["a", "rather", "long", "name", str(number)]) for number in range(4)]
    windows = [PhaseWindow(name, START_S + 10 + 8 * n, START_S + 14 + 8 * n) for n, name in enumerate(names)]
    timeline = verdicts.timeline().model_copy(update={"phases": tuple(windows)})
    page, _, _ = await opened(browser, tmp_path, verdicts.passing(), width, timeline=timeline)
    labels = page.locator(f"svg.latency.{'wide' if width > 640 else 'narrow'} .of-fault")
    boxes = [await labels.nth(number).bounding_box() for number in range(await labels.count())]
    assert len(boxes) == len(names)
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
            assert apart or abs(one["y"] - other["y"]) >= 10


@pytest.mark.parametrize("width", [360, 390, 768, 1200])
async def test_no_width_scrolls_sideways(browser, tmp_path, width):
    page, _, _ = await opened(browser, tmp_path, verdicts.failing(), width)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_dark_mode_is_dark_and_light_mode_light(browser, tmp_path):
    background = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number).reduce((a, b) => a + b)"
    dark, _, _ = await opened(browser, tmp_path, verdicts.passing(), color_scheme="dark")
    light, _, _ = await opened(browser, tmp_path, verdicts.passing(), color_scheme="light")
    assert await dark.evaluate(background) < 120
    assert await light.evaluate(background) > 650
