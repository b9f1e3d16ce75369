"""Lists: filtered, in pages that neither repeat nor skip, and bound to the query they began with."""

import asyncio
import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, Reason
from holdfast.registry.v1.agent_pb2 import Agent, AgentTier, Capability
from holdfast.registry.v1.agent_registry_service_pb2 import ListAgentsRequest
from holdfast.registry.v1.lease_service_pb2 import GetLeaseRequest, Lease, ListLeasesRequest
from holdfast.store.memory import MemoryStore
from support.replica import CALL, PARENT, Replica, replica


async def test_a_filter_is_applied_before_pages_are_cut() -> None:
    async with replica() as here:
        for number in range(30):
            await here.register(f"a{number:02}", agent={"labels": {"even": "yes"}} if number % 2 == 0 else {})
        evens = [f"a{number:02}" for number in range(0, 30, 2)]
        assert await here.listed("labels.even = yes", page_size=4) == evens
        assert await here.listed("labels.even = no", page_size=4) == []


async def test_expired_agents_are_listed_only_for_a_filter_that_names_liveness() -> None:
    async with replica() as here:
        await here.register("stays", ttl_s=60)
        await here.register("goes", ttl_s=1)
        await here.pass_time(1.3)
        assert await here.listed() == ["stays"]
        assert await here.listed("display_name = ''") == ["stays"]
        assert await here.listed("liveness = EXPIRED") == ["goes"]
        assert await here.listed("liveness:*", page_size=1) == ["goes", "stays"]


async def test_a_token_is_refused_for_any_other_query() -> None:
    """Another namespace, another filter, a forged or a damaged token, or one of another call."""
    async with replica() as here:
        for number in range(3):
            await here.register(f"a{number}")
        first = await here.agents.list_agents(ListAgentsRequest(parent=PARENT, page_size=1), CALL)
        token = first.next_page_token
        for wrong in (
            {"parent": "namespaces/other", "page_token": token},
            {"parent": PARENT, "filter": "labels:x", "page_token": token},
            {"parent": PARENT, "page_token": token[:-4]},
            {"parent": PARENT, "page_token": "A" * len(token)},
            {"parent": PARENT, "page_token": "é"},
        ):
            with pytest.raises(HoldfastError) as refused:
                await here.agents.list_agents(ListAgentsRequest(**wrong), CALL)
            assert refused.value.reason is Reason.INVALID_FIELD
            assert refused.value.field_violations[0].field == "page_token"
        with pytest.raises(HoldfastError, match="another query"):
            await here.leases.list_leases(ListLeasesRequest(parent=PARENT, page_token=token), CALL)


async def test_a_token_cannot_be_made_up_from_what_everybody_knows() -> None:
    """Query, name and form of a token are public; what it is signed with is not, and is another in another store."""
    async with replica() as here, replica() as elsewhere:
        for each in (here, elsewhere):
            await each.register("a")
            await each.register("b")
        first = ListAgentsRequest(parent=PARENT, page_size=1)
        honest = base64.urlsafe_b64decode((await here.agents.list_agents(first, CALL)).next_page_token)
        last = f"{PARENT}/agents/a".encode()
        assert honest.endswith(last)
        public = hashlib.sha256(f"ListAgents {PARENT} \0".encode() + last).digest()
        signatures = [public[:8], public[: len(honest) - len(last)]]
        forged = [base64.urlsafe_b64encode(signature + last).decode() for signature in signatures]
        for token in (*forged, (await elsewhere.agents.list_agents(first, CALL)).next_page_token):
            with pytest.raises(HoldfastError) as refused:
                await here.agents.list_agents(ListAgentsRequest(parent=PARENT, page_token=token), CALL)
            assert refused.value.field_violations[0].field == "page_token"


class SharedStore(MemoryStore):
    """One that several replicas write to."""

    is_shared = True


