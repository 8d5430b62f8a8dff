"""The cipher: the first key encrypts, every key decrypts its own ciphertexts, and only at the place that they are bound to."""

import pytest

from registry.tenants.encryption import Cipher, Undecipherable

OLD, NEW = bytes(32), b"n" * 32


def test_texts_of_an_older_key_are_decrypted_and_new_ones_use_the_new_key():
    stored = Cipher({"old": OLD}, setting="KEYS").encrypt(b"text", key_id="old", place=(1,))
    rotated = Cipher({"new": NEW, "old": OLD}, setting="KEYS")

    assert rotated.current == "new"
    assert rotated.decrypt(stored, key_id="old", place=(1,)) == b"text"


def test_a_key_that_was_removed_is_named_with_its_setting():
    stored = Cipher({"old": OLD}, setting="KEYS").encrypt(b"text", key_id="old", place=(1,))

    with pytest.raises(Undecipherable, match="'old' is not among KEYS"):
        Cipher({"new": NEW}, setting="KEYS").decrypt(stored, key_id="old", place=(1,))


def test_parts_of_the_associated_data_cannot_be_confused():
    cipher = Cipher({"k": OLD}, setting="KEYS")
    stored = cipher.encrypt(b"text", key_id="k", place=("a", "bc"))

    with pytest.raises(Undecipherable):
        cipher.decrypt(stored, key_id="k", place=("ab", "c"))


def test_without_keys_encryption_is_refused():
    assert Cipher({}, setting="KEYS").current is None
