"""What do the digits of a phone number mean? By the numbering plans of all countries."""

from __future__ import annotations

import phonenumbers

#: GoFax is Australian, and so is a number without a country code.
HOME_REGION = "AU"


def formatted(digits: str, *, valid: bool) -> str | None:
    """Write a number as E.164; None if none is so long, or, if *valid*, if it cannot be one."""
    try:
        number = phonenumbers.parse(digits, HOME_REGION)
    except phonenumbers.NumberParseException:
        return None
    accepts = phonenumbers.is_valid_number if valid else phonenumbers.is_possible_number
    if not accepts(number):
        return None
    written: str = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return written


def parts(number: str, *, possible: bool) -> tuple[str, str] | None:
    """Return the country code of a number in E.164, and the digits after it; None: it has none.

    *possible*: None, too, if no number of that country is so long.
    """
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    if possible and not phonenumbers.is_possible_number(parsed):
        return None
    return str(parsed.country_code), phonenumbers.national_significant_number(parsed)
