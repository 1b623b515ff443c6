"""The stand-in of Zendesk's users: profiles, identities, tags, and a search that lags."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from connectors.sandbox import zendesk_search
from connectors.sandbox.zendesk_limits import Clock, Settings
from connectors.sandbox.zendesk_rules import Json, Refusal, invalid, is_same, not_found, timestamp

#: Fields of a user that a caller may set.
PLAIN_FIELDS = ("name", "email", "external_id", "role")


class Users:
    """The profiles of one account."""

    def __init__(
        self, settings: Settings, *, new_id: Callable[[], int], clock: Clock = time.monotonic
    ) -> None:
        self._settings = settings
        self._new_id = new_id
        self._clock = clock
        self._users: dict[int, Json] = {}
        self._identities: dict[int, list[Json]] = {}
        self._indexed_at: dict[int, float] = {}

    def __contains__(self, number: object) -> bool:
        return number in self._users

    def __getitem__(self, number: int) -> Json:
        if number not in self._users:
            raise not_found()
        return self._users[number]

    def end_users(self) -> list[Json]:
        """Return copies of all customers' profiles, oldest first."""
        return [dict(user) for user in self._users.values() if user["role"] == "end-user"]

    def add(self, asked: Json) -> Json:
        """Make a profile."""
        if not asked.get("name"):
            raise invalid("name", "Name: is too short (minimum one character)")
        if any(is_same(each["external_id"], asked.get("external_id")) for each in self._all()):
            raise invalid("external_id", "External has already been taken")
        number, now = self._new_id(), timestamp()
        self._users[number] = {
            "id": number,
            "name": "",
            "email": None,
            "external_id": None,
            "phone": None,
            "shared_phone_number": None,
            "role": "end-user",
            "tags": [],
            "active": True,
            "suspended": False,
            "verified": False,
            "created_at": now,
            "updated_at": now,
        }
        self._identities[number] = []
        self._indexed_at[number] = self._clock()
        return self.change(number, asked)

    def change(self, number: int, asked: Json) -> Json:
        """Set what *asked* says of a profile."""
        user = self[number]
        user |= {name: asked[name] for name in PLAIN_FIELDS if name in asked}
        if asked.get("phone"):
            self.add_phone(number, asked["phone"])
        user["updated_at"] = timestamp()
        return user

    def create_or_update(self, asked: Json) -> tuple[Json, bool]:
        """Change the profile that has the external id or address asked for, or make one."""
        for user in self._all():
            if is_same(user["external_id"], asked.get("external_id")) or is_same(
                user["email"], asked.get("email")
            ):
                return self.change(user["id"], asked), False
        return self.add(asked), True

    def add_phone(self, number: int, phone: str) -> Json:
        """Add a number to a profile: a direct line, unless another profile has it."""
        user = self[number]
        identity = {"id": self._new_id(), "user_id": number, "type": "phone_number"}
        identity |= {"value": phone, "verified": False, "primary": user["phone"] is None}
        taken = any(self._has_phone(each, phone) for each in self._users if each != number)
        if user["phone"] is None:
            user |= {"phone": phone, "shared_phone_number": taken}
        if not taken and not self._has_phone(number, phone, shown=False):
            self._identities[number].append(identity)
            self._indexed_at[number] = self._clock()
        user["updated_at"] = timestamp()
        return identity

    def identities(self, number: int) -> list[Json]:
        """Return what identifies a user."""
        self[number]
        return self._identities[number]

    def tag(self, number: int, tags: Iterable[str], *, present: bool) -> list[str]:
        """Add tags to a profile or remove them, and return those it has now."""
        user = self[number]
        if not self._settings.user_tags:
            raise Refusal(403, "Forbidden", "User tagging is not enabled for this account")
        before, named = set(user["tags"]), {each.casefold() for each in tags}
        user["tags"] = sorted(before | named if present else before - named)
        user["updated_at"] = timestamp()
        return list(user["tags"])

    def by_external_id(self, wanted: Iterable[str]) -> list[Json]:
        """Return the users with one of the ids, in any case."""
        ids = {each.casefold() for each in wanted if each}
        return [each for each in self._all() if (each["external_id"] or "").casefold() in ids]

    def search(self, query: str) -> list[Json]:
        """Return the users that the index finds by *query*, in the vendor's search syntax."""
        latest = self._clock() - self._settings.search_lag
        known = [each for each in self._all() if self._indexed_at[each["id"]] <= latest]
        finds = zendesk_search.search(query)
        return [each for each in known if finds(each, self._phones(each))]

    def _all(self) -> list[Json]:
        return list(self._users.values())

    def _phones(self, user: Json) -> list[str]:
        shown = [user["phone"]] if user["phone"] else []
        return shown + [each["value"] for each in self._identities[user["id"]]]

    def _has_phone(self, number: int, phone: str, *, shown: bool = True) -> bool:
        values = [each["value"] for each in self._identities[number]]
        return phone in values or (shown and self._users[number]["phone"] == phone)


def customer_of(user: Json) -> str:
    """Return the number of *user*, or the name if there is none."""
    digits = (user["external_id"] or "").removeprefix("sms-")
    name: str = user["name"]
    return user["phone"] or (f"+{digits}" if digits.isdecimal() else name)
