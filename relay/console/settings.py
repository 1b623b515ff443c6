"""Settings: what runs with which config, what people did, and what is kept of a customer."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

from flask import Blueprint, abort, render_template, request
from flask.typing import ResponseReturnValue

from relay.acts import erasing, exporting
from relay.api.identity import person
from relay.api.services import services
from relay.config.effective import effective, version_of
from relay.console.pages import needs, needs_password
from relay.node import version
from relay.rules import payload
from relay.rules.access import Scope
from relay.shapes.receipt import is_ours, read_receipt, written_receipt
from relay.store.nodes import Nodes
from relay.store.secret import store_secret

#: Entries of the audit log on one page.
ENTRIES = 50


def add(console: Blueprint) -> None:
    """Add the pages."""

    @console.get("/settings")
    @needs(Scope.READ)
    def settings() -> ResponseReturnValue:
        found = services()
        return render_template(
            "settings.html",
            version=version(),
            config_version=version_of(found.config),
            config=json.dumps(effective(found.config), indent=2, ensure_ascii=False),
            nodes=found.shared.get("nodes", Nodes(found.database).nodes),
            connectors=sorted(each.name for each in entry_points(group="gofax_relay.connectors")),
            store=found.config.store_name,
            endpoints=found.config.endpoints,
        )

    @console.get("/settings/audit")
    @needs(Scope.ADMIN)
    def audit() -> ResponseReturnValue:
        before = request.args.get("before", "")
        if before and not before.isdecimal():
            abort(404, "There is no such page.")
        who, what = (request.args.get(each, "").strip() for each in ("who", "what"))
        entries = services().actions.newest(
            limit=ENTRIES + 1,
            before=min(int(before), 2**62) if before else None,
            who=payload.clean(who) or None,
            what=payload.clean(what) or None,
        )
        return render_template(
            "audit.html",
            entries=entries[:ENTRIES],
            more=entries[ENTRIES - 1].seq if len(entries) > ENTRIES else None,
            who=who,
            what=what,
        )

    @console.get("/settings/privacy")
    @needs(Scope.ADMIN)
    def privacy() -> ResponseReturnValue:
        return render_template("privacy.html")

    @console.post("/settings/erase")
    @needs(Scope.ADMIN)
    @needs_password
    def erase() -> ResponseReturnValue:
        given = payload.clean(request.form.get("number", "")).strip()
        number = payload.number(given) or given
        if not number:
            fault = "write the whole number, such as +61400000123"
            return render_template("privacy.html", number=given, fault=fault), 422
        confirmed = request.form.get("confirmed") == "1"
        removal = erasing.erase(services().database, number, person(_why()), dry_run=not confirmed)
        services().shared.forget()
        proof = removal.receipt and written_receipt(removal.receipt)
        return render_template("privacy.html", number=number, removal=removal, receipt=proof)

    @console.post("/settings/receipt")
    @needs(Scope.ADMIN)
    @needs_password
    def receipt() -> ResponseReturnValue:
        try:
            given = read_receipt(request.form.get("receipt", ""))
        except ValueError as error:
            return render_template("privacy.html", fault=str(error)), 422
        if not is_ours(given, store_secret(services().database)):
            fault = "another store signed this receipt, or it was changed since"
            return render_template("privacy.html", fault=fault), 422
        headers = {
            "Content-Disposition": 'attachment; filename="receipt.json"',
            "Content-Type": "application/json",
        }
        return written_receipt(given), 200, headers

    @console.post("/settings/export")
    @needs(Scope.ADMIN)
    @needs_password
    def export() -> ResponseReturnValue:
        given = payload.clean(request.form.get("number", "")).strip()
        number = payload.number(given) or given
        if not number:
            fault = "write the whole number, such as +61400000123"
            return render_template("privacy.html", number=given, fault=fault), 422
        found = services()
        exported = exporting.export(found.config, found.database, number, person(_why()))
        if exported is None:
            fault = "there is nothing of this number"
            return render_template("privacy.html", number=given, fault=fault), 422
        headers = {
            "Content-Disposition": 'attachment; filename="export.json"',
            "Content-Type": "application/json",
        }
        return json.dumps(exported, indent=2), 200, headers


def _why() -> str:
    return payload.clean(request.form.get("why", "").strip())
