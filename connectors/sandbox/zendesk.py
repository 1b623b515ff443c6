"""A stand-in of Zendesk Support: sign-in, end users, tickets and their comments."""

from __future__ import annotations

import html
import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from hashlib import sha256
from typing import Any

from flask import Blueprint, jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue

from connectors.sandbox.records import Records
from connectors.sandbox.zendesk_rules import (
    Json,
    Line,
    Refusal,
    Thread,
    customer_of,
    cut_page,
    invalid,
    is_same,
    mentions,
    payload,
    timestamp,
    user_fields,
)

#: Names that a caller may use to meet a refusal.
REVOKED = "revoked"
STATUSES = frozenset({"new", "open", "pending", "hold", "solved", "closed"})
#: What an update or a new ticket may set as it is.
PLAIN_FIELDS = ("subject", "priority", "group_id", "assignee_id", "external_id", "type")
LIFE_IN_SECONDS = range(300, 172_801)


class StandIn:
    """One Zendesk account in memory; safe to use from many threads."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._lock = threading.RLock()
        self._users: dict[int, Json] = {}
        self._tickets: dict[int, Json] = {}
        self._comments: dict[int, list[Json]] = {}
        self._creations: dict[str, tuple[str, Json]] = {}
        self._tokens: dict[str, float] = {}
        #: Seconds that access tokens live; None: as long as the caller asks for.
        self.token_life: float | None = None
        agent = {"name": "Sandbox agent", "email": "agent@example.com", "role": "admin"}
        self._me = self._add_user(agent)["id"]

    def blueprint(self) -> Blueprint:
        """Build the routes, to be mounted wherever the account is to live."""
        routes = Blueprint("zendesk", __name__)
        api: list[tuple[str, str, Callable[..., ResponseReturnValue]]] = [
            ("GET", "users/me", self._get_me),
            ("GET", "users/search", self._search_users),
            ("GET", "users/show_many", self._show_users),
            ("POST", "users/create_or_update", self._create_or_update_user),
            ("POST", "users", self._create_user),
            ("GET", "tickets", self._list_tickets),
            ("POST", "tickets", self._create_ticket),
            ("GET", "tickets/<int:number>", self._get_ticket),
            ("PUT", "tickets/<int:number>", self._update_ticket),
            ("DELETE", "tickets/<int:number>", self._delete_ticket),
            ("GET", "tickets/<int:number>/comments", self._list_comments),
        ]
        for method, path, view in api:
            guarded = self._guarded(view)
            for rule in (f"/api/v2/{path}", f"/api/v2/{path}.json"):
                routes.add_url_rule(rule, view.__name__, guarded, methods=[method])
        grant = self._answering(self._grant)
        routes.add_url_rule("/oauth/tokens", "grant", grant, methods=["POST"])
        routes.add_url_rule("/agent/tickets/<int:number>", "ticket", self._show_ticket)
        return routes

    def page(self) -> Sequence[Thread]:
        """Return all tickets, newest first, for the sandbox's page."""
        with self._lock:
            return tuple(self._thread(number) for number in sorted(self._tickets, reverse=True))

    def tickets(self) -> list[Json]:
        """Return all tickets as the API shows them, oldest first."""
        with self._lock:
            return [dict(ticket) for ticket in self._tickets.values()]

    def users(self) -> list[Json]:
        """Return all end users as the API shows them, oldest first."""
        with self._lock:
            return [dict(user) for user in self._users.values() if user["role"] == "end-user"]

    def close_ticket(self, number: int, *, merged: bool = False) -> None:
        """Close a ticket, as an automation or (*merged*) an agent's merge does."""
        with self._lock:
            ticket = self._tickets[number]
            ticket["status"] = "closed"
            if merged:
                ticket["tags"] = [*ticket["tags"], "closed_by_merge"]

    def expire_tokens(self) -> None:
        """End the life of every access token that was given out."""
        with self._lock:
            self._tokens = dict.fromkeys(self._tokens, 0.0)

    def _answering(self, view: Callable[..., ResponseReturnValue]) -> Callable[..., Any]:
        @wraps(view)
        def answer(**arguments: int) -> ResponseReturnValue:
            try:
                with self._lock:
                    return view(**arguments)
            except Refusal as refusal:
                return jsonify(refusal.body), refusal.status

        return answer

    def _guarded(self, view: Callable[..., ResponseReturnValue]) -> Callable[..., Any]:
        def enter(**arguments: int) -> ResponseReturnValue:
            anonymous = request.authorization is None and view == self._get_me
            if not anonymous and not self._is_known():
                raise Refusal(401, "Couldn't authenticate you")
            return view(**arguments)

        return self._answering(enter)

    def _is_known(self) -> bool:
        given = request.authorization
        if given is None:
            return False
        if given.type == "basic":
            user, password = given.username or "", given.password or ""
            return user.endswith("/token") and bool(password) and password != REVOKED
        token = given.token or ""
        if token.startswith("granted-"):
            return time.monotonic() < self._tokens.get(token, 0.0)
        return given.type == "bearer" and token not in ("", REVOKED)

    def _grant(self) -> ResponseReturnValue:
        asked = payload()
        if asked.get("grant_type") != "client_credentials":
            raise Refusal(400, "unsupported_grant_type", error_description="unknown grant_type")
        given = asked.get("client_id"), asked.get("client_secret")
        if not all(given) or REVOKED in given:
            raise Refusal(401, "invalid_client", error_description="Client authentication failed")
        life = asked.get("expires_in", 1800)
        if life not in LIFE_IN_SECONDS:
            raise Refusal(400, "invalid_request", error_description="expires_in is out of range")
        life = life if self.token_life is None else self.token_life
        token = f"granted-{secrets.token_urlsafe(24)}"
        self._tokens[token] = time.monotonic() + life
        return jsonify(
            access_token=token, token_type="bearer", scope=asked.get("scope", ""), expires_in=life
        )

    def _get_me(self) -> ResponseReturnValue:
        if request.authorization is None:
            nobody = {"id": None, "name": "Anonymous user", "email": "invalid@example.com"}
            return jsonify(user=nobody | {"role": "end-user"})
        return jsonify(user=self._users[self._me])

    def _search_users(self) -> ResponseReturnValue:
        query = request.args.get("query", "")
        found = [user for user in self._users.values() if mentions(user, query)]
        return jsonify(cut_page(found, "users"))

    def _show_users(self) -> ResponseReturnValue:
        wanted = request.args.get("external_ids", "").casefold().split(",")
        users = self._users.values()
        found = [user for user in users if (user["external_id"] or "").casefold() in wanted]
        return jsonify(users=found, next_page=None, previous_page=None, count=len(found))

    def _create_user(self) -> ResponseReturnValue:
        return jsonify(user=self._add_user(payload("user"))), 201

    def _create_or_update_user(self) -> ResponseReturnValue:
        asked = payload("user")
        known = self._matching_user(asked)
        if known is None:
            return jsonify(user=self._add_user(asked)), 201
        known |= user_fields(asked)
        return jsonify(user=known), 200

    def _matching_user(self, asked: Json) -> Json | None:
        for user in self._users.values():
            if is_same(user["external_id"], asked.get("external_id")):
                return user
            if is_same(user["email"], asked.get("email")):
                return user
        return None

    def _add_user(self, asked: Json) -> Json:
        if not asked.get("name"):
            raise invalid("name", "Name: is too short (minimum one character)")
        number = self._records.new_id()
        user: Json = {"id": number, "email": None, "external_id": None, "phone": None}
        user |= {"role": "end-user", "active": True, "suspended": False, "created_at": timestamp()}
        self._users[number] = user | user_fields(asked)
        return self._users[number]

    def _list_tickets(self) -> ResponseReturnValue:
        wanted = request.args.get("external_id")
        tickets = self._tickets.values()
        found = [each for each in tickets if wanted is None or each["external_id"] == wanted]
        return jsonify(cut_page(found, "tickets"))

    def _get_ticket(self, number: int) -> ResponseReturnValue:
        return jsonify(ticket=self._ticket(number))

    def _delete_ticket(self, number: int) -> ResponseReturnValue:
        self._ticket(number)
        del self._tickets[number]
        return "", 204

    def _create_ticket(self) -> ResponseReturnValue:
        asked = payload("ticket")
        key = request.headers.get("Idempotency-Key")
        fingerprint = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        if key is not None and key in self._creations:
            return self._created_before(key, fingerprint)
        created = self._new_ticket(asked)
        if key is not None:
            self._creations[key] = (fingerprint, json.loads(json.dumps(created)))
        return jsonify(created), 201, {"x-idempotency-lookup": "miss"} if key else {}

    def _created_before(self, key: str, fingerprint: str) -> ResponseReturnValue:
        first, created = self._creations[key]
        if fingerprint != first:
            raise Refusal(
                400,
                "IdempotentRequestError",
                "Request parameters don't match the given idempotency key",
            )
        return jsonify(created), 201, {"x-idempotency-lookup": "hit"}

    def _new_ticket(self, asked: Json) -> Json:
        comment = asked.get("comment") or {}
        if not (comment.get("body") or comment.get("html_body")):
            raise invalid("base", "Description: cannot be blank")
        requester = asked.get("requester_id", self._me)
        self._expect_user(requester, field="requester", name="Requester")
        inherited = self._tags_to_inherit(asked.get("via_followup_source_id"))
        tags: list[str] = asked.get("tags") or inherited
        number, now = self._records.new_id(), timestamp()
        ticket: Json = {name: asked.get(name) for name in PLAIN_FIELDS}
        ticket |= {
            "id": number,
            "url": url_for("zendesk._get_ticket", number=number, _external=True),
            "via": {"channel": "api", "source": {"from": {}, "to": {}, "rel": None}},
            "status": asked.get("status") or "new",
            "description": comment.get("body"),
            "requester_id": requester,
            "submitter_id": comment.get("author_id", requester),
            "tags": sorted(set(tags)),
            "created_at": now,
            "updated_at": now,
        }
        if source := asked.get("via_followup_source_id"):
            ticket["via"]["source"] = {"from": {"ticket_id": source}, "rel": "follow_up"}
        self._tickets[number], self._comments[number] = ticket, []
        return {"ticket": ticket, "audit": self._comment(ticket, comment, asked, kind="ticket")}

    def _tags_to_inherit(self, source: int | None) -> list[str]:
        if source is None:
            return []
        ticket = self._tickets.get(source)
        if ticket is None or ticket["status"] != "closed":
            raise invalid("base", f"Follow-up: ticket {source} is not closed")
        return list(ticket["tags"])

    def _update_ticket(self, number: int) -> ResponseReturnValue:
        asked, ticket = payload("ticket"), self._ticket(number)
        if ticket["status"] == "closed":
            raise invalid("status", "Status: closed prevents ticket update")
        if asked.get("status", "open") not in STATUSES:
            raise invalid("status", "Status: is not valid")
        comment = asked.get("comment")
        if comment is not None:
            self._expect_user(comment.get("author_id", self._me), field="author", name="Author")
        self._change(ticket, asked)
        return jsonify(ticket=ticket, audit=self._comment(ticket, comment, asked, kind="comment"))

    def _change(self, ticket: Json, asked: Json) -> None:
        ticket |= {name: asked[name] for name in (*PLAIN_FIELDS, "status") if name in asked}
        kept: list[str] = asked["tags"] if "tags" in asked else ticket["tags"]
        tags = {*kept, *asked.get("additional_tags", [])}
        ticket["tags"] = sorted(tags - set(asked.get("remove_tags", [])))
        ticket["updated_at"] = timestamp()

    def _comment(self, ticket: Json, comment: Json | None, asked: Json, *, kind: str) -> Json:
        """Append *comment*, if there is one, and return the audit of the whole change."""
        number, now = self._records.new_id(), timestamp()
        metadata = {"system": {}, "custom": (asked.get("metadata") or {}).get("custom", {})}
        audit: Json = {"id": number, "ticket_id": ticket["id"], "created_at": now}
        audit |= {"author_id": self._me, "metadata": metadata, "events": []}
        if not comment:
            return audit
        text = comment.get("body") or ""
        writer: int = ticket["requester_id"] if kind == "ticket" else self._me
        author = comment.get("author_id", writer)
        said = {
            "id": self._records.new_id(),
            "type": "Comment",
            "author_id": author,
            "body": text,
            "plain_body": text,
            "html_body": f'<div class="zd-comment" dir="auto">{html.escape(text)}</div>',
            "public": comment.get("public", True),
            "attachments": [],
            "audit_id": number,
        }
        self._comments[ticket["id"]].append(said | {"metadata": metadata, "created_at": now})
        self._note(ticket, author=author, text=text, kind=kind)
        return audit | {"events": [said]}

    def _note(self, ticket: Json, *, author: int, text: str, kind: str) -> None:
        """Put a customer's message into the records; what agents write is no delivery."""
        user = self._users[author]
        if user["role"] == "end-user":
            self._records.add(
                system="zendesk",
                kind=kind,
                text=text,
                conversation=customer_of(user),
                reference=str(ticket["id"]),
            )

    def _list_comments(self, number: int) -> ResponseReturnValue:
        self._ticket(number)
        return jsonify(cut_page(self._comments[number], "comments"))

    def _show_ticket(self, number: int) -> ResponseReturnValue:
        threads = [thread for thread in self.page() if thread.number == number]
        return render_template("_zendesk.html", zendesk=threads), 200 if threads else 404

    def _ticket(self, number: int) -> Json:
        if number not in self._tickets:
            raise Refusal(404, "RecordNotFound", "Not found")
        return self._tickets[number]

    def _expect_user(self, number: object, *, field: str, name: str) -> None:
        if number not in self._users:
            raise invalid(field, f"{name}: {name} is not valid")

    def _thread(self, number: int) -> Thread:
        ticket = self._tickets[number]
        return Thread(
            number=number,
            subject=ticket["subject"] or "",
            status=ticket["status"],
            tags=tuple(ticket["tags"]),
            requester=self._users[ticket["requester_id"]]["name"],
            lines=tuple(
                Line(
                    author=self._users[each["author_id"]]["name"],
                    text=each["body"],
                    public=each["public"],
                    created_at=each["created_at"],
                )
                for each in self._comments[number]
            ),
        )
