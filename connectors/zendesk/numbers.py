"""Phone numbers as people typed them into Zendesk, which keeps them as they are.

"0400 000 000", "61400000000" and "+61 (400) 000-000" are one number, once it is known which
region a number without a country code belongs to.
"""

from __future__ import annotations

import phonenumbers

#: Every region that phonenumbers knows, as in ``AU``.
REGIONS = frozenset(phonenumbers.SUPPORTED_REGIONS)


def national(number: str) -> str:
    """Return the digits that *number* (E.164) ends with, however people write it."""
    parsed = _parsed(number, region=None)
    if parsed is None:
        return number.removeprefix("+")
    digits: str = phonenumbers.national_significant_number(parsed)
    return digits


def is_same(written: object, number: str, *, region: str) -> bool:
    """Say whether *written* means *number* (E.164), read as people of *region* read it.

    A number with an extension means whoever is behind it, and not the number alone.
    """
    if not isinstance(written, str):
        return False
    parsed = _parsed(written, region=region)
    if parsed is not None:
        if parsed.extension:
            return False
        e164 = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
        if e164 == number or phonenumbers.is_valid_number(parsed):
            return bool(e164 == number)
    # No number of the region: the country code may stand there without its plus, or behind 00.
    digits = phonenumbers.normalize_digits_only(written)
    return f"+{digits.removeprefix('00')}" == number


def _parsed(written: str, *, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None
