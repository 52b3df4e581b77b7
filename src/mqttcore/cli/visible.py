"""Words of peers in text for people: client ids, topics and reasons may hold what a terminal or a reader obeys."""

__all__ = ["visible"]

# Line breaks and terminal sequences; separators that some take for line breaks; what turns the direction of writing,
# so that a line shows in another order than it has.
_HIDDEN = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F)]
_VISIBLE = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in [*_HIDDEN, *range(0x2066, 0x206A)]}


def visible(text: str) -> str:
    """Return *text* with each of these characters as an escape."""
    return text.translate(_VISIBLE)
