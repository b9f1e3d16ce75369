"""Decisions of one replica in a line each."""

from functools import partial
from typing import Any

from holdfast import validation
from holdfast.coordination.v1 import decision_service_pb2 as pb
from holdfast.errors import Reason
from support.refusing import Refusing, refusing
from support.replica import CALL, PARENT, Replica


def agent(name: str) -> str:
    """The full name of an agent of `PARENT`."""
    return f"{PARENT}/agents/{name}"


def electors(names: str) -> list[pb.Elector]:
    """Electors by ids with blanks between them."""
    return [pb.Elector(agent=agent(name)) for name in names.split()]


async def opened(here: Replica, names: str = "a b c d", **fields: Any) -> pb.Decision:
    """CreateDecision, by consensus on yes and no unless told."""
    usual: dict[str, Any] = {
        "question": "ship it?",
        "options": [pb.DecisionOption(id="yes"), pb.DecisionOption(id="no")],
        "method": pb.DECISION_METHOD_CONSENSUS,
        "electors": electors(names),
    }
    request_id, parent = fields.pop("request_id", ""), fields.pop("parent", PARENT)
    request = pb.CreateDecisionRequest(
        parent=parent, decision=pb.Decision(**{**usual, **fields}), request_id=request_id
    )
    validation.check(request)
    return (await here.decisions.create_decision(request, CALL)).decision


async def vote(here: Replica, decision: pb.Decision, name: str, option: str = "yes", **fields: Any) -> pb.Decision:
    """CastVote."""
    request = pb.CastVoteRequest(decision=decision.name, agent=agent(name), option=option, **fields)
    validation.check(request)
    return (await here.decisions.cast_vote(request, CALL)).decision


async def read(here: Replica, decision: pb.Decision) -> pb.Decision:
    """GetDecision."""
    return (await here.decisions.get_decision(pb.GetDecisionRequest(name=decision.name), CALL)).decision


def refused(reason: Reason, here: Replica, decision: pb.Decision | None = None) -> Refusing:
    """The block is refused for a reason, and leaves the record as it was."""
    return refusing(reason, here, partial(read, here, decision) if decision is not None else None)
