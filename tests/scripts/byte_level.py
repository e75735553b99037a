"""GPT-2's letters of bytes, in which byte-level vocabularies spell their tokens."""


def byte_letters() -> list[str]:
    """Returns the letter of each byte: printable bytes are themselves, others follow U+0100."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(0x100 + others.index(byte)) for byte in range(256)]
