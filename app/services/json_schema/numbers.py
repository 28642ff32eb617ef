"""The numbers in JSON schemas, as far as a grammar that counts in doubles can hold them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Self

_WHOLE = 2**63 - 1024  # the grammar counts in doubles, as far as 64 bits reach
_EXACT = 2**53  # from here on a double cannot be every whole number
_LARGEST = 1e300  # no double is much larger
_LARGEST_FACTOR = 1_000  # with larger ones between bounds the grammar breaks off in the midst of a number
_FINEST = 1e-15  # between this and 0 a bound cannot be told


@dataclass(frozen=True, slots=True)
class Bound:
    """How far a number may go to one side."""

    keyword: ClassVar[str]
    sign: ClassVar[int]  # of the direction in which it tightens

    value: float | int | None = None
    exclusive: bool = False
    keywords: tuple[str, ...] = ()  # that say so

    @classmethod
    def of(cls, node: dict[str, Any], ignore: Callable[[str], None]) -> Self:
        """Read the bound of any draft."""
        exclusively = f"exclusive{cls.keyword.capitalize()}"
        limit, exclusive = node.get(cls.keyword), node.get(exclusively)
        keywords = tuple(keyword for keyword in (cls.keyword, exclusively) if keyword in node)
        bound = cls()
        if limit is not None:
            if _is_number(limit):
                bound = cls(limit, exclusive is True, keywords)
            else:
                ignore(cls.keyword)
        if exclusive is not None and not isinstance(exclusive, bool):
            if not _is_number(exclusive):
                ignore(exclusively)
            elif bound.value is None or (exclusive - bound.value) * cls.sign >= 0:
                bound = cls(exclusive, True, keywords)
        return bound

    def tighten(self, value: int) -> Self:
        """Go no further than `value` either."""
        return type(self)(value) if self.value is None or (value - self.value) * self.sign > 0 else self

    def write(self, whole: bool, ignore: Callable[[str], None]) -> dict[str, Any]:
        """Write it as the grammar can count, never wider; what it cannot is ignored."""
        if self.value is None:
            return {}
        if abs(self.value) > 2**64 or self.value * self.sign > _WHOLE or (not whole and abs(self.value) > _WHOLE):
            for keyword in self.keywords:
                ignore(keyword)
            return {}
        if whole:
            return {self.keyword: _exact(max(-_WHOLE, min(_WHOLE, self._whole())), self.sign)}
        value: float | int = self.value
        if 0 < abs(value) < _FINEST:
            value = _FINEST * self.sign if value * self.sign > 0 else 0
            return {self.keyword: value}
        exact = _exact(value, self.sign)
        return {f"exclusive{self.keyword.capitalize()}" if self.exclusive and exact == value else self.keyword: exact}

    def _whole(self) -> int:
        assert self.value is not None
        inner = math.ceil(self.value) if self.sign > 0 else math.floor(self.value)
        return inner + self.sign if self.exclusive and inner == self.value else inner


class Lower(Bound):
    """How small a number may be."""

    keyword = "minimum"
    sign = 1


class Upper(Bound):
    """How large a number may be."""

    keyword = "maximum"
    sign = -1


def _exact(value: float | int, sign: int) -> float | int:
    """Give the nearest number that a double can be, in the direction of `sign`."""
    if isinstance(value, float) or abs(value) <= _EXACT:
        return value
    double = float(value)
    if (int(double) - value) * sign < 0:
        double = math.nextafter(double, math.inf * sign)
    return int(double)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def is_exact(value: Any) -> bool:
    """Whether the grammar can write a value: its numbers are doubles."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return True
    if isinstance(value, int):
        return abs(value) <= _EXACT or (abs(value) <= _WHOLE and int(float(value)) == value)
    if isinstance(value, float):
        return value == 0 or _FINEST <= abs(value) < 1e22
    return all(map(is_exact, value.values() if isinstance(value, dict) else value))


def factor(value: Any) -> int | float | None:
    """Give what numbers are to be multiples of, None where the grammar cannot count in it."""
    if not _is_number(value) or value == 0:
        return None
    digits = Decimal(str(abs(value)))
    scaled = digits if digits == digits.to_integral_value() else digits.scaleb(-int(digits.as_tuple().exponent))
    return abs(value) if scaled <= _LARGEST_FACTOR and abs(value) >= _FINEST else None


def count(value: Any) -> int | None:
    """Read a number of things, None for what is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