async def test_a_token_is_good_on_every_replica_and_after_a_restart() -> None:
    """Also where two replicas make their first pages at once: one key is kept, and both sign with it."""
    store = SharedStore()
    first = ListAgentsRequest(parent=PARENT, page_size=1)
    async with replica(store) as one, replica(store) as other:
        await one.register("a")
        await one.register("b")
        await other.registry.view.reached(store.revision)
        pages = await asyncio.gather(*(each.agents.list_agents(first, CALL) for each in (one, other)))
        tokens = {page.next_page_token for page in pages}
        assert len(tokens) == 1
    async with replica(store) as later:
        request = ListAgentsRequest(parent=PARENT, page_token=tokens.pop())
        assert [agent.name[-1] for agent in (await later.agents.list_agents(request, CALL)).agents] == ["b"]
        assert len((await store.range("secret:"))[1]) == 1


async def test_agents_are_filtered_by_every_field() -> None:
    """What each field of an agent says of it finds it, and the opposite does not."""
    fields = {
        "display_name": "Reviewer",
        "tier": AgentTier.AGENT_TIER_2_SPECIALIST,
        "domain": "development/backend",
        "capabilities": [Capability(id="review")],
        "labels": {"team": "core"},
    }
    async with replica() as here:
        agent = await here.register("a", agent=fields)
        held = {
            **{
                name: f"{name} = {getattr(agent, name)}" for name in ("name", "uid", "domain", "fence", "lease", "etag")
            },
            **{name: f"{name} = {getattr(agent, name).ToJsonString()}" for name in ("create_time", "update_time")},
            "display_name": "display_name = Reviewer",
            "tier": "tier = 2_SPECIALIST",
            "capabilities": "capabilities:review",
            "coordination_priority": "coordination_priority = 50",
            "max_concurrency": "max_concurrency = 1",
            "status": "status = IDLE",
            "liveness": "liveness = LIVE",
            "admin_state": "admin_state = ENABLED",
            "breaker_state": "breaker_state = CLOSED",
            "labels": "labels.team = core",
            "revision": "revision = 1",
        }
        assert set(held) == set(Agent.DESCRIPTOR.fields_by_name)
        for only in held.values():
            assert await here.listed(only) == ["a"]
            assert await here.listed(f"NOT {only}") == []


