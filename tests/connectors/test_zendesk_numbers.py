"""Phone numbers as people type them."""

from __future__ import annotations

from connectors.zendesk.numbers import is_same, national

JANE = "+61400000000"


def test_every_way_to_write_a_number_ends_with_its_national_digits() -> None:
    numbers = {JANE: "400000000", "+15135557611": "5135557611"}
    numbers["+390212345678"] = "0212345678"  # Italians never leave out the zero
    numbers["+00000"] = "00000"  # no number at all

    assert {number: national(number) for number in numbers} == numbers


def test_number_is_known_however_it_was_typed() -> None:
    typed = [JANE, "61400000000", "0400 000 000", "0400000000", "(04) 0000-0000"]
    typed += ["+61 400 000 000", "+61 (0) 400 000 000", "0061400000000", "0011 61 400 000 000"]
    typed += ["+61\u00a0400\u2011000\u2011000", "＋６１４００００００００"]
    typed += ["+61400000000 (mobile)", "400 000 000"]

    assert [each for each in typed if not is_same(each, JANE, region="AU")] == []


def test_other_numbers_are_other_numbers() -> None:
    typed: list[object] = [None, 7, "", "call me", "1400000000"]
    typed += ["+614000000001", "+61400000000x12"]

    assert [each for each in typed if is_same(each, JANE, region="AU")] == []


def test_number_without_a_country_code_is_of_the_region() -> None:
    meant = [
        # The same national digits in two countries: the region decides.
        ("0400 000 000", "+64400000000", "AU", False),
        ("(513) 555-7611", "+15135557611", "US", True),
        ("(513) 555-7611", "+15135557611", "AU", False),
        # Fictional numbers are numbers too.
        ("(555) 123-4567", "+15551234567", "US", True),
        # A country code without its plus, where no number of the region looks like that.
        ("61400000000", JANE, "US", True),
        ("4915112345678", "+4915112345678", "AU", True),
        # 0212345678 is a number of Sydney, and would be one of Morocco with a plus.
        ("0212345678", "+61212345678", "AU", True),
        ("212345678", "+212345678", "AU", False),
    ]

    wrong = [each for each in meant if is_same(each[0], each[1], region=each[2]) is not each[3]]

    assert wrong == []
