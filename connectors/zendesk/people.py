"""The customer's profile in Zendesk: found, adopted or created, and tagged."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from zenpy import Zenpy
from zenpy.lib.api_objects import Identity, User

from connectors.base import Refused, Transient, Unauthorized
from connectors.zendesk.answers import decoding, expect, expect_all
from connectors.zendesk.message import Message
from connectors.zendesk.numbers import is_same, national
from connectors.zendesk.session import Gone

#: Most profiles of one search that we read.
READ = 100
#: Most profiles whose further numbers we read.
LOOKED_INTO = 5


class People:
    """End users, for one thread at a time.

    Every write here may be repeated, so a lost answer leaves no doubt.
    """

    def __init__(self, zenpy: Zenpy, *, region: str) -> None:
        """*region*: region of numbers without a country code, as in ``AU``."""
        self._zenpy = zenpy
        self._region = region

    def find(self, message: Message) -> int | None:
        """Return the id of the customer's profile; None if there is none."""
        with decoding(Transient):
            return self._known(message) or self._adopted(message)

    def make(self, message: Message) -> int:
        """Create the customer's profile and return its id.

        A profile that another conversation has just created is as good.
        """
        with decoding(Transient):
            if message.phone is None:
                return self._save(new_user(message))
            try:
                return self._save(new_user(message, phone=message.phone))
            except Refused as error:
                if error.status != 422:
                    raise
            # Another conversation has just created it. Or the number is the direct line of
            # another profile; the message matters more than the phone field.
            return self._known(message) or self._save(new_user(message))

    def tag(self, person: int, *, tag: str, present: bool) -> None:
        """Add *tag* to a profile, or remove it.

        Raises Refused if tags on users are turned off.
        """
        change = self._zenpy.users.add_tags if present else self._zenpy.users.delete_tags
        try:
            with decoding(Transient):
                tags = [str(each) for each in change(person, [tag])]
        except Gone as error:
            raise Transient("the customer's profile was deleted just now", status=404) from error
        except (Refused, Unauthorized) as error:
            if isinstance(error, Unauthorized) and error.status != 403:
                raise
            # Other events need no tag, so the destination goes on.
            raise Refused(
                f"the customer cannot be tagged {tag}: {error} (turn on tags on users in Admin "
                "Center under People, or set opt_out_tag: null)",
                status=error.status,
            ) from error
        if (tag.casefold() in map(str.casefold, tags)) != present:
            raise Transient(f"Zendesk did not change the tag {tag} of user {person}")

    def _known(self, message: Message) -> int | None:
        """Find the profile of an earlier delivery. Saving it again would undo a new name."""
        try:
            found = expect_all(self._zenpy.users(external_ids=[message.person_id]), User)
            return next((int(user.id) for user in found if user.active is not False), None)
        except Gone:
            return None

    def _adopted(self, message: Message) -> int | None:
        """Find a profile that staff created for this number, and set our id on it."""
        if message.phone is None:
            return None
        user = self._with_phone(message.phone)
        if user is None:
            return None
        if not user.external_id:
            # The next delivery then needs no search, whose index lags. If this is refused the
            # number will do; if everything is, the next request says so.
            with suppress(Refused, Unauthorized):
                self._zenpy.users.update(User(id=user.id, external_id=message.person_id))
        return int(user.id)

    def _with_phone(self, phone: str) -> User | None:
        """Choose among the users with this number: a direct line first, then the oldest."""
        # Digits with a star in front find the number however it was typed
        # (developer.zendesk.com, "Retrieving the Zendesk user id of a caller"). The guide's
        # GET /search does not belong to the scope users:read.
        query = f"role:end-user phone:*{national(phone)}"
        found = expect_all(self._zenpy.users.search(query=query), User)
        users = [
            user
            for user in islice(found, READ)
            if user.role == "end-user" and user.active is not False
        ]
        # The search knows no countries, so it also finds other numbers that end alike.
        shown = [user for user in users if is_same(user.phone, phone, region=self._region)]
        others = [user for user in users if user not in shown][:LOOKED_INTO]
        having = shown or [user for user in others if self._has_identity(user, phone)]
        return min(having, key=_seniority, default=None)

    def _has_identity(self, user: User, phone: str) -> bool:
        """Say whether *phone* is a further number of *user*; profiles show only the first."""
        try:
            found = list(expect_all(self._zenpy.users.identities(id=int(user.id)), Identity))
        except Gone:
            return False
        return any(
            each.type == "phone_number" and is_same(each.value, phone, region=self._region)
            for each in found
        )

    def _save(self, person: User) -> int:
        return int(expect(self._zenpy.users.create_or_update(person), User).id)


def new_user(message: Message, *, phone: str | None = None) -> User:
    """Make the customer's profile."""
    fields = {"external_id": message.person_id, "skip_verify_email": True}
    if phone is None:
        return User(name=message.name, **fields)
    return User(name=message.name, phone=phone, **fields)


def _seniority(user: User) -> tuple[bool, int]:
    return bool(user.shared_phone_number), int(user.id)
