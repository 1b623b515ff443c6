"""Which ticket of its conversation does a message go into: the open one, or a new one?"""

from __future__ import annotations

from collections.abc import Sequence

from zenpy.lib.api_objects import Ticket

from connectors.base import Ambiguous, DeliveryError, Receipt, Transient
from connectors.zendesk.answers import Unread
from connectors.zendesk.client import Client
from connectors.zendesk.message import Message
from connectors.zendesk.options import ZendeskOptions
from connectors.zendesk.session import Changed, Closed, Full, Gone, KeyTaken

#: How often the tickets are read because somebody else wrote first.
READINGS = 3
#: How many of a conversation's tickets are searched for what an earlier attempt wrote.
SEARCHED = 5


class Conversation:
    """Brings one message into the tickets of its conversation."""

    def __init__(
        self, client: Client, message: Message, *, options: ZendeskOptions, repeat: bool
    ) -> None:
        """*repeat*: an earlier attempt may have written the message, so look for it first."""
        self._client = client
        self._message = message
        self._options = options
        self._repeat = repeat
        #: Ids of tickets that take no more comments.
        self._full: set[int] = set()
        #: Ids of tickets that this delivery has tagged.
        self._tagged: set[int] = set()

    def write(self, thread: str | None) -> Receipt | None:
        """Write the message; None if it opens no ticket and none is open.

        *thread* is the conversation's last ticket. Raises :class:`DeliveryError`.
        """
        for _ in range(READINGS):
            try:
                return self._write_once(thread)
            except Full as error:
                overtaken: Exception = error
            except _Overtaken as error:
                overtaken = error
        raise Transient(f"the ticket changes faster than it can be read: {overtaken}", status=409)

    def _write_once(self, thread: str | None) -> Receipt | None:
        last = self._client.ticket(thread, self._message) if thread else None
        if last is not None and self._takes(last) and not self._repeat:
            return self._found([last]) or self._comment(last)
        tickets = self._client.tickets(self._message)
        if last is not None:
            # It may be archived, and then the list does not name it.
            tickets = [last, *(each for each in tickets if each.id != last.id)]
        found = self._found(tickets)
        if found is not None:
            return found
        current = next((each for each in tickets if self._takes(each)), None)
        if current is not None:
            return self._comment(current)
        if self._message.opens_nothing:
            return None
        return self._create(after=next(filter(self._is_over, tickets), None))

    def _takes(self, ticket: Ticket) -> bool:
        """Say whether the message goes into *ticket* rather than into a new one."""
        if ticket.status == "solved" and self._message.from_customer:
            return self._options.when_solved == "reopen" and not self._message.opens_nothing
        return not self._is_over(ticket)

    def _is_over(self, ticket: Ticket) -> bool:
        return ticket.status == "closed" or ticket.id in self._full

    def _found(self, tickets: Sequence[Ticket]) -> Receipt | None:
        """Say where in *tickets* an earlier attempt left the message."""
        # Descriptions first: they were read already, and comments may be thousands.
        for in_comments in (False, True) if self._repeat else (False,):
            for ticket in tickets[:SEARCHED]:
                found = self._client.find(self._message, ticket, in_comments=in_comments)
                if found is not None:
                    return found
        return None

    def _comment(self, ticket: Ticket) -> Receipt:
        try:
            self._tag(ticket)
            return self._client.comment(self._message, ticket)
        except Full:
            self._full.add(ticket.id)
            raise
        except (Closed, Gone, Changed) as error:
            raise _Overtaken(str(error)) from error
        except Unread as error:
            return self._look_up([ticket], unread=error)

    def _tag(self, ticket: Ticket) -> None:
        """Add our tags before the comment, because triggers look at them when it comes."""
        present = {str(each).casefold() for each in ticket.tags or []}
        missing = {each for each in self._options.tags if each.casefold() not in present}
        if missing and ticket.id not in self._tagged:
            self._client.add_tags(ticket, sorted(missing))
            self._tagged.add(ticket.id)
            raise _Overtaken("tags were added")

    def _create(self, *, after: Ticket | None) -> Receipt:
        client, message = self._client, self._message
        person = client.people.find(message)
        if person is None and self._options.unknown_customer == "skip":
            return Receipt(reference="skipped: no end user has the customer's number")
        try:
            return client.create(
                message, person=person or client.people.make(message), after=after
            )
        except Unread as error:
            return self._look_up(None, unread=error)
        except KeyTaken as error:
            # Somebody changed the options or the customer's profile after an earlier attempt.
            found = self._found(client.tickets(message))
            if found is not None:
                return found
            raise Transient(
                "an earlier attempt asked for a ticket with other fields, and Zendesk remembers "
                f"it for two hours: {error}",
                status=error.status,
            ) from error

    def _look_up(self, tickets: Sequence[Ticket] | None, *, unread: Unread) -> Receipt:
        """Find what was just written with an answer that could not be read.

        Searches all tickets of the conversation unless *tickets* are given.
        """
        self._repeat = True
        try:
            found = self._found(
                self._client.tickets(self._message) if tickets is None else tickets
            )
        except DeliveryError as error:
            # Any other kind would say that nothing was written.
            raise Ambiguous(f"{unread}, and looking for it failed: {error}") from error
        if found is None:
            raise unread
        return found


class _Overtaken(Exception):
    """The ticket is no longer what we read."""
