"""Ed25519, against the examples of RFC 8032 (7.1)."""

from __future__ import annotations

from base64 import b64encode

import pytest

from smsqueue.providers.base.signature_libraries import load_ed25519_keys, verify_ed25519

#: Public key, message, signature.
EXAMPLES = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def base64(text: str) -> str:
    return b64encode(bytes.fromhex(text)).decode()


@pytest.mark.parametrize(("key", "message", "signature"), EXAMPLES)
def test_the_published_examples(key: str, message: str, signature: str) -> None:
    keys = load_ed25519_keys([base64(key)], "main")
    text = bytes.fromhex(message)
    assert verify_ed25519(keys, base64(signature), text)
    assert not verify_ed25519(keys, base64(signature), text + b"\x00")
    assert not verify_ed25519(keys, base64(signature[:-2] + "ff"), text)
    assert not verify_ed25519([], base64(signature), text)


def test_one_of_several_keys_is_enough() -> None:
    keys = load_ed25519_keys([base64(each[0]) for each in EXAMPLES], "main")
    for _, message, signature in EXAMPLES:
        assert verify_ed25519(keys, base64(signature), bytes.fromhex(message))
