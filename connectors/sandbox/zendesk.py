"""A stand-in of Zendesk Support: sign-in, end users, tickets and their comments.

Further calls play the agent and the passing of time:
``PUT sandbox/settings`` switches limits and lags on, ``POST sandbox/tickets/7/archive`` (or
``close``, ``fill``, ``merge``, ``delete``) does what people and automations do,
``POST sandbox/revoke`` ends every access token and ``POST sandbox/forget`` every idempotency key.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, render_template, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError

from connectors.sandbox.records import Records
from connectors.sandbox.zendesk_access import Access
from connectors.sandbox.zendesk_limits import Clock, Limits, Settings
from connectors.sandbox.zendesk_page import POLICY, Thread, thread_of
from connectors.sandbox.zendesk_rules import Json, Refusal, cut_page, payload, timestamp
from connectors.sandbox.zendesk_tickets import Tickets
from connectors.sandbox.zendesk_users import Users, customer_of

View = Callable[..., ResponseReturnValue]


class StandIn:
    """One Zendesk account in memory; safe to use from many threads."""

    def __init__(self, records: Records, *, clock: Clock = time.monotonic) -> None:
        self._records = records
        self._lock = threading.RLock()
        #: How the account behaves; may be changed at any time.
        self.settings = Settings()
        self._access = Access(self.settings, clock=clock)
        self._limits = Limits(self.settings, clock=clock)
        self._users = Users(self.settings, new_id=records.new_id, clock=clock)
        agent = {"name": "Sandbox agent", "email": "agent@example.com", "role": "admin"}
        self._me: int = self._users.add(agent)["id"]
        self._tickets = Tickets(
            self._users, me=self._me, new_id=records.new_id, note=self._note_comment
        )

    def blueprint(self) -> Blueprint:
        """Build the account's routes, to be mounted at any prefix."""
        routes = Blueprint("zendesk", __name__)
        api: list[tuple[str, str, View]] = [
            ("GET", "users/me", self._get_me),
            ("GET", "users/search", self._search_users),
            ("GET", "users/show_many", self._show_users),
            ("POST", "users/create_or_update", self._create_or_update_user),
            ("POST", "users", self._create_user),
            ("GET", "users/<int:number>", self._get_user),
            ("PUT", "users/<int:number>", self._update_user),
            ("GET", "users/<int:number>/identities", self._list_identities),
            ("POST", "users/<int:number>/identities", self._create_identity),
            ("PUT", "users/<int:number>/tags", self._add_user_tags),
            ("DELETE", "users/<int:number>/tags", self._remove_user_tags),
            ("GET", "tickets", self._list_tickets),
            ("POST", "tickets", self._create_ticket),
            ("GET", "tickets/<int:number>", self._get_ticket),
            ("PUT", "tickets/<int:number>", self._update_ticket),
            ("DELETE", "tickets/<int:number>", self._delete_ticket),
            ("PUT", "tickets/<int:number>/tags", self._add_ticket_tags),
            ("POST", "tickets/<int:number>/merge", self._merge_tickets),
            ("GET", "tickets/<int:number>/comments", self._list_comments),
            ("GET", "tickets/<int:number>/comments/count", self._count_comments),
        ]
        for method, path, view in api:
            guarded = self._guarded(view)
            for rule in (f"/api/v2/{path}", f"/api/v2/{path}.json"):
                routes.add_url_rule(rule, view.__name__, guarded, methods=[method])
        others: list[tuple[str, str, View]] = [
            ("POST", "/oauth/tokens", self._grant),
            ("PUT", "/sandbox/settings", self._change_settings),
            ("POST", "/sandbox/tickets/<int:number>/<act>", self._play),
            ("POST", "/sandbox/revoke", self._revoke),
            ("POST", "/sandbox/forget", self._forget),
            ("GET", "/agent/tickets/<int:number>", self._show_ticket),
        ]
        for method, path, view in others:
            routes.add_url_rule(path, view.__name__, self._answering(view), methods=[method])
        return routes

    def page(self) -> Sequence[Thread]:
        """Return all tickets, newest first, for the sandbox's page."""
        with self._lock:
            return tuple(
                thread_of(ticket, self._tickets.comments(ticket["id"]), users=self._users)
                for ticket in reversed(self._tickets.all())
            )

    def tickets(self) -> list[Json]:
        """Return all tickets as the API shows them, oldest first."""
        with self._lock:
            return [dict(ticket) for ticket in self._tickets.all()]

    def users(self) -> list[Json]:
        """Return all end users as the API shows them, oldest first."""
        with self._lock:
            return self._users.end_users()

    def add_user(self, fields: Json) -> Json:
        """Make a profile, as staff do."""
        with self._lock:
            return dict(self._users.add(fields))

    def close_ticket(self, number: int) -> None:
        """Close a ticket, as an automation does."""
        with self._lock:
            self._tickets.close(number)

    def archive_ticket(self, number: int) -> None:
        """Close a ticket and leave it out of lists, as Zendesk does with old ones."""
        with self._lock:
            self._tickets.archive(number)

    def fill_ticket(self, number: int) -> None:
        """Comment on a ticket until it takes no more."""
        with self._lock:
            self._tickets.fill(number)

    def merge_ticket(self, number: int, *, into: int | None = None) -> None:
        """Close a ticket as an agent's merge does."""
        with self._lock:
            self._tickets.merge(number, into)

    def revoke_tokens(self) -> None:
        """End the life of every access token that was given out."""
        with self._lock:
            self._access.revoke()

    def forget_keys(self) -> None:
        """Forget every idempotency key, as Zendesk does after two hours."""
        with self._lock:
            self._tickets.forget_keys()

    def _answering(self, view: View) -> Callable[..., Any]:
        @wraps(view)
        def answer(**arguments: Any) -> ResponseReturnValue:
            try:
                with self._lock:
                    return view(**arguments)
            except Refusal as refusal:
                return jsonify(refusal.body), refusal.status, refusal.headers

        return answer

    def _guarded(self, view: View) -> Callable[..., Any]:
        def enter(**arguments: int) -> ResponseReturnValue:
            self._access.let_in(anonymous=view == self._get_me)
            self._limits.count_request()
            return view(**arguments)

        answering = self._answering(enter)

        def limited(**arguments: int) -> Response:
            response = make_response(answering(**arguments))
            response.headers.update(self._limits.headers())
            return response

        return limited

    def _grant(self) -> ResponseReturnValue:
        return jsonify(self._access.grant(payload()))

    def _get_me(self) -> ResponseReturnValue:
        if request.authorization is None:
            nobody = {"id": None, "name": "Anonymous user", "email": "invalid@example.com"}
            return jsonify(user=nobody | {"role": "end-user"})
        return jsonify(user=self._users[self._me])

    def _get_user(self, number: int) -> ResponseReturnValue:
        return jsonify(user=self._users[number])

    def _search_users(self) -> ResponseReturnValue:
        query, external_id = request.args.get("query"), request.args.get("external_id")
        if external_id is not None:
            return jsonify(cut_page(self._users.by_external_id([external_id]), "users"))
        return jsonify(cut_page(self._users.search(query or ""), "users"))

    def _show_users(self) -> ResponseReturnValue:
        found = self._users.by_external_id(request.args.get("external_ids", "").split(","))
        return jsonify(users=found, next_page=None, previous_page=None, count=len(found))

    def _create_user(self) -> ResponseReturnValue:
        return jsonify(user=self._users.add(payload("user"))), 201

    def _create_or_update_user(self) -> ResponseReturnValue:
        user, new = self._users.create_or_update(payload("user"))
        return jsonify(user=user), 201 if new else 200

    def _update_user(self, number: int) -> ResponseReturnValue:
        self._limits.count_user_update(number)
        return jsonify(user=self._users.change(number, payload("user")))

    def _list_identities(self, number: int) -> ResponseReturnValue:
        return jsonify(cut_page(self._users.identities(number), "identities"))

    def _create_identity(self, number: int) -> ResponseReturnValue:
        asked = payload("identity")
        if asked.get("type") != "phone_number":
            raise Refusal(400, "BadRequest", "the sandbox knows phone numbers only")
        return jsonify(identity=self._users.add_phone(number, asked["value"])), 201

    def _add_user_tags(self, number: int) -> ResponseReturnValue:
        return self._tag_user(number, present=True)

    def _remove_user_tags(self, number: int) -> ResponseReturnValue:
        return self._tag_user(number, present=False)

    def _tag_user(self, number: int, *, present: bool) -> ResponseReturnValue:
        self._limits.count_user_update(number)
        user = self._users[number]
        before = set(user["tags"])
        after = self._users.tag(number, payload()["tags"], present=present)
        for tag in sorted(before ^ set(after)):
            self._records.add(
                system="zendesk",
                kind="tag",
                text=f"{'+' if present else '-'}{tag}",
                conversation=customer_of(user),
                reference=f"user {number}",
            )
        return jsonify(tags=after)

    def _list_tickets(self) -> ResponseReturnValue:
        return jsonify(cut_page(self._tickets.listed(request.args.get("external_id")), "tickets"))

    def _get_ticket(self, number: int) -> ResponseReturnValue:
        return jsonify(ticket=self._tickets[number])

    def _create_ticket(self) -> ResponseReturnValue:
        key = request.headers.get("Idempotency-Key")
        made, lookup = self._tickets.create(payload("ticket"), key=key)
        return jsonify(made), 201, {"x-idempotency-lookup": lookup} if lookup else {}

    def _update_ticket(self, number: int) -> ResponseReturnValue:
        asked = payload("ticket")
        self._limits.count_ticket_update(number)
        return jsonify(self._tickets.update(number, asked))

    def _add_ticket_tags(self, number: int) -> ResponseReturnValue:
        self._limits.count_ticket_update(number)
        return jsonify(tags=self._tickets.add_tags(number, payload()))

    def _delete_ticket(self, number: int) -> ResponseReturnValue:
        self._tickets.delete(number)
        return "", 204

    def _merge_tickets(self, number: int) -> ResponseReturnValue:
        for source in payload()["ids"]:
            self._tickets.merge(source, number)
        return jsonify(job_status={"id": f"merge-{number}", "status": "completed"})

    def _list_comments(self, number: int) -> ResponseReturnValue:
        return jsonify(cut_page(self._tickets.comments(number), "comments"))

    def _count_comments(self, number: int) -> ResponseReturnValue:
        counted = {"value": len(self._tickets.comments(number)), "refreshed_at": timestamp()}
        return jsonify(count=counted)

    def _change_settings(self) -> ResponseReturnValue:
        try:
            changed = Settings.model_validate(self.settings.model_dump() | payload())
        except ValidationError as error:
            faults = json.loads(error.json(include_url=False, include_context=False))
            return jsonify(error=faults), 400
        for name in Settings.model_fields:
            setattr(self.settings, name, getattr(changed, name))
        return jsonify(self.settings.model_dump())

    def _play(self, number: int, act: str) -> ResponseReturnValue:
        acts: dict[str, Callable[[], None]] = {
            "close": lambda: self._tickets.close(number),
            "archive": lambda: self._tickets.archive(number),
            "fill": lambda: self._tickets.fill(number),
            "delete": lambda: self._tickets.delete(number),
            "merge": lambda: self._tickets.merge(number, request.args.get("into", type=int)),
        }
        if act not in acts:
            raise Refusal(404, "InvalidEndpoint", f"not one of {', '.join(acts)}")
        acts[act]()
        return "", 204

    def _revoke(self) -> ResponseReturnValue:
        self._access.revoke()
        return "", 204

    def _forget(self) -> ResponseReturnValue:
        self._tickets.forget_keys()
        return "", 204

    def _show_ticket(self, number: int) -> ResponseReturnValue:
        threads = [thread for thread in self.page() if thread.number == number]
        html = render_template("zendesk.html", zendesk=threads)
        return html, 200 if threads else 404, {"Content-Security-Policy": POLICY}

    def _note_comment(
        self, ticket: Json, *, author: int, text: str, kind: str, ours: bool
    ) -> None:
        """Record what was delivered; agents' own comments are no deliveries."""
        if ours or self._users[author]["role"] == "end-user":
            self._records.add(
                system="zendesk",
                kind=kind,
                text=text,
                conversation=customer_of(self._users[ticket["requester_id"]]),
                reference=str(ticket["id"]),
            )
