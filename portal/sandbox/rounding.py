"""Rounds integers to multiples of a unit, such as times to slots and periods."""


def round_down(number: int, unit: int) -> int:
    return number // unit * unit


def round_up(number: int, unit: int) -> int:
    return round_down(number + unit - 1, unit)
