"""How deliveries that are dead or held look in a terminal, and as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relay.commands.output import print_json, short_ids
from relay.commands.tables import Column, is_terminal, print_lines, print_table, table_time
from relay.rules.recovery import FoundDelivery
from relay.shapes.stopped import group_json, stopped_json
from relay.store import Queries
from relay.store.recover import ReasonGroup

_STOPPED = (
    Column(name="received", extra=2),
    Column(name="message", extra=3, least=12),
    Column(name="customer", extra=1),
    Column(name="destination", least=11),
    Column(name="state", least=6),
    Column(name="reason", least=24),
    Column(name="delivery"),
)
_GROUPS = (
    Column(name="number"),
    Column(name="destination"),
    Column(name="reason", least=24, wraps=True),
    Column(name="oldest", extra=1),
    Column(name="newest"),
)


def show_stopped(queries: Queries, deliveries: Iterable[FoundDelivery], *, as_json: bool) -> None:
    """Print deliveries that are dead or held."""
    if as_json:
        for each in deliveries:
            print_json(stopped_json(each))
        return
    shown = list(deliveries)
    ids = short_ids(queries, [each.id for each in shown])
    rows = [
        {
            "received": table_time(each.received_at),
            "message": each.message_id or each.event_id,
            "customer": each.customer or "",
            "destination": each.destination,
            "state": _stopped_state(each),
            "reason": each.reason or "",
            "delivery": ids[each.id],
        }
        for each in shown
    ]
    print_table(_STOPPED, rows, empty="nothing is dead or held")
    if is_terminal() and any(each.parks for each in shown):
        print_lines(["", "* its conversation waits until it is resent or settled"])


def _stopped_state(delivery: FoundDelivery) -> str:
    if not delivery.parks:
        return delivery.state
    return f"{delivery.state}{' *' if is_terminal() else ', stops its conversation'}"


def show_groups(groups: Sequence[ReasonGroup], *, as_json: bool) -> None:
    """Print stopped deliveries by destination and reason, and how to resend a group."""
    if as_json:
        for group in groups:
            print_json(group_json(group))
        return
    rows = [
        {
            "number": f"{group.number:,}",
            "destination": group.destination,
            "reason": group.reason,
            "oldest": table_time(group.oldest),
            "newest": table_time(group.newest),
        }
        for group in groups
    ]
    print_table(_GROUPS, rows, empty="nothing is dead or held")
    if groups:
        how = "gofax-relay resend --destination NAME --reason 'REASON' [--dry-run]"
        print_lines(["", f"all of a group: {how}"])
