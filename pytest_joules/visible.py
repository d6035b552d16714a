"""Foreign text that no terminal, log or page obeys."""


def visible(text: str, *, keep: str = "") -> str:
    r"""Write out what cannot be seen: control, formatting and broken characters.

    >>> print(visible("a\x1b[31m\nb\u202e"))
    a\x1b[31m\nb\u202e
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def lines(text: str) -> str:
    """Write out what cannot be seen but line ends and tabs."""
    return visible(text, keep="\n\t")


def shortened(text: str, most: int) -> str:
    """Cut a text in the middle, so that both of its ends can be told apart.

    >>> shortened("abcdefghij", 7)
    'abc…hij'
    """
    if len(text) <= most:
        return text
    ahead = most // 2
    return f"{text[:ahead]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (most - 1 - ahead) :]}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
