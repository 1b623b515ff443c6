"""Users of the console, and tokens of the API: ``/users``, ``/tokens``."""

from __future__ import annotations

from typing import Annotated

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from typing_extensions import TypedDict

from relay.acts.links import link_for
from relay.api import blueprint as parts
from relay.api.answers import answers
from relay.api.identity import acting, needs
from relay.api.paging import Answer, answer, pages
from relay.api.problem import Fault, documented
from relay.api.reading import Asked, Length, Text, Why
from relay.api.services import services
from relay.rules.access import LONGEST_NAME, NAME, Role, Scope, scopes_of
from relay.shapes.people import TokenJson, UserJson, token_json, user_json
from relay.store.people import User

Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=LONGEST_NAME)]


class NamePath(Asked):
    name: Text = Field(description="The name")


class NewRole(Why):
    """What a user may do."""

    role: Role = Field(description="viewer looks, operator also acts, admin does everything")


class NewUser(NewRole):
    """Somebody who is to sign in."""

    name: Name = Field(description="The name with which the person signs in")


class NewToken(Why):
    """The token that a program will send."""

    name: Name = Field(description="What the token is called in the audit log")
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope), description="What it may do")
    length: Length | None = Field(
        None, alias="for", description="How long it works, such as 90d; for ever if left out"
    )


class InvitedJson(TypedDict):
    """A user, and the link by which that person chooses a password, once."""

    user: UserJson
    link: str


class NewTokenJson(TypedDict):
    """A token, and what its bearer shows: it is answered once."""

    token: TokenJson
    secret: str


class RemovedJson(TypedDict):
    """What was removed."""

    removed: str


def blueprint() -> APIBlueprint:
    made = parts.blueprint("people", about="Users of the console, and tokens of this API")

    @made.get("/users", summary="List the users", responses=pages(UserJson))
    @needs(Scope.ADMIN)
    def list_users() -> Answer:
        return answer([user_json(each) for each in services().users.all()])

    @made.post(
        "/users",
        summary="Add a user, and answer the link for the first password",
        responses=answers(InvitedJson, status=201) | documented(409),
    )
    @needs(Scope.ADMIN)
    def add_user(body: NewUser) -> tuple[InvitedJson, int]:
        user = services().users.add(body.name, body.role, acting(body.why))
        if user is None:
            raise Fault(409, f"there is a user {body.name}")
        return _invited(user), 201

    @made.post(
        "/users/<name>/role",
        summary="Give a user another role; all sessions of the user end",
        responses=answers(UserJson),
    )
    @needs(Scope.ADMIN)
    def change_role(path: NamePath, body: NewRole) -> UserJson:
        users = services().users
        users.change_role(path.name, body.role, acting(body.why))
        user = users.named(path.name)
        if user is None:
            raise _no_user(path.name)
        return user_json(user)

    @made.post(
        "/users/<name>/link",
        summary="Take a user's password away, and answer a new link",
        responses=answers(InvitedJson),
    )
    @needs(Scope.ADMIN)
    def renew_user(path: NamePath, body: Why) -> InvitedJson:
        user = services().users.renew(path.name, acting(body.why))
        if user is None:
            raise _no_user(path.name)
        return _invited(user)

    @made.post(
        "/users/<name>/remove",
        summary="Remove a user, and end all sessions of the user",
        responses=answers(RemovedJson),
    )
    @needs(Scope.ADMIN)
    def remove_user(path: NamePath, body: Why) -> RemovedJson:
        if not services().users.remove(path.name, acting(body.why)):
            raise _no_user(path.name)
        return {"removed": path.name}

    @made.get("/tokens", summary="List the tokens", responses=pages(TokenJson))
    @needs(Scope.ADMIN)
    def list_tokens() -> Answer:
        return answer([token_json(each) for each in services().tokens.all()])

    @made.post(
        "/tokens",
        summary="Make a token, and answer once what its bearer shows",
        responses=answers(NewTokenJson, status=201) | documented(409),
    )
    @needs(Scope.ADMIN)
    def add_token(body: NewToken) -> tuple[NewTokenJson, int]:
        act = acting(body.why)
        token = services().tokens.add(
            body.name,
            scopes_of(body.scopes),
            act,
            expires_at=act.at + body.length if body.length else None,
        )
        if token is None:
            raise Fault(409, f"there is a token {body.name}")
        return {"token": token_json(token[0]), "secret": token[1]}, 201

    @made.post(
        "/tokens/<name>/remove",
        summary="Revoke a token, by its name or id",
        responses=answers(RemovedJson),
    )
    @needs(Scope.ADMIN)
    def remove_token(path: NamePath, body: Why) -> RemovedJson:
        if not services().tokens.remove(path.name, acting(body.why)):
            raise Fault(404, f"no token {path.name}")
        return {"removed": path.name}

    return made


def _invited(user: User) -> InvitedJson:
    found = services()
    admin = found.config.admin
    assert admin is not None, "there is an inner listener: this is it"
    return {
        "user": user_json(user),
        "link": link_for(user, found.users, address=admin.address),
    }


def _no_user(name: str) -> Fault:
    return Fault(404, f"no user {name}")
