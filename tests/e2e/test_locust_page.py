"""Locust's own page, in a real browser, with the engine under two workers."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from support.chromium import chromium
from support.echo_server_process import EchoServer
from support.locust_processes import REGISTRY, Cluster, Page, saturated

USERS = 6
LOCUSTFILE = f"""
from holdfast_loadtests.locusting.users import EngineUser

HELD = "{{{{agents.id}}}}"


class Lives(EngineUser):
    tables = {{"agents": "agents.csv"}}
    load = {{
        "scenarios": [
            {{
                "name": "life",
                "rows": "agents",
                "steps": [
                    {{"call": "{REGISTRY}/RegisterAgent", "request": {{"parent": "namespaces/l", "agent_id": HELD}}}},
                    {{"call": "{REGISTRY}/DeregisterAgent", "request": {{"name": "namespaces/l/agents/" + HELD}}}},
                ],
            }}
        ]
    }}
"""


@pytest.fixture
async def browser():
    async with chromium() as running:
        yield running


async def text_of(page, tab):
    await page.get_by_role("tab", name=tab).click()
    return await page.locator("table").first.inner_text()


async def until(holds, what):
    for _ in range(600):
        if await holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within 60 s: {what}")


async def test_a_test_is_started_changed_stopped_and_read_from_the_page(browser, tmp_path):
    """Users ramp up and down as the page says; its tabs show the merged percentiles and every generator."""
    (tmp_path / "agents.csv").write_text("id\n" + "".join(f"a{number}\n" for number in range(USERS)))
    served = Page()
    with EchoServer() as server, Cluster(tmp_path, LOCUSTFILE, 2, *served.arguments, "--csv", "run") as cluster:
        await asyncio.to_thread(cluster.master.says, "Starting web interface")
        await asyncio.to_thread(cluster.master.says, "2 workers connected")
        page = await browser.new_page(viewport={"width": 1400, "height": 800})
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(served.url)
        await page.get_by_label("Number of users").fill(str(USERS))
        await page.get_by_label("Ramp up").fill(str(USERS))
        await page.get_by_label("Host").fill(f"grpc://{server.address}")
        await page.get_by_role("button", name="Start").click()

        async def shows_calls():
            shown = await text_of(page, "Percentiles")
            return f"{REGISTRY}/DeregisterAgent" in shown and "all methods" in shown

        await until(shows_calls, "percentiles by method on the page")
        generators = await text_of(page, "Load generators")
        assert generators.count("ready") == 2
        assert "1/2" in generators
        assert "2/2" in generators

        await page.get_by_role("button", name="Edit").click()
        await page.get_by_label("Number of users").fill("2")
        await page.locator("button[type=submit]").click()
        await asyncio.to_thread(cluster.master.says, r'"Lives": 2\} \(2 total users\)')

        await page.get_by_role("button", name="Stop").click()
        await asyncio.to_thread(cluster.master.says, r"Wrote .*run_holdfast.json")
        found = json.loads((tmp_path / "run_holdfast.json").read_text())

        async def shows_the_end():
            return f"{found['calls']}" in await text_of(page, "Percentiles")

        await until(shows_the_end, "all calls on the page after the end")
        await page.get_by_role("button", name="New").wait_for(timeout=60_000)
        shown = await text_of(page, "Percentiles")
        assert f"{found['latency_ms']['p99']:.3f}" in shown
        assert f"{found['latency_ms']['max']:.3f}" in shown
        if pictures := os.environ.get("HOLDFAST_PICTURES"):
            await page.screenshot(path=Path(pictures) / "percentiles.png")
            await text_of(page, "Load generators")
            await page.screenshot(path=Path(pictures) / "generators.png")
            await text_of(page, "Statistics")
            await page.screenshot(path=Path(pictures) / "statistics.png")
        assert complaints == []

        codes = {(one["method"].rpartition("/")[2], one["code"]): one["count"] for one in found["codes"]}
        counts = server.counts()
        assert codes["RegisterAgent", "OK"] == counts["RegisterAgent/OK"] > USERS
        assert "RegisterAgent/AlreadyExists" not in counts  # a row is held by one user of one worker at a time
        assert all(worker["calls"] > 0 for worker in found["workers"])
        cluster.master.terminate()
        assert found["inconclusive"] == saturated(found)
        assert cluster.master.code() == (2 if saturated(found) else 0), cluster.output