async def test_a_page_is_of_one_revision_while_others_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that takes many turns answers with what there was at the revision it names."""
    monkeypatch.setattr("holdfast.filtering.compiler.MESSAGES_AT_ONCE", 5)
    async with replica() as here:
        await here.batch({f"a{number:03}": {"labels": {"odd": str(number % 2)}} for number in range(1000)})
        request = ListAgentsRequest(parent=PARENT, filter="labels.odd = 1 NOT name:paged", page_size=1000)
        asked = asyncio.create_task(here.agents.list_agents(request, CALL))
        while not asked.done():
            await here.deregister(f"a{1000 - here.registry.store.revision:03}")  # from the end
        page = await asked
        assert here.registry.store.revision > page.revision + 5
        assert len(page.agents) == (1001 - page.revision) // 2


CHANGES = st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 15)), max_size=8)


@settings(max_examples=60)
@given(there=st.sets(st.integers(0, 15)), changes=st.lists(CHANGES, max_size=8), size=st.integers(1, 5))
async def test_pages_show_each_agent_that_stays_exactly_once(
    there: set[int], changes: list[list[tuple[str, int]]], size: int
) -> None:
    """Whatever comes and goes between pages: none is there twice, and none that was there all along is missed."""
    async with replica() as here:
        for number in there:
            await here.register(f"a{number:02}")
        present, always = set(there), set(there)
        seen: list[str] = []
        request, steps = ListAgentsRequest(parent=PARENT, page_size=size), iter(changes)
        while True:
            page = await here.agents.list_agents(request, CALL)
            seen += [agent.name[-2:] for agent in page.agents]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
            for sign, number in next(steps, []):
                if sign == "+" and number not in present:
                    await here.register(f"a{number:02}")
                    present.add(number)
                elif sign == "-" and number in present:
                    await here.deregister(f"a{number:02}")
                    present.discard(number)
                    always.discard(number)
        assert seen == sorted(set(seen))
        assert {f"{number:02}" for number in always} <= set(seen)


async def listed_leases(here: Replica, only: str = "", page_size: int = 0) -> list[Lease]:
    found: list[Lease] = []
    request = ListLeasesRequest(parent=PARENT, filter=only, page_size=page_size)
    while True:
        page = await here.leases.list_leases(request, CALL)
        found += page.leases
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


async def test_a_lease_is_read_with_what_hangs_on_it() -> None:
    """Its agents, its TTL, its fence, and when it ends if nobody keeps it, which a keepalive moves."""
    async with replica() as here:
        lease = await here.grant(ttl_s=30)
        for agent_id in ("b", "a"):
            await here.register(agent_id, agent={"lease": lease.name})
        await here.pass_time(10)
        await here.keep(lease.name)
        await here.pass_time(5)
        read = (await here.leases.get_lease(GetLeaseRequest(name=lease.name), CALL)).lease
        assert (read.name, read.fence, read.ttl.seconds) == (lease.name, lease.fence, 30)
        assert list(read.agents) == [f"{PARENT}/agents/a", f"{PARENT}/agents/b"]
        assert read.expire_time.ToMilliseconds() == pytest.approx((here.clock() + 25) * 1000, abs=1)


async def test_a_lease_that_ended_is_not_found_and_says_how() -> None:
    async with replica() as here:
        lease = await here.grant()
        await here.revoke(lease.name)
        with pytest.raises(HoldfastError, match="revoked at revision 2") as refused:
            await here.leases.get_lease(GetLeaseRequest(name=lease.name), CALL)
        assert refused.value.reason is Reason.LEASE_NOT_FOUND
        assert await listed_leases(here) == []


async def test_leases_are_listed_in_order_in_pages_and_by_filter() -> None:
    async with replica() as here:
        granted = [await here.grant(ttl_s=30 + number) for number in range(9)]
        await here.register("one", agent={"lease": granted[3].name})
        in_order = sorted(lease.name for lease in granted)
        assert [lease.name for lease in await listed_leases(here, page_size=2)] == in_order
        long = {lease.name for lease in granted if lease.ttl.seconds > 34}
        assert {lease.name for lease in await listed_leases(here, "ttl > 34s", page_size=2)} == long
        assert [lease.name for lease in await listed_leases(here, "agents:*")] == [granted[3].name]


async def test_leases_are_filtered_by_every_field() -> None:
    """What each field of a lease says of it finds it, and the opposite does not."""
    async with replica() as here:
        lease = await here.grant(ttl_s=30)
        await here.register("one", agent={"lease": lease.name})
        [shown] = await listed_leases(here)
        held = {
            "name": f"name = {lease.name}",
            "ttl": "ttl = 30s",
            "expire_time": f"expire_time = {shown.expire_time.ToJsonString()}",
            "fence": f"fence = {lease.fence}",
            "agents": f"agents:{PARENT}/agents/one",
        }
        assert set(held) == set(Lease.DESCRIPTOR.fields_by_name)
        for only in held.values():
            assert await listed_leases(here, only) == [shown]
            assert await listed_leases(here, f"NOT {only}") == []


async def test_a_page_of_leases_counts_what_hangs_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends where as much has been looked at as is allowed, though it is not full."""
    monkeypatch.setattr("holdfast.service.leases.LOOKED_AT_MAX", 5)
    async with replica() as here:
        first, second = sorted([(await here.grant()).name for _ in range(2)])
        for number in range(4):
            await here.register(f"a{number}", agent={"lease": first})
        page = await here.leases.list_leases(ListLeasesRequest(parent=PARENT), CALL)
        assert [lease.name for lease in page.leases] == [first]
        assert [lease.name for lease in await listed_leases(here)] == [first, second]


async def test_a_page_of_leases_looks_at_few_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that matches the last alone finds it, through pages that may be empty."""
    monkeypatch.setattr("holdfast.service.leases.LOOKED_AT_MAX", 3)
    async with replica() as here:
        names = sorted([(await here.grant()).name for _ in range(10)])
        assert [lease.name for lease in await listed_leases(here, f"name = {names[-1]}")] == [names[-1]]
